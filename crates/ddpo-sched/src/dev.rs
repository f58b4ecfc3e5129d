//! Conformance suites (feature `dev`): what every denoiser and every sampler promises.
//!
//! An author of another crate calls them from a test, one line for each implementation:
//!
//! ```
//! use ddpo_sched::{Ddim, EulerAncestral, ScheduleConfig, dev};
//!
//! let config = ScheduleConfig::sd_v1_4();
//! dev::sampler_conforms(&Ddim::new(&config, 10, 1.0)?);
//! dev::sampler_conforms(&EulerAncestral::new(&config, 10)?);
//! # Ok::<(), ddpo_sched::Error>(())
//! ```

use tch::{Device, Kind, Tensor};

use crate::{
    DenoiseInput, Denoiser, Draw, Error, Gaussian, KeyedNoise, LogProb, NoiseSource, Sampler, Seeds,
};

/// Checks the contract of [`Sampler`]: a walk of Gaussians whose samples do not see each other, over model times that
/// fall, with log-probabilities exactly where there is noise, and whose steps can be taken back if it says so.
///
/// # Panics
/// With the broken promise.
pub fn sampler_conforms(sampler: &dyn Sampler) {
    let n_steps = sampler.n_steps();
    assert!(n_steps > 0, "there is a step");
    times_fall(sampler, n_steps);
    scales_are_positive(sampler, n_steps);
    out_of_range_is_refused(sampler, n_steps);
    for shape in [[3, 2, 4, 4].as_slice(), &[3, 5]] {
        let x_t = normal(0, shape) * sampler.init_noise_scale();
        let (output, noise) = (normal(1, shape), normal(2, shape));
        for step in 0..n_steps {
            step_conforms(sampler, step, [&x_t, &output, &noise]);
        }
        mixed_steps_are_separate_ones(sampler, n_steps, &x_t, &output);
        odd_shapes_are_refused(sampler, &x_t, &output);
    }
    steps_are_taken_back(sampler, n_steps);
}

fn times_fall(sampler: &dyn Sampler, n_steps: usize) {
    let times: Vec<f64> = (0..n_steps).map(|step| sampler.timestep(step)).collect();
    for (step, time) in times.iter().enumerate() {
        assert!(time.is_finite(), "model time of step {step} is {time}");
        let before = step.checked_sub(1).map_or(f64::INFINITY, |i| times[i]);
        assert!(
            *time < before,
            "model time of step {step}: {time} is not below {before}"
        );
    }
    let all: Vec<usize> = (0..n_steps).collect();
    let told = sampler.timesteps(&all).expect("the times of all steps");
    let expected = Tensor::from_slice(&times).to_kind(Kind::Float);
    assert_eq!(told.kind(), Kind::Float, "kind of the times");
    assert_eq!(told.device(), Device::Cpu, "device of the times");
    assert_eq!(told, expected, "the network is told the times");
}

fn scales_are_positive(sampler: &dyn Sampler, n_steps: usize) {
    let init = sampler.init_noise_scale();
    assert!(init.is_finite() && init > 0.0, "initial scale is {init}");
    let latents = normal(0, &[1, 5]);
    for step in 0..n_steps {
        let scale = sampler.input_scale(step);
        assert!(
            scale.is_finite() && scale > 0.0,
            "input scale of step {step} is {scale}"
        );
        let scaled = sampler.scale_model_input(&[step], &latents);
        close("scaled input", &scaled, &(&latents * scale), 1e-6);
    }
}

fn out_of_range_is_refused(sampler: &dyn Sampler, n_steps: usize) {
    let (x_t, output) = (normal(0, &[2, 5]), normal(1, &[2, 5]));
    let at = [0, n_steps];
    let refused = [
        sampler.transition(&at, &x_t, &output).map(drop),
        sampler.timesteps(&at).map(drop),
    ];
    for result in refused {
        let range = matches!(result, Err(Error::Range { index, .. }) if index == n_steps as u64);
        assert!(
            range,
            "step {n_steps} is refused with Error::Range: {result:?}"
        );
    }
}

