//! Weights against closed forms and what must hold of them.

use ddpo_rwr::{Rewards, Scope, Weighting, effective_samples};
use proptest::prelude::*;

const RWR: Weighting = Weighting::Softmax {
    beta: 0.2,
    rewards: Rewards::Raw,
};
const STANDARDISED: Weighting = Weighting::Softmax {
    beta: 0.2,
    rewards: Rewards::Standardised,
};
const SPARSE: Weighting = Weighting::Percentile { percentile: 0.9 };

#[track_caller]
fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 1e-12, "weight {at}: {a}, expected {b}");
    }
}

#[test]
fn softmax_weights_are_the_closed_form() {
    let rewards = [-3.0, 1.0, 7.5, 1.0];
    let exps = rewards.map(|r: f64| (0.2 * r).exp());
    let total: f64 = exps.iter().sum();
    let expected = exps.map(|e| 4.0 * e / total);
    close(
        &RWR.weigh(Scope::Pool, &["a"; 4], &rewards).unwrap(),
        &expected,
    );
}

#[test]
fn standardised_rewards_have_mean_zero_and_deviation_one() {
    // Mean 2, population deviation 2.
    let rewards = [0.0, 0.0, 4.0, 4.0];
    let (low, high) = ((-0.2_f64).exp(), 0.2_f64.exp());
    let expected = [low, low, high, high].map(|e| 2.0 * e / (low + high));
    let found = STANDARDISED
        .weigh(Scope::Pool, &["a"; 4], &rewards)
        .unwrap();
    for (a, b) in found.iter().zip(expected) {
        // The deviation has 1e-8 added.
        assert!((a - b).abs() < 1e-8, "{a}, expected {b}");
    }
}

#[test]
fn each_prompt_has_its_own_softmax_with_mean_one() {
    let prompts = ["cat", "dog", "cat", "dog", "cat"];
    let rewards = [0.0, 100.0, 5.0, 105.0, 5.0];
    let found = RWR.weigh(Scope::PerPrompt, &prompts, &rewards).unwrap();
    let e = 1_f64.exp();
    let cat = 3.0 / (1.0 + 2.0 * e);
    let dog = 2.0 / (1.0 + e);
    close(&found, &[cat, dog, cat * e, dog * e, cat * e]);
    let over_the_pool = RWR.weigh(Scope::Pool, &prompts, &rewards).unwrap();
    assert!(over_the_pool[0] < 1e-8, "dogs take all the weight");
}

#[test]
fn the_best_tenth_is_kept_of_the_pool_or_of_each_prompt() {
    let rewards: Vec<f64> = (0..20).map(f64::from).collect();
    let prompts: Vec<&str> = (0..20)
        .map(|i| if i < 10 { "cat" } else { "dog" })
        .collect();
    let kept = |scope| {
        let weights = SPARSE.weigh(scope, &prompts, &rewards).unwrap();
        let ones = weights.iter().enumerate().filter(|(_, w)| **w == 1.0);
        ones.map(|(at, _)| at).collect::<Vec<_>>()
    };
    // C is 17.1 over the pool; 8.1 and 18.1 a prompt.
    assert_eq!(kept(Scope::Pool), [18, 19]);
    assert_eq!(kept(Scope::PerPrompt), [9, 19]);
}

#[test]
fn equal_rewards_keep_all() {
    for weighting in [RWR, STANDARDISED, SPARSE] {
        close(
            &weighting.weigh(Scope::Pool, &["a"; 5], &[2.0; 5]).unwrap(),
            &[1.0; 5],
        );
    }
}

