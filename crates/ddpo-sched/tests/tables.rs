//! Schedules and coefficients: no tensors.
use ddpo_sched::{
    BetaSchedule, Ddim, Error, EulerAncestral, NoiseSchedule, Prediction, ScheduleConfig, Spacing,
};
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

/// Stored runs replay to the bit, so the coefficients of Stable Diffusion keep theirs: FNV-1a over the words of a, b and
/// std of 50 steps, computed in another language from the formulas of `Ddim`.
#[test]
fn coefficients_keep_their_bits() {
    let ddim = Ddim::new(&ScheduleConfig::sd_v1_4(), 50, 1.0).unwrap();
    let numbers = (0..50).flat_map(|step| {
        let (a, b) = ddim.mean_weights(step);
        [a, b, ddim.std(step)]
    });
    let hash = numbers.fold(0xcbf2_9ce4_8422_2325_u64, |hash, number| {
        (hash ^ number.to_bits()).wrapping_mul(0x0100_0000_01b3)
    });
    assert_eq!(hash, 0xe916_114b_bea7_c270);
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
        r#"{"prediction_type": "flow_prediction"}"#,
        r#"{"timestep_spacing": "karras"}"#,
        r#"{"beta_schedule": "sigmoid"}"#,
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
    let trained = |betas: &[f64]| ScheduleConfig {
        num_train_timesteps: 3,
        trained_betas: Some(betas.to_vec()),
        steps_offset: 0,
        ..sd()
    };
    assert_eq!(key_of(&trained(&[0.1, 0.2]), 3, 1.0), "trained_betas");
    assert_eq!(key_of(&trained(&[0.1, 1.0, 0.2]), 3, 1.0), "trained_betas");
    assert!(Ddim::new(&trained(&[0.3, 0.2, 0.1]), 3, 1.0).is_ok());
    let endless = ScheduleConfig {
        num_train_timesteps: 200_000,
        ..sd()
    };
    assert_eq!(key_of(&endless, 50, 1.0), "num_train_timesteps");
    let one = ScheduleConfig {
        num_train_timesteps: 1,
        rescale_betas_zero_snr: true,
        steps_offset: 0,
        ..sd()
    };
    assert_eq!(key_of(&one, 1, 1.0), "rescale_betas_zero_snr");
}

/// Unused numbers are not checked: a cosine schedule has no first and last β.
#[test]
fn a_cosine_schedule_needs_no_range_of_betas() {
    let config = ScheduleConfig {
        beta_schedule: BetaSchedule::SquaredcosCapV2,
        beta_start: 0.0,
        beta_end: 1.0,
        ..ScheduleConfig::default()
    };
    let schedule = NoiseSchedule::new(&config).unwrap();
    // With integer division, 999 of them are 0.
    assert!(schedule.betas().iter().all(|&beta| beta > 1e-5));
    assert_eq!(schedule.betas().last(), Some(&0.999));
}

#[test]
fn noise_is_not_predicted_where_nothing_else_is() {
    let config = |prediction_type, timestep_spacing| ScheduleConfig {
        prediction_type,
        timestep_spacing,
        rescale_betas_zero_snr: true,
        ..ScheduleConfig::sd_v1_4()
    };
    let refused = config(Prediction::Epsilon, Spacing::Trailing);
    let errors = [
        Ddim::new(&refused, 10, 1.0).unwrap_err(),
        EulerAncestral::new(&refused, 10).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(
            error.to_string(),
            "prediction_type = epsilon: must be v_prediction or sample: timestep 999 has no signal \
             (rescale_betas_zero_snr), so its noise says nothing of x₀"
        );
    }
    // Leading does not visit timestep 999; the other predictions say what x₀ is.
    for allowed in [
        config(Prediction::Epsilon, Spacing::Leading),
        config(Prediction::VPrediction, Spacing::Trailing),
        config(Prediction::Sample, Spacing::Linspace),
    ] {
        let ddim = Ddim::new(&allowed, 10, 1.0).unwrap();
        let finite = |step| {
            let (a, b) = ddim.mean_weights(step);
            a.is_finite() && b.is_finite() && ddim.std(step).is_finite()
        };
        assert!((0..10).all(finite), "{allowed:?}");
        assert!(EulerAncestral::new(&allowed, 10).is_ok());
    }
}

fn schedules() -> impl Strategy<Value = ScheduleConfig> {
    let schedules = [
        BetaSchedule::Linear,
        BetaSchedule::ScaledLinear,
        BetaSchedule::SquaredcosCapV2,
    ];
    let predictions = [
        Prediction::Epsilon,
        Prediction::VPrediction,
        Prediction::Sample,
    ];
    let spacings = [Spacing::Leading, Spacing::Linspace, Spacing::Trailing];
    let numbers = (2_usize..1200, 1e-5..1e-3, 1e-3..0.05);
    let choices = (0_usize..3, 0_usize..3, 0_usize..3);
    let flags = (any::<bool>(), any::<bool>());
    (numbers, choices, flags).prop_map(
        move |((n, beta_start, beta_end), (schedule, prediction, spacing), (to_one, zero_snr))| {
            ScheduleConfig {
                num_train_timesteps: n,
                beta_start,
                beta_end,
                beta_schedule: schedules[schedule],
                set_alpha_to_one: to_one,
                prediction_type: predictions[prediction],
                timestep_spacing: spacings[spacing],
                rescale_betas_zero_snr: zero_snr && prediction != 0,
                ..ScheduleConfig::default()
            }
        },
    )
}

