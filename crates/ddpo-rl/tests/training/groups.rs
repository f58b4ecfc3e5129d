//! Groups: samples of one prompt, which may begin from one initial latent, compared with each other alone.

use ddpo_rl::{Baseline, Ddpo, DdpoConfig};
use ddpo_sched::{Draw, KeyedNoise, NoiseSource, Seeds};
use ddpo_testkit::World;
use ddpo_train::{Error, Images, train};

use super::parts::Rows;
use super::{epochs, importance_sampling, run};

const GROUP: usize = 4;

fn grouped(shared_noise: bool) -> DdpoConfig {
    DdpoConfig {
        baseline: Baseline::Group { size: GROUP },
        samples_per_prompt: GROUP,
        shared_noise,
        ..importance_sampling()
    }
}

#[test]
fn advantages_are_of_the_group_alone() {
    let mut world = World::new().unwrap();
    let mut rows = Rows::default();
    let mut algorithm = Ddpo::new(grouped(false), &world.sampler, 1).unwrap();
    train(
        &mut algorithm,
        &mut world.context(vec![&mut rows]),
        &epochs(1),
    )
    .unwrap();
    assert_eq!(rows.0.len(), 32);
    for group in rows.0.chunks(GROUP) {
        assert!(group.iter().all(|row| row.prompt == group[0].prompt));
        let rewards: Vec<f64> = group.iter().map(|row| f64::from(row.reward)).collect();
        let mean = rewards.iter().sum::<f64>() / GROUP as f64;
        let std = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / GROUP as f64;
        for (row, reward) in group.iter().zip(&rewards) {
            let expected = (reward - mean) / (std.sqrt() + 1e-4);
            let apart = (f64::from(row.advantage) - expected).abs();
            assert!(apart < 1e-5, "{row:?}, expected {expected}");
        }
    }
}

/// Images of the first epoch by sample id.
fn images(shared_noise: bool) -> Vec<Images> {
    let mut world = World::new().unwrap();
    let (_, seen, _) = run(&mut world, grouped(shared_noise), &epochs(1)).unwrap();
    super::images_by_id(&seen)
        .into_iter()
        .map(|(_, image)| image)
        .collect()
}

#[test]
fn a_group_may_begin_from_one_latent_and_still_differs_by_the_noise_of_its_steps() {
    let (own, shared) = (images(false), images(true));
    for (id, (own, shared)) in own.iter().zip(&shared).enumerate() {
        // The first of each group has its own noise either way.
        assert_eq!(own == shared, id % GROUP == 0, "sample {id}");
    }
    assert_ne!(shared[0], shared[1]);
}

#[test]
fn the_initial_latents_of_a_group_are_one() {
    let noise = KeyedNoise::new(Seeds::new(0), 0);
    let initial = |group| {
        let noise = noise.with_shared_initial(group);
        let ids: Vec<u64> = (0..8).collect();
        noise.normal(&ids, Draw::Initial, &[3, 2, 2]).unwrap()
    };
    let (own, shared) = (initial(1), initial(GROUP));
    for id in 0..8_i64 {
        assert_eq!(shared.get(id), own.get(id - id % GROUP as i64));
    }
}

#[test]
fn groups_learn() {
    let (first, last, se) = super::learned(grouped(false), 80);
    assert!(
        last > first + 10.0 && last > first + 6.0 * se,
        "{first} to {last}, standard error {se}"
    );
}

#[test]
fn groups_that_do_not_add_up_are_refused_with_the_arithmetic() {
    let world = World::new().unwrap();
    let refused = |config: DdpoConfig| match Ddpo::new(config, &world.sampler, 1) {
        Err(Error::Config { key, expected, .. }) => (key, expected),
        other => panic!("{other:?}"),
    };
    let (key, expected) = refused(DdpoConfig {
        samples_per_prompt: 5,
        ..importance_sampling()
    });
    assert_eq!(key, "samples_per_prompt");
    assert_eq!(
        expected,
        "must divide samples_per_epoch = 32, but 32 = 6 * 5 + 2"
    );
    let (key, _) = refused(DdpoConfig {
        samples_per_prompt: 1,
        ..grouped(false)
    });
    assert_eq!(key, "samples_per_prompt");
    let (key, _) = refused(DdpoConfig {
        shared_noise: true,
        ..importance_sampling()
    });
    assert_eq!(key, "shared_noise");
}