/// One step of all samples: shape, kind, gradient, and the log-probability of what is drawn.
fn step_conforms(sampler: &dyn Sampler, step: usize, [x_t, output, noise]: [&Tensor; 3]) {
    let batch = x_t.size()[0] as usize;
    let output = output.copy().set_requires_grad(true);
    let next = transition(sampler, &vec![step; batch], x_t, &output);
    assert_eq!(next.mean.size(), x_t.size(), "shape of step {step}'s mean");
    assert_eq!(next.mean.kind(), Kind::Float, "kind of step {step}'s mean");
    assert_eq!(next.std.len(), batch, "a deviation for each sample");
    let total = next.mean.square().sum(Kind::Float);
    let finite = total.double_value(&[]).is_finite();
    assert!(finite, "the mean of step {step} is finite");
    // libtorch crashes if asked for a gradient of what has none.
    let recorded = total.requires_grad();
    assert!(recorded, "a gradient of the mean in the output");
    let grads = Tensor::f_run_backward(&[total], &[&output], false, false);
    let grads = grads.expect("a gradient of the mean in the output");
    assert_eq!(grads[0].size(), x_t.size(), "gradient in the output");

    let std = next.std[0];
    assert!(std.is_finite() && std >= 0.0, "std of step {step} is {std}");
    assert!(
        next.std.iter().all(|&of_sample| of_sample == std),
        "samples at step {step} have one deviation: {:?}",
        next.std
    );
    assert_eq!(
        std > 0.0,
        sampler.is_stochastic(step),
        "step {step} is stochastic exactly if its deviation, {std}, is above 0"
    );
    let _no_grad = tch::no_grad_guard();
    let x_prev = next.at(noise).expect("a sample");
    if std == 0.0 {
        assert_eq!(x_prev, next.mean, "step {step} adds no noise");
        let density = next.log_prob(&x_prev, LogProb::Mean);
        assert!(
            matches!(density, Err(Error::NoDensity { .. })),
            "{density:?}"
        );
        return;
    }
    let log_prob = next
        .log_prob(&x_prev, LogProb::Mean)
        .expect("a log-probability");
    let squares = noise
        .square()
        .flatten(1, -1)
        .mean_dim(1, false, Kind::Float);
    let expected = squares * -0.5 - (std.ln() + 0.5 * std::f64::consts::TAU.ln());
    // x is rounded to f32, which is so many deviations.
    let rounding = f64::from(f32::EPSILON) * largest(&x_prev) / std;
    let tolerance = 1e-5 + 10.0 * rounding;
    let name = format!("log-probability of step {step}");
    close(&name, &log_prob, &expected, tolerance);
}

/// Samples at several steps in one call are those of one call each.
fn mixed_steps_are_separate_ones(
    sampler: &dyn Sampler,
    n_steps: usize,
    x_t: &Tensor,
    output: &Tensor,
) {
    let at = [n_steps - 1, 0, n_steps / 2];
    let mixed = transition(sampler, &at, x_t, output);
    for (row, &step) in at.iter().enumerate() {
        let one = |tensor: &Tensor| tensor.narrow(0, row as i64, 1);
        let alone = transition(sampler, &[step], &one(x_t), &one(output));
        let name = format!("a sample alone at step {step}");
        close(&name, &one(&mixed.mean), &alone.mean, 1e-6);
        assert_eq!(
            mixed.std[row], alone.std[0],
            "deviation of step {step} alone"
        );
    }
}

fn odd_shapes_are_refused(sampler: &dyn Sampler, x_t: &Tensor, output: &Tensor) {
    let fewer = output.narrow(0, 0, 2);
    for (case, at, output) in [
        ("an output of fewer samples", 3, &fewer),
        ("fewer steps than samples", 2, output),
    ] {
        let result = sampler.transition(&vec![0; at], x_t, output);
        assert!(
            matches!(result, Err(Error::Shape { .. })),
            "{case} is refused with Error::Shape: {result:?}"
        );
    }
}

