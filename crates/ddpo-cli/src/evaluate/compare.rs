//! Two evaluations of one set beside each other, image by image.

use std::path::Path;

use ddpo_eval::evals::{EvalRow, EvalRows, evaluations, metric_names, paired};
use ddpo_eval::stats::{Summary, bootstrap_mean, paired_difference};
use ddpo_eval::table::Table;

use crate::config::Plan;
use crate::failure::{Exit, OrExit, Result};

/// Prints both sides of the evaluation in this folder, set by set: before training and after so many epochs.
pub fn compare(out: &Path, plan: &Plan, epochs: u64) -> Result<()> {
    let file = out.join("eval.csv");
    let rows =
        ddpo_eval::evals::read(&file).or_exit(Exit::Data, "the evaluation cannot be read")?;
    for name in plan.eval.sets.iter().map(|set| set.name()) {
        let all = evaluations(&rows, name);
        let [before, .., after] = all.as_slice() else {
            continue;
        };
        println!(
            "{}, {name}: {} images before training and after epoch {epochs}, same prompts, same noise",
            plan.label(),
            before.rows.len()
        );
        println!(
            "{}",
            table(plan.reward.name(), &rows, before, after)?.for_terminal()
        );
    }
    println!("rows: {}", file.display());
    Ok(())
}

/// Means ± standard error, and the mean of the paired differences with a bootstrap interval.
fn table(
    reward: &str,
    rows: &[EvalRow],
    before: &EvalRows<'_>,
    after: &EvalRows<'_>,
) -> Result<Table> {
    let mut table = Table::new(["", "before", "after", "difference", "95 % interval"]);
    let panel = metric_names(rows)
        .into_iter()
        .map(|name| (name, Some(name)));
    for (label, measure) in std::iter::once((reward, None)).chain(panel) {
        let doing = format!("`{label}` cannot be compared");
        let (a, b) = paired(before, after, measure)
            .map_err(anyhow::Error::msg)
            .or_exit(Exit::Numerical, &doing)?;
        let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b - a).collect();
        let of = |values: &[f64]| Summary::of(values).or_exit(Exit::Numerical, &doing);
        let between = paired_difference(&a, &b).or_exit(Exit::Numerical, &doing)?;
        let interval =
            bootstrap_mean(&differences, 0.95, RESAMPLES, 0).or_exit(Exit::Numerical, &doing)?;
        let shown = |s: &Summary| format!("{:.3} ± {:.3}", s.mean, s.standard_error);
        table = table.row([
            label.to_owned(),
            shown(&of(&a)?),
            shown(&of(&b)?),
            format!("{:+.3}", between.mean),
            format!("{:+.3} to {:+.3}", interval.low, interval.high),
        ]);
    }
    Ok(table)
}

/// Of the bootstrap: the ends of a 95 % interval are then steady to about a hundredth of its width.
const RESAMPLES: usize = 10_000;
