//! libtorch 2.11.0 in `.libtorch`: an existing one, or else one fetched from the Python package index.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::python::{self, Python};
use crate::setup::{Kind, tools};
use crate::shell;
use crate::wheels::{self, Wheel};

/// The only version that tch 0.24 supports.
pub const VERSION: &str = "2.11.0";

const TORCH: Wheel = Wheel {
    name: "torch",
    version: VERSION,
    size_mb: 530.6,
};
/// libtorch_cpu.so of the wheel is linked against these two, CUDA or not.
const CUDART: Wheel = Wheel {
    name: "nvidia-cuda-runtime",
    version: "13.0.96",
    size_mb: 2.2,
};
const CUPTI: Wheel = Wheel {
    name: "nvidia-cuda-cupti",
    version: "13.0.85",
    size_mb: 10.7,
};

/// Files that every libtorch must have.
const NEEDED: [&str; 3] = [
    "lib/libtorch_cpu.so",
    "lib/libc10.so",
    "include/torch/csrc/api/include/torch/torch.h",
];
/// Written last: what was installed, from where, and the size of the needed files.
const STAMP: &str = "installed";

/// The folder that `.cargo/config.toml` names.
pub fn home() -> PathBuf {
    shell::root().join(".libtorch")
}

/// Puts libtorch into `.libtorch`, unless an outer one is used.
pub fn ensure(kind: Kind) -> Result<()> {
    if let Some(outer) = outer() {
        return check_outer(&outer);
    }
    if is_ready(kind) {
        return Ok(());
    }
    let fresh = tools().join("cache/libtorch.partial");
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    let source = match usable_python_torch(kind) {
        Some(folder) => link(&folder, &fresh)?,
        None => {
            ensure!(
                cfg!(all(target_os = "linux", target_arch = "x86_64")),
                "libtorch is fetched for x86-64 Linux only: elsewhere `pip install torch=={VERSION}` and run again, or set LIBTORCH"
            );
            match kind {
                Kind::Cpu => fetch_cpu(&fresh)?,
                Kind::Cuda => install_cuda(&fresh)?,
            }
        }
    };
    fs::write(fresh.join("build-version"), format!("{VERSION}\n"))?;
    fs::write(fresh.join(STAMP), stamp(&fresh, &source)?)?;
    put_in_place(&fresh)?;
    eprintln!("setup: libtorch {VERSION} ({source}) is in .libtorch");
    Ok(())
}

/// A phrase on which libtorch is used.
pub fn summary() -> Result<String> {
    if let Some(outer) = outer() {
        check_outer(&outer)?;
        return Ok(format!("libtorch {VERSION} (LIBTORCH={})", outer.display()));
    }
    ensure!(
        is_ready(Kind::Cpu),
        "libtorch is missing: run `cargo xtask setup`"
    );
    let stamp = fs::read_to_string(home().join(STAMP)).unwrap_or_default();
    let source = stamp
        .lines()
        .next()
        .unwrap_or("put there by hand")
        .to_owned();
    let cuda = if is_ready(Kind::Cuda) {
        "with CUDA"
    } else {
        "CPU only"
    };
    Ok(format!("libtorch {VERSION} ({source}, {cuda})"))
}

/// `LIBTORCH`, if it was not set by `.cargo/config.toml`.
fn outer() -> Option<PathBuf> {
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        return python::installed_torch().map(|(folder, _)| folder);
    }
    let path = PathBuf::from(std::env::var_os("LIBTORCH")?);
    (path != home()).then_some(path)
}

fn check_outer(folder: &Path) -> Result<()> {
    let shown = folder.display();
    let remedy = format!(
        "unset LIBTORCH to have libtorch {VERSION} fetched, or point it to an unpacked one"
    );
    if let Some(missing) = NEEDED.iter().find(|file| !folder.join(file).exists()) {
        bail!("LIBTORCH={shown} has no {missing}: {remedy}");
    }
    match python::torch_version(folder) {
        Some(version) if version == VERSION => Ok(()),
        Some(version) => {
            bail!("LIBTORCH={shown} is version {version}, tch needs exactly {VERSION}: {remedy}")
        }
        // A folder without a version passes torch-sys' check too.
        None => Ok(()),
    }
}

/// Whether `.libtorch` matches its stamp; without a stamp it was put there by hand, and must look complete.
fn is_ready(kind: Kind) -> bool {
    let home = home();
    if kind == Kind::Cuda && !home.join("lib/libtorch_cuda.so").exists() {
        return false;
    }
    if python::torch_version(&home).as_deref() != Some(VERSION) {
        return false;
    }
    match fs::read_to_string(home.join(STAMP)) {
        Ok(stamp) => stamp.lines().skip(1).all(|line| is_as_stamped(&home, line)),
        Err(_) => NEEDED.iter().all(|file| home.join(file).exists()),
    }
}

