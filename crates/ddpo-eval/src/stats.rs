//! Means, standard errors and intervals; plain f64, no hidden randomness.
//!
//! Sample quantities (`std`) divide by n − 1; population ones (`population_std`) by n, as per-prompt
//! advantages do. Every function refuses values that are not finite and reports the first of them.

use rand::Rng;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::{Error, Result};

/// Mean and spread of a list of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// How many values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Sample standard deviation (n − 1); 0 for a single value.
    pub std: f64,
    /// Standard error of the mean, `std / sqrt(n)`.
    pub standard_error: f64,
}

impl Summary {
    /// Summarizes at least one finite value.
    ///
    /// # Errors
    /// [`Error::TooFew`] without values, [`Error::NotFinite`] on NaN or an infinity.
    pub fn of(values: &[f64]) -> Result<Self> {
        let (mean, squares) = moments(values)?;
        let n = values.len();
        let std = if n > 1 {
            (squares / (n - 1) as f64).sqrt()
        } else {
            0.0
        };
        Ok(Self {
            n,
            mean,
            std,
            standard_error: std / (n as f64).sqrt(),
        })
    }
}

/// Standard deviation with n in the denominator.
///
/// # Errors
/// Same as [`Summary::of`].
pub fn population_std(values: &[f64]) -> Result<f64> {
    let (_, squares) = moments(values)?;
    Ok((squares / values.len() as f64).sqrt())
}

/// A range that holds the true value with a stated confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Confidence interval of the mean by Student's t: right for few, roughly normal values such as one number per seed.
///
/// # Errors
/// [`Error::TooFew`] below two values; [`Error::Mismatch`] unless `0 < level < 1`; otherwise same as [`Summary::of`].
pub fn t_interval(values: &[f64], level: f64) -> Result<Interval> {
    check_level(level)?;
    let summary = at_least_two("values", values)?;
    let t = student((values.len() - 1) as f64)?.inverse_cdf(0.5 + level / 2.0);
    let half = t * summary.standard_error;
    Ok(Interval {
        low: summary.mean - half,
        high: summary.mean + half,
    })
}

/// Percentile-bootstrap interval of any statistic.
///
/// The same seed gives the same interval on every machine.
///
/// # Errors
/// [`Error::TooFew`] without values or resamples; [`Error::Mismatch`] unless `0 < level < 1`;
/// [`Error::NotFinite`] on a value that is not finite.
pub fn bootstrap(
    values: &[f64],
    statistic: impl Fn(&[f64]) -> f64,
    level: f64,
    resamples: usize,
    seed: u64,
) -> Result<Interval> {
    check_level(level)?;
    check(values)?;
    if resamples == 0 {
        return Err(Error::TooFew {
            what: "resamples".into(),
            needed: 1,
            n: 0,
        });
    }
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let mut resample = values.to_vec();
    let mut statistics: Vec<f64> = (0..resamples)
        .map(|_| {
            for slot in &mut resample {
                // u64, so that the draw does not depend on the width of a pointer.
                *slot = values[rng.random_range(0..values.len() as u64) as usize];
            }
            statistic(&resample)
        })
        .collect();
    statistics.sort_by(f64::total_cmp);
    Ok(Interval {
        low: quantile_of_sorted(&statistics, 0.5 - level / 2.0),
        high: quantile_of_sorted(&statistics, 0.5 + level / 2.0),
    })
}

/// [`bootstrap`] of the mean.
///
/// # Errors
/// Same as [`bootstrap`].
pub fn bootstrap_mean(values: &[f64], level: f64, resamples: usize, seed: u64) -> Result<Interval> {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    bootstrap(values, mean, level, resamples, seed)
}

/// Summary of `after[i] − before[i]`, for paired values such as those of the same prompts or seeds.
///
/// # Errors
/// [`Error::Mismatch`] if the lengths differ; otherwise same as [`Summary::of`].
pub fn paired_difference(before: &[f64], after: &[f64]) -> Result<Summary> {
    if before.len() != after.len() {
        return Err(Error::mismatch(
            "paired values",
            format!("{} of both", before.len()),
            after.len(),
        ));
    }
    check(before)?;
    check(after)?;
    let differences: Vec<f64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    Summary::of(&differences)
}

/// Welch's comparison of two independent means with unequal spreads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welch {
    /// Mean of the second minus mean of the first.
    pub difference: f64,
    /// `sqrt(se_1² + se_2²)`.
    pub standard_error: f64,
    /// Degrees of freedom after Welch and Satterthwaite; infinite if both spreads are 0.
    pub degrees: f64,
    /// Two-sided p-value; if both spreads are 0, 1 for equal means and 0 otherwise.
    pub p: f64,
}

impl Welch {
    /// Compares `second` with `first`.
    ///
    /// # Errors
    /// [`Error::TooFew`] below two values on a side; otherwise same as [`Summary::of`].
    pub fn of(first: &[f64], second: &[f64]) -> Result<Self> {
        let a = at_least_two("first values", first)?;
        let b = at_least_two("second values", second)?;
        let difference = b.mean - a.mean;
        let (va, vb) = (a.standard_error.powi(2), b.standard_error.powi(2));
        let standard_error = (va + vb).sqrt();
        if standard_error == 0.0 {
            return Ok(Self {
                difference,
                standard_error,
                degrees: f64::INFINITY,
                p: if difference == 0.0 { 1.0 } else { 0.0 },
            });
        }
        let degrees =
            (va + vb).powi(2) / (va.powi(2) / (a.n - 1) as f64 + vb.powi(2) / (b.n - 1) as f64);
        let p = 2.0 * student(degrees)?.sf((difference / standard_error).abs());
        Ok(Self {
            difference,
            standard_error,
            degrees,
            p,
        })
    }
}