#[test]
fn a_reward_without_a_prompt_is_refused() {
    let error = RWR.weigh(Scope::Pool, &["a"], &[1.0, 2.0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "prompts = 1: must be one for each of 2 rewards"
    );
}

#[test]
fn effective_samples_are_the_samples_if_weights_are_equal_and_one_if_one_has_all() {
    assert!((effective_samples(&[0.3; 7]) - 7.0).abs() < 1e-12);
    assert!((effective_samples(&[5.0, 0.0, 0.0]) - 1.0).abs() < 1e-12);
    assert!((effective_samples(&[1.0, 3.0]) - 1.6).abs() < 1e-12);
}

fn weighting() -> impl Strategy<Value = Weighting> {
    prop_oneof![
        (0.0..3.0_f64).prop_map(|beta| Weighting::Softmax {
            beta,
            rewards: Rewards::Raw
        }),
        (0.0..3.0_f64).prop_map(|beta| Weighting::Softmax {
            beta,
            rewards: Rewards::Standardised
        }),
        (0.0..0.999_f64).prop_map(|percentile| Weighting::Percentile { percentile }),
    ]
}

proptest! {
    #[test]
    fn softmax_weights_have_mean_one_and_grow_with_the_reward(
        beta in 0.01..2.0_f64,
        rewards in prop::collection::vec(-200.0..200.0_f64, 1..40),
        standardised in any::<bool>(),
    ) {
        let kind = if standardised { Rewards::Standardised } else { Rewards::Raw };
        let weighting = Weighting::Softmax { beta, rewards: kind };
        let weights = weighting.weigh(Scope::Pool, &vec!["a"; rewards.len()], &rewards).unwrap();
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        prop_assert!((mean - 1.0).abs() < 1e-9, "{}", mean);
        for i in 1..rewards.len() {
            let (up, heavier) = (rewards[i] >= rewards[i - 1], weights[i] >= weights[i - 1]);
            prop_assert!(up == heavier || weights[i] == weights[i - 1]);
        }
    }

    #[test]
    fn a_constant_added_to_all_rewards_changes_nothing(
        weighting in weighting(),
        per_prompt in any::<bool>(),
        shift in -64_i32..64,
        rewards in prop::collection::vec((0_u8..3, -100_i32..100), 1..40),
    ) {
        let scope = if per_prompt { Scope::PerPrompt } else { Scope::Pool };
        let prompts: Vec<&str> = rewards.iter().map(|&(p, _)| ["a", "b", "c"][p as usize]).collect();
        // Quarters, so that the sum is exact and a threshold falls on the same samples.
        let plain: Vec<f64> = rewards.iter().map(|&(_, r)| f64::from(r) / 4.0).collect();
        let shifted: Vec<f64> = plain.iter().map(|r| r + f64::from(shift)).collect();
        let before = weighting.weigh(scope, &prompts, &plain).unwrap();
        let after = weighting.weigh(scope, &prompts, &shifted).unwrap();
        for (a, b) in before.iter().zip(&after) {
            prop_assert!((a - b).abs() <= 1e-9 * a.max(1.0), "{} became {}", a, b);
        }
        if let Weighting::Softmax { .. } = weighting {
            prop_assert!((before.iter().sum::<f64>() - rewards.len() as f64).abs() < 1e-8);
        }
    }

    #[test]
    fn a_percentile_keeps_the_best_and_no_more_than_its_share(
        percentile in 0.0..0.999_f64,
        rewards in prop::collection::hash_set(-1000_i32..1000, 1..60),
    ) {
        let rewards: Vec<f64> = rewards.into_iter().map(f64::from).collect();
        let n = rewards.len();
        let weighting = Weighting::Percentile { percentile };
        let weights = weighting.weigh(Scope::Pool, &vec!["a"; n], &rewards).unwrap();
        let kept = weights.iter().filter(|w| **w == 1.0).count();
        prop_assert!(weights.iter().all(|w| *w == 0.0 || *w == 1.0));
        // Distinct rewards: those above rank p (n − 1).
        let expected = n - (percentile * (n - 1) as f64).ceil() as usize;
        prop_assert_eq!(kept, expected);
        let least = rewards.iter().zip(&weights).filter(|(_, w)| **w == 1.0).map(|(r, _)| *r);
        let least = least.fold(f64::INFINITY, f64::min);
        let dropped = rewards.iter().zip(&weights).filter(|(_, w)| **w == 0.0);
        prop_assert!(dropped.map(|(r, _)| *r).all(|r| r < least));
    }
}

/// Expected: `numpy.percentile([3, 1, 2, 10], q)` of numpy 2.4.6, q = 0, 50, 90, 100.
#[test]
fn a_quantile_is_numpy_s() {
    let rewards = [3.0, 1.0, 2.0, 10.0];
    for (p, expected) in [(0.0, 1.0), (0.5, 2.5), (0.9, 7.9), (1.0, 10.0)] {
        let found = ddpo_rwr::quantile(&rewards, p);
        assert!(
            (found - expected).abs() < 1e-12,
            "{p}: {found}, expected {expected}"
        );
    }
}