fn is_as_stamped(home: &Path, line: &str) -> bool {
    line.rsplit_once(' ').is_some_and(|(file, size)| {
        fs::metadata(home.join(file)).is_ok_and(|meta| meta.len().to_string() == size)
    })
}

fn stamp(folder: &Path, source: &str) -> Result<String> {
    let mut text = format!("{source}\n");
    for file in NEEDED {
        let size = fs::metadata(folder.join(file))
            .with_context(|| format!("{file} is missing after unpacking"))?
            .len();
        text += &format!("{file} {size}\n");
    }
    Ok(text)
}

/// `torch` 2.11.0 of the installed Python, if it has the wanted libraries.
fn usable_python_torch(kind: Kind) -> Option<PathBuf> {
    let (folder, version) = python::installed_torch()?;
    if version != VERSION {
        eprintln!("setup: Python has torch {version}, not {VERSION}: fetching our own");
        return None;
    }
    let has = |file: &str| folder.join(file).exists();
    let enough =
        NEEDED.iter().all(|file| has(file)) && (kind == Kind::Cpu || has("lib/libtorch_cuda.so"));
    enough.then_some(folder)
}

fn link(package: &Path, fresh: &Path) -> Result<String> {
    for folder in ["include", "lib"] {
        symlink(package.join(folder), fresh.join(folder))?;
    }
    Ok("linked to Python's torch".into())
}

/// The parts of the wheel that the CPU needs (it is a CUDA build): two folders, five libraries, one linker script.
fn fetch_cpu(fresh: &Path) -> Result<String> {
    eprintln!("setup: fetching libtorch {VERSION} for the CPU (about 540 MB, once)");
    let python = Python::find()?;
    let cache = tools().join("cache");
    let torch = wheels::fetch(&python, &TORCH, &cache)?;
    let nvidia = [
        wheels::fetch(&python, &CUDART, &cache)?,
        wheels::fetch(&python, &CUPTI, &cache)?,
    ];
    let n_files = wheels::unpack(&torch, fresh, |name| {
        let inside = name.strip_prefix("torch/")?;
        let libraries = ["lib/libtorch_cpu.so", "lib/libc10.so", "lib/libgomp.so.1"];
        let wanted = inside.starts_with("include/") || libraries.contains(&inside);
        wanted.then(|| PathBuf::from(inside))
    })?;
    for wheel in &nvidia {
        wheels::unpack(wheel, fresh, |name| {
            let library = name.strip_prefix("nvidia/cu13/lib/")?;
            let wanted = ["libcudart.so.13", "libcupti.so.13"].contains(&library);
            wanted.then(|| Path::new("lib").join(library))
        })?;
    }
    // torch-sys passes -ltorch; the wheel's own libtorch.so would pull in CUDA.
    fs::write(fresh.join("lib/libtorch.so"), "INPUT(-ltorch_cpu)\n")?;
    eprintln!("  unpacked {n_files} files, all checked against the wheel's RECORD");
    for wheel in nvidia.iter().chain([&torch]) {
        fs::remove_file(wheel)?;
    }
    Ok("from the Python package index".into())
}

/// The whole `torch` with its CUDA packages; $ORIGIN in the libraries finds them beside it.
fn install_cuda(fresh: &Path) -> Result<String> {
    eprintln!("setup: installing torch {VERSION} with CUDA's libraries (about 5 GB on disk)");
    let site = fresh.join("site");
    let scratch = tools().join("cache/partial");
    fs::create_dir_all(&scratch)?;
    let mut pip = Python::find()?.pip();
    pip.args(["install", "--only-binary=:all:", "--target"])
        .arg(&site)
        .arg(format!("torch=={VERSION}"))
        .env("TMPDIR", &scratch);
    shell::check(&mut pip)?;
    for folder in ["include", "lib"] {
        symlink(Path::new("site/torch").join(folder), fresh.join(folder))?;
    }
    Ok("installed with CUDA by pip".into())
}

/// Renames the finished folder to `.libtorch`, moving an older one out of the way first.
fn put_in_place(fresh: &Path) -> Result<()> {
    let home = home();
    let old = tools().join("cache/libtorch.old");
    let _ = fs::remove_dir_all(&old);
    if home.exists() {
        fs::rename(&home, &old)?;
    }
    fs::rename(fresh, &home).with_context(|| format!("cannot move to {}", home.display()))?;
    let _ = fs::remove_dir_all(&old);
    Ok(())
}
