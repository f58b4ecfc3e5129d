mod composed;

use super::*;
use crate::artwork::EntityKind;
use crate::caption;
use crate::error::{Error, Result};

const N: u64 = 20_000;

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn check_share(name: &str, count: usize, of: usize, expected: f64) {
    let share = count as f64 / of as f64;
    let error = (expected * (1.0 - expected) / of as f64).sqrt();
    let off = (share - expected).abs() / error;
    assert!(
        off < 4.0,
        "{name}: {share}, expected {expected}, {off} standard errors off"
    );
}

#[test]
fn scenes_are_the_same_on_every_machine() -> Result<()> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, Mixture::singles())?;
    let mut pixels = [0; SCENE_BYTES];
    let shown: Vec<(u64, String)> = (0..3)
        .map(|index| {
            let (_, caption) = composer.compose(7, index, &mut pixels);
            (hash(&pixels), caption)
        })
        .collect();
    let expected = [
        (
            9350729304731101389,
            "a 3d picture of a sheep on a white background",
        ),
        (13784102548654639546, "tiger"),
        (18232936261648489490, "a flat picture of a small flower"),
    ];
    assert_eq!(
        shown,
        expected.map(|(hash, caption)| (hash, caption.to_owned()))
    );
    // Enough of them for every pattern, size and set.
    let hashes: Vec<u8> = (0..256)
        .flat_map(|index| {
            composer.compose(7, index, &mut pixels);
            hash(&pixels).to_le_bytes()
        })
        .collect();
    assert_eq!(hash(&hashes), 10574160831457030619);
    Ok(())
}

#[test]
fn a_scene_does_not_depend_on_the_scenes_before_it() -> Result<()> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, Mixture::singles())?;
    let mut pixels = [0; SCENE_BYTES];
    let first = composer.compose(3, 11, &mut pixels);
    let drawn = pixels;
    composer.compose(3, 12, &mut pixels);
    assert_eq!(composer.compose(3, 11, &mut pixels), first);
    assert!(pixels == drawn);
    assert_ne!(composer.scene(4, 11), first.0);
    Ok(())
}

#[test]
fn shares_are_those_of_the_mixture() -> Result<()> {
    let pack = Pack::embedded()?;
    let mixture = Mixture::singles();
    let composer = Composer::new(&pack, mixture.clone())?;
    let scenes: Vec<Scene> = (0..N).map(|index| composer.scene(1, index)).collect();
    let count = |is: &dyn Fn(&Scene) -> bool| scenes.iter().filter(|scene| is(scene)).count();
    let share = |name: &str, expected: f64, is: &dyn Fn(&Scene) -> bool| {
        check_share(name, count(is), scenes.len(), expected);
    };
    let kind = |scene: &Scene| pack.entities()[scene.entity()].kind;
    share("training animals", 0.6, &|scene| {
        kind(scene) == EntityKind::Animal
    });
    share("unseen animals", 0.2, &|scene| {
        kind(scene) == EntityKind::UnseenAnimal
    });
    share("objects", 0.2, &|scene| kind(scene) == EntityKind::Object);
    share("cats", 0.6 / 45.0, &|scene| {
        pack.entities()[scene.entity()].name == "cat"
    });
    let plain_white = |scene: &Scene| scene.ground == Ground::plain(Color::White);
    share("plain white", mixture.plain_white, &plain_white);
    share("checkered", 0.625 / 6.0, &|scene| {
        scene.ground.pattern == Pattern::Checkered
    });
    share("small", 1.0 / 3.0, &|scene| {
        scene.figures[0].size == FigureSize::Small
    });
    share("mirrored", 0.5, &|scene| scene.figures[0].flip);

    let plain = (0..N).zip(&scenes).filter(|(index, scene)| {
        let noun = &pack.entities()[scene.entity()].name;
        let caption = composer.caption(scene, 1, *index);
        caption == *noun || caption == caption::with_article(noun)
    });
    check_share(
        "plain captions",
        plain.count(),
        scenes.len(),
        mixture.plain_caption,
    );
    Ok(())
}

#[test]
fn a_set_without_weight_is_never_drawn() -> Result<()> {
    let pack = Pack::embedded()?;
    let sets = ArtworkSet::ALL.map(|set| f64::from(set != ArtworkSet::Openmoji));
    let composer = Composer::new(
        &pack,
        Mixture {
            sets,
            ..Mixture::singles()
        },
    )?;
    assert!((0..2000).all(|index| composer.scene(0, index).set() != ArtworkSet::Openmoji));
    Ok(())
}

#[test]
fn impossible_mixtures_are_refused_by_field() -> Result<()> {
    let pack = Pack::embedded()?;
    let default = Mixture::singles();
    for (field, mixture) in [
        (
            "objects",
            Mixture {
                objects: -0.1,
                ..default.clone()
            },
        ),
        (
            "plain_white",
            Mixture {
                plain_white: 1.5,
                ..default.clone()
            },
        ),
        (
            "sets",
            Mixture {
                sets: [0.0; 7],
                ..default.clone()
            },
        ),
        (
            "animals",
            Mixture {
                animals: 0.0,
                unseen_animals: 0.0,
                objects: 0.0,
                ..default.clone()
            },
        ),
    ] {
        match Composer::new(&pack, mixture) {
            Err(Error::Mixture { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    Ok(())
}

#[test]
fn a_figure_covers_the_ground_and_leaves_its_own_colour() -> Result<()> {
    let pack = Pack::embedded()?;
    // A trash can, a car, …: on black and on white, opaque pixels must agree.
    let composer = Composer::new(&pack, Mixture::singles())?;
    let mut scene = composer.scene(5, 0);
    let [on_white, on_black] = [Color::White, Color::Black].map(|color| {
        scene.ground = Ground::plain(color);
        scene.render(&pack)
    });
    let same = on_white
        .iter()
        .zip(on_black.iter())
        .filter(|(a, b)| a == b)
        .count();
    assert!(same > SCENE_BYTES / 20, "{same} bytes are opaque");
    let lighter = on_white
        .iter()
        .zip(on_black.iter())
        .all(|(white, black)| white >= black);
    assert!(lighter, "a pixel on white is darker than on black");
    Ok(())
}

#[test]
fn captions_say_what_is_drawn_in_words_of_the_vocabulary() -> Result<()> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, Mixture::singles())?;
    let words = crate::vocab::words();
    for index in 0..N {
        let scene = composer.scene(2, index);
        let caption = composer.caption(&scene, 2, index);
        assert!(
            caption.contains(&pack.entities()[scene.entity()].name),
            "{caption}"
        );
        for word in caption.split(' ').filter(|word| *word != "3d") {
            assert!(words.contains(word), "{word} in {caption:?}");
        }
        // "3d" takes two tokens, and each end one.
        let n_tokens = caption.split(' ').count() + usize::from(caption.contains("3d")) + 2;
        assert!(n_tokens <= crate::vocab::MAX_TOKENS, "{caption}");
    }
    Ok(())
}