/// Up to all of the timesteps.
fn n_steps(config: &ScheduleConfig, share: f64) -> usize {
    1 + ((config.num_train_timesteps - 1) as f64 * share) as usize
}

proptest! {
    #[test]
    fn abar_falls_strictly_within_zero_and_one(config in schedules()) {
        let schedule = NoiseSchedule::new(&config).unwrap();
        let (abar, betas) = (schedule.abar(), schedule.betas());
        prop_assert!(abar.windows(2).all(|w| w[1] < w[0]));
        prop_assert!(betas.iter().all(|&b| b > 0.0 && b <= 1.0));
        let last = abar.len() - 1;
        prop_assert!(abar[..last].iter().all(|&a| a > 0.0 && a < 1.0));
        prop_assert_eq!(abar[last] == 0.0, config.rescale_betas_zero_snr);
        prop_assert_eq!(betas[last] == 1.0, config.rescale_betas_zero_snr);
    }

    #[test]
    fn timesteps_fall_strictly_and_stay_in_range(config in schedules(), share in 0.0..1.0_f64) {
        let (n_train, n_steps) = (config.num_train_timesteps, n_steps(&config, share));
        let ddim = Ddim::new(&config, n_steps, 1.0).unwrap();
        let timesteps: Vec<usize> = ddim.training_timesteps().collect();
        prop_assert_eq!(timesteps.len(), n_steps);
        prop_assert!(timesteps.iter().all(|&t| t < n_train));
        prop_assert!(timesteps.windows(2).all(|w| w[1] < w[0]));
        let (first, last) = (timesteps[0], timesteps[n_steps - 1]);
        let whole = n_steps > 1 && config.timestep_spacing != Spacing::Leading;
        prop_assert!(!whole || first == n_train - 1);
        prop_assert!(config.timestep_spacing == Spacing::Trailing || last == 0);
        let euler = EulerAncestral::new(&config, n_steps).unwrap();
        for (time, timestep) in euler.times().zip(timesteps) {
            prop_assert!((time - timestep as f64).abs() <= 0.5);
        }
    }

    #[test]
    fn direction_and_noise_share_the_variance(
        config in schedules(),
        share in 0.0..1.0_f64,
        eta in 0.0..=1.0_f64,
    ) {
        let n_steps = n_steps(&config, share);
        let ddim = Ddim::new(&config, n_steps, eta).unwrap();
        for step in 0..n_steps {
            let (abar, abar_prev) = ddim.abar(step);
            let (signal, noise) = (abar.sqrt(), (1.0 - abar).sqrt());
            let (a, b) = ddim.mean_weights(step);
            // mean = √ᾱ_prev x₀ + dir ε of x_t = √ᾱ x₀ + √(1−ᾱ) ε, whatever of these the network says.
            let (of_x_0, dir) = match config.prediction_type {
                Prediction::Epsilon => (a * signal, a * noise + b),
                Prediction::VPrediction => (a * signal - b * noise, a * noise + b * signal),
                Prediction::Sample => (a * signal + b, a * noise),
            };
            let scale = (a * noise).powi(2).max(1.0);
            prop_assert!((of_x_0 - abar_prev.sqrt()).abs() < 1e-12 * scale);
            prop_assert!((dir.powi(2) + ddim.std(step).powi(2) - (1.0 - abar_prev)).abs() < 1e-12 * scale);
        }
    }

    #[test]
    fn euler_ancestral_goes_to_the_next_noise_level(config in schedules(), share in 0.0..1.0_f64) {
        let n_steps = n_steps(&config, share);
        let euler = EulerAncestral::new(&config, n_steps).unwrap();
        for step in 0..n_steps {
            let (sigma, to) = euler.sigma(step);
            prop_assert!(to < sigma && sigma.is_finite());
            let (a, b) = euler.mean_weights(step);
            // mean = x₀ + σ_down ε of x = x₀ + σ ε; v is that of latents scaled to unit variance.
            let root = (sigma * sigma + 1.0).sqrt();
            let (of_x_0, down) = match config.prediction_type {
                Prediction::Epsilon => (a, a * sigma + b),
                Prediction::VPrediction => (a - b * sigma / root, a * sigma + b / root),
                Prediction::Sample => (a + b, a * sigma),
            };
            prop_assert!((of_x_0 - 1.0).abs() < 1e-11);
            let variance = down.powi(2) + euler.std(step).powi(2);
            prop_assert!((variance - to * to).abs() < 1e-11 * (sigma * sigma).max(1.0));
            prop_assert_eq!(euler.std(step) > 0.0, step + 1 < n_steps);
        }
    }
}
