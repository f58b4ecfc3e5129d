//! Scenes of more than one figure.

use std::collections::BTreeSet;

use super::{N, check_share, hash};
use crate::artwork::{ArtworkSet, EntityKind, Pack};
use crate::caption::{NUMBERS, plural, with_article};
use crate::error::{Error, Result};
use crate::prompts::{active_animals, training_animals};
use crate::scene::{
    Activity, Color, Composer, FigureRole, Location, Mixture, SCENE_BYTES, Scene, SceneKind,
};

fn name(pack: &Pack, entity: usize) -> &str {
    &pack.entities()[entity].name
}

#[test]
fn streams_of_single_entities_are_those_of_before_there_were_others() -> Result<()> {
    // The hashes of `scenes_are_the_same_on_every_machine` were taken from the first step of the world.
    let pack = Pack::embedded()?;
    let singles = Composer::new(&pack, Mixture::singles())?;
    let mixture = Mixture {
        activities: 0.0,
        counting: 0.0,
        attributes: 0.0,
        ..Mixture::default()
    };
    assert_eq!(mixture, Mixture::singles());
    assert!((0..500).all(|index| singles.scene(9, index).kind == SceneKind::Single));
    Ok(())
}

#[test]
fn composed_scenes_are_the_same_on_every_machine() -> Result<()> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, Mixture::default())?;
    let mut pixels = [0; SCENE_BYTES];
    let mut all = Vec::new();
    for index in 0..512 {
        let (_, caption) = composer.compose(7, index, &mut pixels);
        all.extend(hash(&pixels).to_le_bytes());
        all.extend(caption.as_bytes());
    }
    assert_eq!(hash(&all), 3669825152775037078);
    Ok(())
}

#[test]
fn shares_of_kinds_are_those_of_the_mixture() -> Result<()> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, Mixture::default())?;
    let scenes: Vec<Scene> = (0..N).map(|index| composer.scene(1, index)).collect();
    let share = |name: &str, expected: f64, is: &dyn Fn(SceneKind) -> bool| {
        let count = scenes.iter().filter(|scene| is(scene.kind)).count();
        check_share(name, count, scenes.len(), expected);
    };
    share("single", 0.75, &|kind| kind == SceneKind::Single);
    share("several", 0.1, &|kind| kind == SceneKind::Several);
    share("pairs", 0.05 / 4.0, &|kind| kind == SceneKind::Pair);
    share("tinted", 0.05 / 4.0, &|kind| kind.tint().is_some());
    for place in Location::ALL {
        share(place.phrase(), 0.05 / 4.0, &|kind| {
            kind.location() == Some(place)
        });
    }
    for activity in Activity::ALL {
        share(activity.phrases()[0], 0.1 / 3.0, &|kind| {
            kind.activity() == Some(activity)
        });
    }
    let counted: Vec<_> = scenes
        .iter()
        .filter(|it| it.kind == SceneKind::Several)
        .collect();
    for n in 2..=8 {
        let count = counted.iter().filter(|scene| scene.count() == n).count();
        check_share(NUMBERS[n - 1], count, counted.len(), 1.0 / 7.0);
    }
    Ok(())
}

/// Every kind of scene often.
fn busy() -> Mixture {
    Mixture {
        activities: 0.4,
        counting: 0.3,
        attributes: 0.3,
        ..Mixture::default()
    }
}

#[test]
fn labels_are_what_is_drawn() -> Result<()> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, busy())?;
    for index in 0..4000 {
        let scene = composer.scene(3, index);
        let subjects: Vec<_> = scene.subjects().collect();
        for figure in &scene.figures {
            let drawing = &pack.drawings()[figure.drawing];
            assert_eq!((drawing.entity, drawing.set), (figure.entity, figure.set));
            let prop = pack.entities()[figure.entity].kind == EntityKind::Prop;
            assert_eq!(prop, figure.role == FigureRole::Prop, "{figure:?}");
            assert_eq!(figure.tint, scene.kind.tint());
            let inside = |at: &f32| (-2.0..=66.0).contains(at);
            assert!(figure.center.iter().all(inside), "{figure:?}");
        }
        let props: BTreeSet<&str> = scene
            .figures
            .iter()
            .filter(|figure| figure.role == FigureRole::Prop)
            .map(|figure| name(&pack, figure.entity))
            .collect();
        let expected: BTreeSet<&str> = match scene.kind {
            SceneKind::Activity(activity) => activity.props().iter().copied().collect(),
            SceneKind::Location(place) => place.props().iter().copied().collect(),
            _ => BTreeSet::new(),
        };
        assert_eq!(props, expected, "{:?}", scene.kind);
        let numbers = match scene.kind {
            SceneKind::Several => 2..=8,
            SceneKind::Pair => 2..=2,
            SceneKind::Location(Location::Park) => 1..=4,
            _ => 1..=1,
        };
        assert!(numbers.contains(&scene.count()), "{:?}", scene.kind);
        let same = scene.entity() == scene.other_entity();
        assert_eq!(same, scene.kind != SceneKind::Pair);
        if scene.kind == SceneKind::Several {
            assert!(subjects.iter().all(|it| it.drawing == subjects[0].drawing));
        }
        if let Some(tint) = scene.kind.tint() {
            assert_ne!(tint, scene.ground.color);
        }
    }
    Ok(())
}