/// Taken back from x₀ to the start, latents have the spread that the initial ones have: between that of no data at all
/// and that of data with variance 1.
fn steps_are_taken_back(sampler: &dyn Sampler, n_steps: usize) {
    let back: Vec<_> = (0..n_steps).rev().map(|i| sampler.renoise(i)).collect();
    let known: Vec<(f64, f64)> = back.iter().copied().flatten().collect();
    if known.is_empty() {
        return;
    }
    assert_eq!(
        known.len(),
        n_steps,
        "all steps can be taken back, or none can"
    );
    let (mut least, mut most) = (0.0, 1.0);
    for (a, b) in known {
        assert!(
            a.is_finite() && a >= 0.0 && b.is_finite() && b >= 0.0,
            "the way back is {a} x_prev + {b} z"
        );
        least = a * a * least + b * b;
        most = a * a * most + b * b;
    }
    let init = sampler.init_noise_scale().powi(2);
    assert!(
        least <= init * 1.01 && init <= most * 1.01,
        "taken back, latents have a variance of {least} to {most}; the initial ones have {init}"
    );
}

/// Checks the contract of [`Denoiser`] on one input of at least two samples, in f32.
///
/// The output has the shape of `x_t`; a row of it depends on its own row of the input alone; gradients follow libtorch's
/// grad mode; [`conditioned`](Denoiser::conditioned) gives the same numbers without any.
///
/// # Panics
/// With the broken promise.
pub fn denoiser_conforms(net: &dyn Denoiser, input: DenoiseInput<'_>) {
    let shape = input.x_t.size();
    assert!(shape[0] >= 2, "the suite needs two samples or more");
    let plain = tch::no_grad(|| net.predict(input)).expect("a prediction");
    assert_eq!(plain.size(), shape, "shape of the output");
    assert!(!plain.requires_grad(), "no gradient under no_grad");
    assert!(largest(&plain).is_finite(), "the output is finite");

    let x_t = input.x_t.detach().copy().set_requires_grad(true);
    let output = tch::with_grad(|| net.predict(DenoiseInput { x_t: &x_t, ..input }));
    let output = output.expect("a prediction");
    assert!(output.requires_grad(), "a gradient in grad mode");
    close("with and without gradients", &output, &plain, 1e-5);
    let of_first = output.narrow(0, 0, 1).square().sum(Kind::Float);
    let grads = Tensor::f_run_backward(&[of_first], &[&x_t], false, false);
    let grad = grads.expect("a gradient in x_t").swap_remove(0);
    assert_eq!(grad.size(), shape, "gradient in x_t");
    let of_others = largest(&grad.narrow(0, 1, shape[0] - 1));
    assert!(
        of_others == 0.0,
        "a sample's output has no gradient in another sample: {of_others:.2e}"
    );

    let conditioned = net.conditioned(input.cond).expect("conditioning");
    let again = conditioned(input.x_t, input.t).expect("a prediction");
    assert!(!again.requires_grad(), "no gradient once conditioned");
    close("conditioned", &again, &plain, 1e-5);

    for row in 0..shape[0] {
        let one = |tensor: &Tensor| tensor.narrow(0, row, 1);
        let alone = tch::no_grad(|| {
            net.predict(DenoiseInput {
                x_t: &one(input.x_t),
                t: &one(input.t),
                cond: &input.cond.narrow(row as usize, 1),
            })
        });
        let alone = alone.expect("a prediction");
        close("a row alone", &alone, &one(&plain), 1e-5);
    }
}

fn transition(sampler: &dyn Sampler, at: &[usize], x_t: &Tensor, output: &Tensor) -> Gaussian {
    sampler.transition(at, x_t, output).expect("a transition")
}

/// Noise that is the same in every run.
fn normal(row: u64, shape: &[i64]) -> Tensor {
    let ids: Vec<u64> = (0..shape[0] as u64).map(|id| 100 * row + id).collect();
    let noise = KeyedNoise::new(Seeds::new(0), 0).normal(&ids, Draw::Initial, &shape[1..]);
    noise.expect("keyed noise has every sample")
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.detach().abs().max().double_value(&[])
}

/// Equal within `tolerance` of the largest expected value, or of 1.
#[track_caller]
fn close(name: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size(), "shape of {name}");
    let difference = largest(&(actual.detach() - expected.detach()));
    assert!(
        difference <= tolerance * largest(expected).max(1.0),
        "{name}: differs by {difference:.2e}"
    );
}