/// Mean, and sum of squared deviations from it, in two passes.
fn moments(values: &[f64]) -> Result<(f64, f64)> {
    check(values)?;
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    Ok((mean, values.iter().map(|v| (v - mean).powi(2)).sum()))
}

fn at_least_two(what: &str, values: &[f64]) -> Result<Summary> {
    if values.len() < 2 {
        return Err(Error::TooFew {
            what: what.into(),
            needed: 2,
            n: values.len(),
        });
    }
    Summary::of(values)
}

fn check(values: &[f64]) -> Result<()> {
    if values.is_empty() {
        return Err(Error::TooFew {
            what: "values".into(),
            needed: 1,
            n: 0,
        });
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite {
            what: "values".into(),
            index,
            value: values[index],
        }),
    }
}

fn check_level(level: f64) -> Result<()> {
    if level > 0.0 && level < 1.0 {
        return Ok(());
    }
    Err(Error::mismatch(
        "confidence level",
        "between 0 and 1",
        level,
    ))
}

fn student(degrees: f64) -> Result<StudentsT> {
    StudentsT::new(0.0, 1.0, degrees).map_err(|e| Error::mismatch("degrees of freedom", e, degrees))
}

/// Linear interpolation between order statistics, as numpy's default.
fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn a_summary_agrees_with_hand_computed_values() {
        let s = Summary::of(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        close(s.mean, 2.5);
        close(s.std, (5.0_f64 / 3.0).sqrt());
        close(s.standard_error, s.std / 2.0);
        close(
            population_std(&[1.0, 2.0, 3.0, 4.0]).unwrap(),
            1.25_f64.sqrt(),
        );
    }

    #[test]
    fn one_value_or_equal_values_have_no_spread() {
        assert_eq!(Summary::of(&[3.0]).unwrap().std, 0.0);
        let s = Summary::of(&[0.1; 7]).unwrap();
        assert!(s.std < 1e-16, "{}", s.std);
    }

    #[test]
    fn nothing_and_not_a_number_are_refused() {
        assert!(matches!(Summary::of(&[]), Err(Error::TooFew { .. })));
        let error = Summary::of(&[1.0, f64::NAN]).unwrap_err();
        assert_eq!(error.to_string(), "values: value 1 is NaN");
        assert!(t_interval(&[1.0], 0.95).is_err());
        assert!(t_interval(&[1.0, 2.0], 1.0).is_err());
        assert!(bootstrap_mean(&[], 0.9, 10, 0).is_err());
        assert!(bootstrap_mean(&[1.0], 0.9, 0, 0).is_err());
        assert!(paired_difference(&[1.0], &[1.0, 2.0]).is_err());
        assert!(Welch::of(&[1.0], &[1.0, 2.0]).is_err());
    }

    /// Quantile t(2, 0.975) = 4.302653 from printed tables.
    #[test]
    fn three_seeds_get_student_s_interval() {
        let i = t_interval(&[1.0, 2.0, 3.0], 0.95).unwrap();
        let half = 4.302_652_729_7 / 3.0_f64.sqrt();
        assert!((i.low - (2.0 - half)).abs() < 1e-6 && (i.high - (2.0 + half)).abs() < 1e-6);
    }

    /// Expected: the formula by hand, and t's density integrated numerically with 2 million points.
    #[test]
    fn welch_agrees_with_the_integrated_density() {
        let w = Welch::of(&[1.0, 2.0, 3.0, 4.0], &[2.0, 4.0, 6.0, 8.0, 10.0]).unwrap();
        close(w.difference, 3.5);
        close(w.standard_error, (5.0_f64 / 12.0 + 2.0).sqrt());
        assert!(
            (w.degrees - 5.520_787_746_170_678).abs() < 1e-9,
            "{}",
            w.degrees
        );
        assert!((w.p - 0.069_133_593_192).abs() < 1e-9, "{}", w.p);
        assert_eq!(Welch::of(&[1.0, 1.0], &[1.0, 1.0]).unwrap().p, 1.0);
        assert_eq!(Welch::of(&[1.0, 1.0], &[2.0, 2.0]).unwrap().p, 0.0);
    }

    #[test]
    fn the_bootstrap_repeats_itself_and_brackets_the_mean() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i % 10)).collect();
        let a = bootstrap_mean(&values, 0.95, 2000, 7).unwrap();
        assert_eq!(a, bootstrap_mean(&values, 0.95, 2000, 7).unwrap());
        assert_ne!(a, bootstrap_mean(&values, 0.95, 2000, 8).unwrap());
        let se = Summary::of(&values).unwrap().standard_error;
        assert!(
            (a.low - (4.5 - 1.96 * se)).abs() < 0.1 && (a.high - (4.5 + 1.96 * se)).abs() < 0.1
        );
    }

    proptest! {
        #[test]
        fn moving_all_values_moves_only_the_mean(
            values in prop::collection::vec(-100.0_f64..100.0, 1..40), by in -100.0_f64..100.0,
        ) {
            let moved: Vec<f64> = values.iter().map(|v| v + by).collect();
            let (a, b) = (Summary::of(&values).unwrap(), Summary::of(&moved).unwrap());
            prop_assert!((a.mean + by - b.mean).abs() < 1e-9);
            prop_assert!((a.std - b.std).abs() < 1e-9);
        }
    }
}
