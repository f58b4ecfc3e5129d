//! Scalars for TensorBoard, in its own file format.
//!
//! An events file is a list of records (length, masked CRC-32C of the length, payload, masked CRC-32C of the
//! payload), each payload a `tensorflow.Event` in Protocol Buffers' wire format. Scalars need six of its
//! fields, written here by hand; the one crate that does this (tensorboard-rs) brings an image library and a
//! protobuf version with a published vulnerability.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// An open events file.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Begins `events.out.tfevents.<seconds>.ddpo` in the folder `dir`; a number is added to the name where
    /// such a file is there already.
    ///
    /// A resumed run begins a new file and gives the first step that it will write: TensorBoard then drops
    /// that step and later ones of earlier files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(dir: &Path, wall_time: f64, first_step: u64) -> Result<Self> {
        let (file, path) = create_new(dir, wall_time as u64)?;
        let mut events = Self { file, path };
        events.write(&event(wall_time, 0, Payload::Version))?;
        if first_step > 0 {
            events.write(&event(wall_time, first_step, Payload::Start))?;
        }
        Ok(events)
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes scalars of one step, such as `("reward/mean", -2.1)`, in one record.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn scalars(&mut self, wall_time: f64, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.write(&event(wall_time, step, Payload::Scalars(values)))
    }

    fn write(&mut self, payload: &[u8]) -> Result<()> {
        self.file
            .write_all(&record(payload))
            .map_err(|e| Error::io(&self.path, e))
    }
}

enum Payload<'a> {
    Version,
    Start,
    Scalars(&'a [(&'a str, f64)]),
}

fn create_new(dir: &Path, seconds: u64) -> Result<(File, PathBuf)> {
    let mut n = 0;
    loop {
        let suffix = if n == 0 {
            String::new()
        } else {
            format!(".{n}")
        };
        let path = dir.join(format!("events.out.tfevents.{seconds:010}.ddpo{suffix}"));
        match File::create_new(&path) {
            Ok(file) => return Ok((file, path)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => n += 1,
            Err(e) => return Err(Error::io(&path, e)),
        }
    }
}

fn record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(payload.len() + 16);
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(payload);
    out.extend(masked_crc(payload).to_le_bytes());
    out
}

/// TensorFlow rotates and shifts checksums, since one of data that holds checksums is weak.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// `tensorflow.Event`: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
fn event(wall_time: f64, step: u64, payload: Payload<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    key(&mut out, 1, 1);
    out.extend(wall_time.to_le_bytes());
    // Protocol Buffers omit default values.
    if step > 0 {
        key(&mut out, 2, 0);
        varint(&mut out, step);
    }
    match payload {
        Payload::Version => bytes(&mut out, 3, b"brain.Event:2"),
        // SessionLog: status = 1, START = 1.
        Payload::Start => bytes(&mut out, 7, &[1 << 3, 1]),
        Payload::Scalars(values) => bytes(&mut out, 5, &summary(values)),
    }
    out
}

/// `tensorflow.Summary`: value = 1, of which tag = 1 and simple_value = 2.
fn summary(values: &[(&str, f64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, value) in values {
        let mut one = Vec::new();
        bytes(&mut one, 1, tag.as_bytes());
        key(&mut one, 2, 5);
        one.extend((*value as f32).to_le_bytes());
        bytes(&mut out, 1, &one);
    }
    out
}

fn key(out: &mut Vec<u8>, field: u8, wire_type: u8) {
    out.push(field << 3 | wire_type);
}

fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    key(out, field, 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read back by TensorBoard 2.21 in Python: `tests/golden/events.py` wrote the same events through
    /// TensorBoard's own record writer.
    #[test]
    fn the_file_is_the_one_that_tensorboard_s_own_writer_makes() {
        let golden =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/events/events.bin");
        let dir = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(dir.path(), 1_700_000_000.25, 300).unwrap();
        events
            .scalars(
                1_700_000_001.5,
                300,
                &[("reward/mean", -2.125), ("policy/approx_kl", 1e-9)],
            )
            .unwrap();
        events
            .scalars(
                1_700_000_002.5,
                301,
                &[("reward/mean", f64::NAN), ("größe", 3e10)],
            )
            .unwrap();
        let written = std::fs::read(events.path()).unwrap();
        assert_eq!(written, std::fs::read(golden).unwrap());
    }

    #[test]
    fn a_second_file_of_the_same_second_has_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let a = EventFile::create(dir.path(), 5.0, 0).unwrap();
        let b = EventFile::create(dir.path(), 5.9, 3).unwrap();
        let name = |e: &EventFile| e.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(name(&a), "events.out.tfevents.0000000005.ddpo");
        assert_eq!(name(&b), "events.out.tfevents.0000000005.ddpo.1");
        let error = EventFile::create(&dir.path().join("no"), 5.0, 0).unwrap_err();
        assert!(error.to_string().contains("/no/events.out.tfevents."));
    }
}
