//! Keyed random numbers.
use ddpo_sched::{Seeds, Stream};
use proptest::prelude::*;

#[track_caller]
fn check(name: &str, actual: f64, expected: f64, tolerance: f64) {
    let difference = (actual - expected).abs();
    assert!(
        difference <= tolerance,
        "{name}: {actual} differs from {expected} by {difference:.2e}, allowed {tolerance:.0e}"
    );
}

proptest! {
    #[test]
    fn permutations_are_permutations(seed: u64, n in 0_usize..200) {
        let mut order = Seeds::new(seed).derive(Stream::Shuffle, 3, 5).permutation(n);
        order.sort_unstable();
        prop_assert_eq!(order, (0..n).collect::<Vec<_>>());
    }

    #[test]
    fn below_stays_below(seed: u64, n in 1..u64::MAX) {
        let mut draws = Seeds::new(seed).derive(Stream::Prompts, 0, 0).draws();
        prop_assert!((0..20).all(|_| draws.below(n) < n));
    }
}

#[test]
fn keys_do_not_collide_over_a_grid() {
    let streams = [
        Stream::Noise,
        Stream::Prompts,
        Stream::Shuffle,
        Stream::Timesteps,
        Stream::Weights,
        Stream::Evaluation,
        Stream::Data,
        Stream::Diffusion,
        Stream::Other(0),
        Stream::Other(1),
    ];
    let mut seen = std::collections::HashSet::new();
    for seed in 0..4 {
        for stream in streams {
            for epoch in 0..10 {
                for index in 0..50 {
                    let key = Seeds::new(seed).derive(stream, epoch, index);
                    assert!(
                        seen.insert(key.seed_u64()),
                        "{seed} {stream:?} {epoch} {index}"
                    );
                }
            }
        }
    }
    assert_eq!(seen.len(), 4 * 10 * 10 * 50);
}

/// What a seed means is part of the format: a run can be resumed by a later version.
#[test]
fn seeds_mean_what_they_always_meant() {
    let key = Seeds::new(42).derive(Stream::Noise, 7, 255);
    let mut draws = key.sub(3);
    let mut normals = [0.0; 3];
    draws.fill_normal(&mut normals);
    assert_eq!(key.seed_u64(), 14_338_045_676_632_233_619);
    assert_eq!(normals, [0.371_597_68, 0.000_674_895_7, -0.354_629_1]);
    assert_eq!(key.permutation(8), [4, 5, 2, 0, 1, 7, 3, 6]);
}

#[test]
fn normals_have_the_moments_of_a_standard_normal() {
    const N: usize = 400_000;
    let mut values = vec![0.0; N];
    Seeds::new(1)
        .derive(Stream::Noise, 0, 0)
        .draws()
        .fill_normal(&mut values);
    let moment = |power: i32| {
        values
            .iter()
            .map(|&v| f64::from(v).powi(power))
            .sum::<f64>()
            / N as f64
    };
    // Four standard errors: √(Var z^k / n) with Var z = 1, z² = 2, z³ = 15, z⁴ = 96.
    for (power, expected, variance) in [
        (1, 0.0, 1.0),
        (2, 1.0, 2.0),
        (3, 0.0, 15.0),
        (4, 3.0, 96.0_f64),
    ] {
        let tolerance = 4.0 * (variance / N as f64).sqrt();
        check(
            &format!("moment {power}"),
            moment(power),
            expected,
            tolerance,
        );
    }
}

#[test]
fn below_is_uniform() {
    const N: usize = 60_000;
    let mut draws = Seeds::new(2).derive(Stream::Prompts, 0, 0).draws();
    let mut counts = [0.0_f64; 6];
    for _ in 0..N {
        counts[draws.below(6) as usize] += 1.0;
    }
    let expected = N as f64 / 6.0;
    let chi_squared: f64 = counts
        .iter()
        .map(|c| (c - expected).powi(2) / expected)
        .sum();
    // 99.9 % quantile with five degrees of freedom.
    assert!(chi_squared < 20.5, "{counts:?}");
}
