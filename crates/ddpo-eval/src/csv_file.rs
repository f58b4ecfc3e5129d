//! Reading of CSV files, with errors that name file, line and column.

use std::{fs::File, io::Read, path::Path};

use csv::{Reader, ReaderBuilder, StringRecord};

use crate::{Error, Result};

pub(crate) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::io(path, e))
}

pub(crate) fn reader<R: Read>(from: R) -> Reader<R> {
    ReaderBuilder::new().from_reader(from)
}

/// The names of all columns, if those that are needed are among them.
pub(crate) fn header<R: Read>(
    reader: &mut Reader<R>,
    path: &Path,
    needed: &[&str],
) -> Result<StringRecord> {
    let header = reader.headers().map_err(|e| csv_error(e, path))?.clone();
    if let Some(missing) = needed
        .iter()
        .find(|name| !header.iter().any(|c| c == **name))
    {
        let there = header.iter().collect::<Vec<_>>().join(", ");
        return Err(Error::Csv {
            path: path.to_owned(),
            line: 1,
            column: (*missing).to_owned(),
            reason: format!("missing; the columns are: {there}"),
        });
    }
    Ok(header)
}

/// Indices of these columns, all of which must be there.
pub(crate) fn column_indices<R: Read, const N: usize>(
    reader: &mut Reader<R>,
    path: &Path,
    columns: [&str; N],
) -> Result<[usize; N]> {
    let header = header(reader, path, &columns)?;
    Ok(columns.map(|name| {
        header
            .iter()
            .position(|c| c == name)
            .expect("header() checked that the column is there")
    }))
}

pub(crate) fn each_record<R: Read>(
    reader: &mut Reader<R>,
    path: &Path,
    mut each: impl FnMut(&StringRecord, u64) -> Result<()>,
) -> Result<()> {
    let mut record = StringRecord::new();
    while reader
        .read_record(&mut record)
        .map_err(|e| csv_error(e, path))?
    {
        let line = record.position().map_or(0, csv::Position::line);
        each(&record, line)?;
    }
    Ok(())
}

pub(crate) fn number(cell: &str, path: &Path, line: u64, column: &str) -> Result<f64> {
    if cell.is_empty() {
        return Ok(f64::NAN);
    }
    cell.parse()
        .map_err(|_| cell_error(path, line, column, format!("`{cell}` is not a number")))
}

pub(crate) fn count(cell: &str, path: &Path, line: u64, column: &str) -> Result<u64> {
    cell.parse().map_err(|_| {
        cell_error(
            path,
            line,
            column,
            format!("`{cell}` is not a whole number"),
        )
    })
}

fn cell_error(path: &Path, line: u64, column: &str, reason: String) -> Error {
    Error::Csv {
        path: path.to_owned(),
        line,
        column: column.to_owned(),
        reason,
    }
}

fn csv_error(error: csv::Error, path: &Path) -> Error {
    let line = error.position().map_or(1, csv::Position::line);
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} cells instead of {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    match error.into_kind() {
        csv::ErrorKind::Io(source) => Error::io(path, source),
        _ => cell_error(path, line, "", reason),
    }
}
