//! Files in a run's folder: names that several readers know, small files written whole, tables that grow.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;

use crate::failure::{Exit, OrExit, Result};

/// Name of the resolved configuration.
pub const CONFIG: &str = "config.toml";

/// Name of the file with versions, seed, device and arguments.
pub const MANIFEST: &str = "manifest.json";

/// Writes a small file whole or not at all.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("partial");
    let write = || {
        fs::write(&temporary, text)?;
        fs::rename(&temporary, path)
    };
    write().or_exit(Exit::Other, format!("cannot write {}", path.display()))
}

/// Adds rows, all in one write; a header first where there is no file.
pub fn append(
    path: &Path,
    columns: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> anyhow::Result<()> {
    let is_new = !path.exists();
    let mut writer = csv::Writer::from_writer(Vec::new());
    if is_new {
        writer.write_record(columns)?;
    }
    for row in rows {
        writer.write_record(row)?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    let doing = || format!("cannot write {}", path.display());
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(doing)?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_data())
        .with_context(doing)
}

/// Takes out the rows of `epoch` and later ones, and a last row that was written half.
pub fn cut(path: &Path, epoch: u64) -> anyhow::Result<()> {
    let Ok(file) = fs::File::open(path) else {
        return Ok(());
    };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(file);
    let mut kept = csv::WriterBuilder::new()
        .flexible(true)
        .from_writer(Vec::new());
    let (mut width, mut is_cut) = (0, false);
    for record in reader.records() {
        let record = record.with_context(|| format!("cannot read {}", path.display()))?;
        let is_header = width == 0;
        if is_header {
            width = record.len();
        }
        let of_kept_epoch = || {
            record
                .get(0)
                .and_then(|cell| cell.parse::<u64>().ok())
                .is_some_and(|at| at < epoch)
        };
        if record.len() == width && (is_header || of_kept_epoch()) {
            kept.write_record(&record)?;
        } else {
            is_cut = true;
        }
    }
    if !is_cut {
        return Ok(());
    }
    let bytes = kept.into_inner().map_err(|error| error.into_error())?;
    let temporary = path.with_extension("partial");
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot rewrite {}", path.display()))
}
