//! Which training timesteps a sampler visits: one rule for all samplers.

use crate::{Error, Prediction, Result, ScheduleConfig, Spacing};

/// The model times of `n_steps` steps, noisiest first: strictly decreasing, from 0 to below `num_train_timesteps`.
///
/// They are whole, but with spacing `linspace`, where a sampler may round them. The arithmetic is numpy's, in its
/// order, so that what is rounded is the same f64.
///
/// # Errors
/// [`Error::Config`] if a number is out of range, with the arithmetic.
pub(crate) fn times(config: &ScheduleConfig, n_steps: usize) -> Result<Vec<f64>> {
    let n_train = config.num_train_timesteps;
    if n_steps == 0 || n_steps > n_train {
        return Err(Error::config(
            "n_steps",
            n_steps,
            format!("must be between 1 and num_train_timesteps = {n_train}"),
        ));
    }
    let (total, n) = (n_train as f64, n_steps as f64);
    Ok(match config.timestep_spacing {
        Spacing::Leading => {
            let stride = n_train / n_steps;
            let first = (n_steps - 1) * stride + config.steps_offset;
            if first >= n_train {
                return Err(Error::config(
                    "steps_offset",
                    config.steps_offset,
                    format!(
                        "the first timestep ({n_steps} - 1) * {stride} + {} = {first} must be below {n_train}",
                        config.steps_offset
                    ),
                ));
            }
            let times = (0..n_steps).rev().map(|i| i * stride + config.steps_offset);
            times.map(|t| t as f64).collect()
        }
        Spacing::Linspace => {
            let distance = (total - 1.0) / (n - 1.0).max(1.0);
            let time = |i: usize| match i + 1 == n_steps && n_steps > 1 {
                true => total - 1.0,
                false => i as f64 * distance,
            };
            (0..n_steps).rev().map(time).collect()
        }
        Spacing::Trailing => {
            let distance = (total - total / n) - total;
            let time = |i: usize| (total + i as f64 * distance).round_ties_even() - 1.0;
            (0..n_steps).map(time).collect()
        }
    })
}

/// Refuses ε as the prediction at a timestep where nothing but noise is left: x₀ does not follow from it.
///
/// # Errors
/// [`Error::Config`] for `prediction_type`.
pub(crate) fn check_signal(prediction: Prediction, time: f64, abar: f64) -> Result<()> {
    if prediction != Prediction::Epsilon || abar > 0.0 {
        return Ok(());
    }
    Err(Error::config(
        "prediction_type",
        "epsilon",
        format!(
            "must be v_prediction or sample: timestep {time} has no signal (rescale_betas_zero_snr), so \
             its noise says nothing of x₀"
        ),
    ))
}
