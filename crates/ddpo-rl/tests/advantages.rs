//! Rewards to advantages, and the configuration's arithmetic.
use ddpo_reward::Prompt;
use ddpo_rl::{Baseline, DdpoConfig, Error, Estimator, PromptStats};
use ddpo_sched::{Ddim, ScheduleConfig};
use ddpo_train::{Persist, StateWriter};
use proptest::prelude::*;

fn prompts(texts: &[&str]) -> Vec<Prompt> {
    texts.iter().map(|&text| Prompt::new(0, text)).collect()
}

// Generator: tests/golden/prompt_stats.py.
#[test]
fn advantages_are_those_of_the_reference() {
    #[derive(serde::Deserialize)]
    struct Epoch {
        prompts: Vec<String>,
        rewards: Vec<f32>,
        advantages: Vec<f64>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        buffer_size: usize,
        min_count: usize,
        epochs: Vec<Epoch>,
    }
    let cases = include_str!("../../../tests/golden/prompt_stats/cases.json");
    for case in serde_json::from_str::<Vec<Case>>(cases).unwrap() {
        let mut stats = PromptStats::new(Baseline::PerPrompt {
            buffer_size: case.buffer_size,
            min_count: case.min_count,
        });
        for (n, epoch) in case.epochs.iter().enumerate() {
            let texts: Vec<&str> = epoch.prompts.iter().map(String::as_str).collect();
            let advantages = stats.update(&prompts(&texts), &epoch.rewards).unwrap();
            for (i, (actual, expected)) in advantages.iter().zip(&epoch.advantages).enumerate() {
                let difference = (actual - expected).abs();
                assert!(
                    difference < 1e-11,
                    "buffer {}, epoch {n}, sample {i}: {actual}, expected {expected}",
                    case.buffer_size
                );
            }
        }
    }
}

#[test]
fn a_prompt_is_compared_with_the_batch_until_it_is_known() {
    let baseline = Baseline::PerPrompt {
        buffer_size: 3,
        min_count: 2,
    };
    let mut stats = PromptStats::new(baseline);
    // cat is known at once (two rewards, mean 2, deviation 1), dog is not (batch: mean 4, deviation √(26/3)).
    let first = stats
        .update(&prompts(&["cat", "cat", "dog"]), &[1.0, 3.0, 8.0])
        .unwrap();
    let expected = [-1.0, 1.0, 4.0 / (26.0_f64 / 3.0).sqrt()];
    for (actual, expected) in first.iter().zip(expected) {
        assert!((actual - expected).abs() < 1e-5, "{first:?}");
    }
    // The buffer holds three; the current reward is one of them.
    stats
        .update(&prompts(&["cat", "cat"]), &[5.0, 7.0])
        .unwrap();
    assert_eq!(stats.rewards_of("cat").unwrap(), [3.0, 5.0, 7.0]);
    assert_eq!(stats.rewards_of("llama"), None);
}

#[test]
fn equal_rewards_have_no_advantage() {
    for baseline in [
        Baseline::Batch,
        Baseline::PerPrompt {
            buffer_size: 4,
            min_count: 2,
        },
    ] {
        let mut stats = PromptStats::new(baseline);
        let advantages = stats.update(&prompts(&["cat"; 3]), &[5.0; 3]).unwrap();
        assert_eq!(advantages, [0.0; 3], "{baseline:?}");
    }
}

#[test]
fn statistics_survive_a_restart() {
    let baseline = Baseline::PerPrompt {
        buffer_size: 3,
        min_count: 2,
    };
    let mut stats = PromptStats::new(baseline);
    let batch = prompts(&["cat", "dog", "cat"]);
    stats.update(&batch, &[0.1, 0.2, 0.3]).unwrap();
    let mut state = StateWriter::new();
    stats.save(&mut state).unwrap();
    let mut restarted = PromptStats::new(baseline);
    restarted.load(&state.into_reader()).unwrap();
    assert_eq!(stats, restarted);
    let mut forgetful = PromptStats::new(baseline);
    let next = |stats: &mut PromptStats| stats.update(&batch, &[0.5, 0.7, 0.1]).unwrap();
    let expected = next(&mut stats);
    assert_eq!(expected, next(&mut restarted));
    assert_ne!(expected, next(&mut forgetful));
}

