//! `ddpo report`: the report of one or several runs.

use std::path::Path;

use ddpo_eval::table::Table;

use crate::commands::args::ReportArgs;
use crate::failure::{Exit, Result};
use crate::report::{Written, find, read, write};

/// Writes it, and prints every claim.
pub fn run(args: &ReportArgs) -> Result<Exit> {
    let folders = find(&args.runs)?;
    let records = read(&folders)?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| args.runs[0].join("report.html"));
    let folder = out.parent().unwrap_or(Path::new(""));
    let Written { claims, .. } = write(&records, folder, &out, "")?;
    println!("{} runs, report in {}", records.len(), out.display());
    println!("{}", Table::of_verdicts(&claims.verdicts).for_terminal());
    Ok(Exit::Done)
}
