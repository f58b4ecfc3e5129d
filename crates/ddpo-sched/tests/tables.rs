//! Schedules, coefficients and seeds: no tensors.
use ddpo_sched::{BetaSchedule, Ddim, Error, NoiseSchedule, ScheduleConfig, Seeds, Stream};
use proptest::prelude::*;
use serde_json::Value;

#[track_caller]
fn check(name: &str, actual: f64, expected: f64, tolerance: f64) {
    let difference = (actual - expected).abs();
    assert!(
        difference <= tolerance,
        "{name}: {actual} differs from {expected} by {difference:.2e}, allowed {tolerance:.0e}"
    );
}

fn ddpm() -> ScheduleConfig {
    ScheduleConfig::default()
}

// Generator: tests/golden/ddim.py.
#[test]
fn tables_are_those_of_diffusers() {
    let tables: Value =
        serde_json::from_str(include_str!("../../../tests/golden/ddim/tables.json")).unwrap();
    for table in tables.as_array().unwrap() {
        let config = match table["config"].as_str().unwrap() {
            "ddpm" => ddpm(),
            _ => ScheduleConfig::sd_v1_4(),
        };
        let n_steps = table["n_steps"].as_u64().unwrap() as usize;
        let ddim = Ddim::new(&config, n_steps, table["eta"].as_f64().unwrap()).unwrap();
        assert_eq!(ddim.n_steps(), n_steps);
        for (i, timestep) in ddim.training_timesteps().enumerate() {
            assert_eq!(table["timesteps"][i].as_u64().unwrap(), timestep as u64);
            let (a, b) = ddim.mean_weights(i);
            for (name, value) in [("weight_x_t", a), ("weight_eps", b), ("std", ddim.std(i))] {
                let expected = table[name][i].as_f64().unwrap();
                let name = format!("{name} of step {i} of {n_steps}");
                // Cancellation in 1 − ᾱ leaves ten digits near timestep 0.
                check(&name, value, expected, 1e-10 * expected.abs().max(1e-2));
            }
        }
    }
}

// PAPER figures: section 1.3 of the fact sheet, computed in f64.
#[test]
fn constants_are_those_of_the_paper() {
    let config = ScheduleConfig::sd_v1_4();
    let schedule = NoiseSchedule::new(&config).unwrap();
    check("abar[981]", schedule.abar()[981], 0.005776, 5e-7);
    check("abar[1]", schedule.abar()[1], 0.998296, 5e-7);
    check("abar[0]", schedule.abar()[0], 0.99915, 5e-6);
    let ddim = Ddim::new(&config, 50, 1.0).unwrap();
    let stds: Vec<f64> = (0..50).map(|step| ddim.std(step)).collect();
    for (i, expected) in [0.4545, 0.4483, 0.4421].into_iter().enumerate() {
        check("first stds", stds[i], expected, 5e-5);
    }
    let last = [0.1323, 0.1194, 0.0999, 0.0395, 0.02065];
    for (actual, expected) in stds[45..].iter().zip(last) {
        check("last stds", *actual, expected, 5e-5);
    }
    // On-policy, the mean log-probability of a dimension is −½ − log σ − log √2π.
    let expected_log_prob = |std: f64| -0.5 - std.ln() - 0.5 * std::f64::consts::TAU.ln();
    check(
        "log_prob at t = 981",
        expected_log_prob(stds[0]),
        -0.630,
        1e-3,
    );
    check(
        "log_prob at t = 1",
        expected_log_prob(stds[49]),
        2.461,
        1e-3,
    );
}