proptest! {
    #[test]
    fn a_constant_added_to_a_prompts_rewards_changes_nothing(
        rewards in prop::collection::vec(-100.0..100.0_f64, 8),
        shift in -50.0..50.0_f64,
    ) {
        let batch = prompts(&["cat", "cat", "dog", "cat", "dog", "dog", "cat", "dog"]);
        let advantages = |shift: f64| {
            let mut stats = PromptStats::new(Baseline::PerPrompt { buffer_size: 8, min_count: 2 });
            let shifted: Vec<f32> = rewards
                .iter()
                .zip(&batch)
                .map(|(r, p)| (if p.text == "cat" { r + shift } else { *r }) as f32)
                .collect();
            stats.update(&batch, &shifted).unwrap()
        };
        for (a, b) in advantages(0.0).iter().zip(advantages(shift)) {
            // Rewards are f32: a shift of 50 costs 4e-6 of a deviation of order one.
            prop_assert!((a - b).abs() < 1e-3 * a.abs().max(1.0));
        }
    }

    #[test]
    fn advantages_of_a_batch_have_mean_zero_and_deviation_one(
        rewards in prop::collection::vec(-100.0..100.0_f32, 2..40),
    ) {
        let spread = rewards.iter().any(|r| (r - rewards[0]).abs() > 1.0);
        prop_assume!(spread);
        let batch = prompts(&vec!["cat"; rewards.len()]);
        let advantages = PromptStats::new(Baseline::Batch).update(&batch, &rewards).unwrap();
        let n = advantages.len() as f64;
        let mean = advantages.iter().sum::<f64>() / n;
        let deviation = (advantages.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / n).sqrt();
        prop_assert!(mean.abs() < 1e-9, "{mean}");
        prop_assert!((deviation - 1.0).abs() < 1e-6, "{deviation}");
    }
}

#[test]
fn numbers_that_do_not_fit_together_are_refused_with_the_arithmetic() {
    let ddim = Ddim::new(&ScheduleConfig::sd_v1_4(), 50, 1.0).unwrap();
    let is = DdpoConfig::importance_sampling;
    is().check(&ddim, 8).unwrap();
    DdpoConfig::score_function().check(&ddim, 8).unwrap();
    let refused = |config: DdpoConfig, world| config.check(&ddim, world).unwrap_err().to_string();
    let uneven = DdpoConfig {
        samples_per_epoch: 250,
        ..is()
    };
    assert_eq!(
        refused(uneven, 1),
        "updates_per_epoch = 4: must divide samples_per_epoch = 250, but 250 = 62 * 4 + 2"
    );
    assert_eq!(
        refused(is(), 6),
        "samples_per_epoch = 256: 256 samples / 4 updates = 64 samples per update, which 6 ranks cannot share \
         equally"
    );
    let off_policy = DdpoConfig {
        estimator: Estimator::ScoreFunction,
        ..is()
    };
    assert!(refused(off_policy, 1).starts_with("updates_per_epoch = 4: must be 1"));
    let no_clip = DdpoConfig {
        estimator: Estimator::ImportanceSampling { clip_range: 0.0 },
        ..is()
    };
    assert_eq!(refused(no_clip, 1), "clip_range = 0: must be positive");
    let short = DdpoConfig {
        baseline: Baseline::PerPrompt {
            buffer_size: 8,
            min_count: 16,
        },
        ..is()
    };
    assert_eq!(
        refused(short, 1),
        "min_count = 16: must be between 1 and buffer_size = 8"
    );
    let idle = DdpoConfig {
        micro_batch: 0,
        ..is()
    };
    assert_eq!(refused(idle, 1), "micro_batch = 0: must be at least 1");
    let deterministic = Ddim::new(&ScheduleConfig::sd_v1_4(), 50, 0.0).unwrap();
    assert!(matches!(
        is().check(&deterministic, 1),
        Err(Error::Sched(ddpo_sched::Error::Deterministic {
            step: 0,
            ..
        }))
    ));
}