#[test]
fn captions_say_what_composed_scenes_show() -> Result<()> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, busy())?;
    let words = crate::vocab::words();
    for index in 0..N {
        let scene = composer.scene(4, index);
        let caption = composer.caption(&scene, 4, index);
        let noun = name(&pack, scene.entity());
        let said = match scene.kind {
            SceneKind::Activity(activity) => {
                let mut phrases = activity.phrases().iter();
                phrases.any(|it| caption.starts_with(&format!("{} {it}", with_article(noun))))
            }
            SceneKind::Several => {
                caption.starts_with(&format!("{} {}", NUMBERS[scene.count() - 1], plural(noun)))
            }
            SceneKind::Tinted(color) => caption.contains(color.word()) && caption.contains(noun),
            SceneKind::Pair => {
                let other = name(&pack, scene.other_entity());
                [noun, other]
                    .iter()
                    .all(|noun| caption.contains(&with_article(noun)))
            }
            SceneKind::Location(place) => {
                let many = match scene.count() {
                    1 => with_article(noun),
                    n => format!("{} {}", NUMBERS[n - 1], plural(noun)),
                };
                caption == format!("{many} {}", place.phrase())
            }
            SceneKind::Single => true,
        };
        assert!(said, "{caption} of {:?}", scene.kind);
        let text: Vec<&str> = caption.split(' ').collect();
        let known = text
            .iter()
            .all(|word| *word == "3d" || words.contains(*word));
        assert!(
            known && text.len() + 3 <= crate::vocab::MAX_TOKENS,
            "{caption}"
        );
    }
    Ok(())
}

#[test]
fn pretraining_shows_two_thirds_of_the_animals_doing_something_and_judges_see_all() -> Result<()> {
    let pack = Pack::embedded()?;
    let seen = |mixture: Mixture| -> Result<BTreeSet<String>> {
        let mixture = Mixture {
            activities: 1.0,
            counting: 0.0,
            attributes: 0.0,
            ..mixture
        };
        let composer = Composer::new(&pack, mixture)?;
        let entities = (0..4000).map(|index| composer.scene(5, index).entity());
        Ok(entities.map(|it| name(&pack, it).to_owned()).collect())
    };
    let active: BTreeSet<String> = active_animals().into_iter().collect();
    assert_eq!((active.len(), training_animals().len()), (30, 45));
    assert_eq!(seen(Mixture::default())?, active);
    let judged = seen(crate::judge::Role::Reward.mixture())?;
    assert_eq!(judged.len(), 45 + 23);
    Ok(())
}

#[test]
fn a_tint_replaces_every_hue_of_a_drawing() -> Result<()> {
    let pack = Pack::embedded()?;
    let mixture = Mixture {
        attributes: 1.0,
        activities: 0.0,
        counting: 0.0,
        ..Mixture::default()
    };
    let composer = Composer::new(&pack, mixture)?;
    let mut checked = 0;
    for index in 0..200 {
        let mut scene = composer.scene(6, index);
        if scene.kind.tint().is_none() {
            continue;
        }
        scene.figures[0].tint = Some(Color::Green);
        scene.ground = crate::scene::Ground::plain(Color::White);
        // Green stays the strongest channel wherever the drawing shows, and at its edges.
        let pixels = scene.render(&pack);
        let green = |rgb: &[u8]| rgb[1] >= rgb[0].max(rgb[2]);
        assert!(pixels.chunks_exact(3).all(green), "scene {index}");
        checked += 1;
    }
    assert!(checked > 20);
    Ok(())
}

#[test]
fn mixtures_without_drawings_for_their_scenes_are_refused_by_field() -> Result<()> {
    let pack = Pack::embedded()?;
    let only = |set: ArtworkSet| ArtworkSet::ALL.map(|it| f64::from(it == set));
    for (field, mixture) in [
        (
            "activities",
            Mixture {
                activities: 0.7,
                counting: 0.4,
                ..Mixture::default()
            },
        ),
        (
            "counting",
            Mixture {
                counting: f64::NAN,
                ..Mixture::default()
            },
        ),
        (
            "sets",
            Mixture {
                sets: only(ArtworkSet::NotoV1),
                ..Mixture::default()
            },
        ),
    ] {
        match Composer::new(&pack, mixture) {
            Err(Error::Mixture { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {:?}", other.map(|_| "accepted")),
        }
    }
    Ok(())
}