#[test]
fn the_scheduler_file_of_stable_diffusion_is_read() {
    // CompVis/stable-diffusion-v1-4, scheduler/scheduler_config.json.
    let file = r#"{
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.7.0.dev0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "trained_betas": null,
        "clip_sample": false
    }"#;
    let config: ScheduleConfig = serde_json::from_str(file).unwrap();
    assert_eq!(config, ScheduleConfig::sd_v1_4());
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let refused = [
        r#"{"prediction_type": "v_prediction"}"#,
        r#"{"timestep_spacing": "trailing"}"#,
        r#"{"beta_schedule": "squaredcos_cap_v2"}"#,
    ];
    for file in refused {
        let error = serde_json::from_str::<ScheduleConfig>(file).unwrap_err();
        assert!(error.to_string().contains("unknown variant"), "{error}");
    }
    let sd = ScheduleConfig::sd_v1_4;
    let key_of = |config: &ScheduleConfig, n_steps, eta| match Ddim::new(config, n_steps, eta) {
        Err(Error::Config { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    let clipped = ScheduleConfig {
        clip_sample: true,
        ..sd()
    };
    assert_eq!(key_of(&clipped, 50, 1.0), "clip_sample");
    assert_eq!(key_of(&sd(), 0, 1.0), "n_steps");
    assert_eq!(key_of(&sd(), 1001, 1.0), "n_steps");
    assert_eq!(key_of(&sd(), 50, 1.5), "eta");
    assert_eq!(key_of(&sd(), 50, f64::NAN), "eta");
    // All 1000 timesteps and an offset of one would need timestep 1000.
    let error = Ddim::new(&sd(), 1000, 1.0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "steps_offset = 1: the first timestep (1000 - 1) * 1 + 1 = 1000 must be below 1000"
    );
    let no_betas = ScheduleConfig {
        beta_start: 0.0,
        ..sd()
    };
    assert_eq!(key_of(&no_betas, 50, 1.0), "beta_start");
}

fn schedules() -> impl Strategy<Value = ScheduleConfig> {
    (
        2_usize..1200,
        1e-5..1e-3,
        1e-3..0.05,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(n, beta_start, beta_end, scaled, set_alpha_to_one)| ScheduleConfig {
                num_train_timesteps: n,
                beta_start,
                beta_end,
                beta_schedule: if scaled {
                    BetaSchedule::ScaledLinear
                } else {
                    BetaSchedule::Linear
                },
                set_alpha_to_one,
                ..ScheduleConfig::default()
            },
        )
}

proptest! {
    #[test]
    fn abar_falls_strictly_within_zero_and_one(config in schedules()) {
        let schedule = NoiseSchedule::new(&config).unwrap();
        prop_assert!(schedule.betas().iter().all(|&b| b > 0.0 && b < 1.0));
        prop_assert!(schedule.abar().windows(2).all(|w| w[1] < w[0]));
        prop_assert!(schedule.abar().iter().all(|&a| a > 0.0 && a < 1.0));
    }

    #[test]
    fn timesteps_fall_strictly_and_stay_in_range(config in schedules(), share in 0.0..1.0_f64) {
        let n_train = config.num_train_timesteps;
        let n_steps = 1 + ((n_train - 1) as f64 * share) as usize;
        let ddim = Ddim::new(&config, n_steps, 1.0).unwrap();
        let timesteps: Vec<usize> = ddim.training_timesteps().collect();
        prop_assert!(timesteps.iter().all(|&t| t < n_train));
        prop_assert!(timesteps.windows(2).all(|w| w[1] < w[0]));
    }

    #[test]
    fn direction_and_noise_share_the_variance(
        config in schedules(),
        share in 0.0..1.0_f64,
        eta in 0.0..=1.0_f64,
    ) {
        let n_steps = 1 + ((config.num_train_timesteps - 1) as f64 * share) as usize;
        let ddim = Ddim::new(&config, n_steps, eta).unwrap();
        for step in 0..n_steps {
            let (abar, abar_prev) = ddim.abar(step);
            let (a, b) = ddim.mean_weights(step);
            // mean = √ᾱ_prev x̂₀ + dir ε.
            prop_assert!((a - (abar_prev / abar).sqrt()).abs() < 1e-12 * a);
            let dir = b + a * (1.0 - abar).sqrt();
            let scale = a.powi(2).max(1.0);
            prop_assert!((dir.powi(2) + ddim.std(step).powi(2) - (1.0 - abar_prev)).abs() < 1e-12 * scale);
        }
    }

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
