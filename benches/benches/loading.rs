//! Loading of a safetensors file: ours and tch's `Tensor::read_safetensors` in turns, time and peak memory.
//!
//! ```text
//! cargo bench -p ddpo-benches --bench loading                        a generated file of 256 MiB
//! DDPO_WEIGHTS=FILE cargo bench -p ddpo-benches --bench loading      an existing file
//! ```
//!
//! Ours checks that every value is finite. The file has been read once before, so that the disk is
//! not timed. The peak is the process's resident memory beyond what was resident before, pages of the
//! file included.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ddpo_benches::Result;
use ddpo_torch::weights::{save, share_all};
use ddpo_torch::{Init, PeakMemory, Store};
use tch::{Device, Kind, Tensor};

/// Time and memory of loading.
struct Taken {
    seconds: f64,
    bytes: u64,
}

fn main() -> Result<()> {
    // `cargo bench` passes `--bench`; anything else only checks that it runs.
    let timed = std::env::args().any(|arg| arg == "--bench");
    let folder = tempfile::tempdir()?;
    let file = match std::env::var_os("DDPO_WEIGHTS").map(PathBuf::from) {
        Some(file) => file,
        None => made(folder.path(), if timed { 64 } else { 1 })?,
    };
    let size = std::fs::metadata(&file)?.len();
    println!("{:.1} MiB, threads: {}", mib(size), tch::get_num_threads());
    let names: Vec<(String, Vec<i64>)> = share_all(&file)?
        .into_iter()
        .map(|(name, tensor)| (name, tensor.size()))
        .collect();
    let n = if timed { 5 } else { 1 };
    let (mut ours, mut theirs, mut converted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..n {
        ours.push(taken(|| load(&file, &names, Kind::Float))?);
        theirs.push(taken(|| Ok(Tensor::read_safetensors(&file)?))?);
        converted.push(taken(|| load(&file, &names, Kind::BFloat16))?);
    }
    for (what, found) in [
        ("ours", &ours),
        ("tch read_safetensors", &theirs),
        ("ours, f32 to bf16", &converted),
    ] {
        let most = found.iter().map(|t| t.bytes).max().unwrap_or_default();
        println!(
            "{what}: {:.3} s (median of {n}), peak {:.1} MiB, {:.3} of the file",
            median(found),
            mib(most),
            most as f64 / size as f64
        );
    }
    println!("tch / ours: {:.1}", median(&theirs) / median(&ours));
    Ok(())
}

/// Squares of 1024 × 1024 in f32, 4 MiB each.
fn made(folder: &Path, n: usize) -> Result<PathBuf> {
    let file = folder.join("weights.safetensors");
    let options = (Kind::Float, Device::Cpu);
    let tensors: Vec<(String, Tensor)> = (0..n)
        .map(|i| {
            (
                format!("w{i:03}"),
                Tensor::full([1024, 1024], i as f64, options),
            )
        })
        .collect();
    save(&file, tensors.iter().map(|(name, t)| (name.as_str(), t)))?;
    Ok(file)
}

fn load(file: &Path, names: &[(String, Vec<i64>)], kind: Kind) -> Result<Vec<Tensor>> {
    let store = Store::open(file, Device::Cpu, kind)?;
    for (name, shape) in names {
        let _ = store.root().tensor(name, shape, Init::Zeros);
    }
    Ok(store.finish()?.into_values().collect())
}

/// Time and memory of a call, whose result is dropped only then.
fn taken<T>(call: impl FnOnce() -> Result<T>) -> Result<Taken> {
    let memory = PeakMemory::begin(Device::Cpu)?;
    let begin = Instant::now();
    let _result = call()?;
    let seconds = begin.elapsed().as_secs_f64();
    let bytes = memory.peak()?.saturating_sub(memory.before());
    Ok(Taken { seconds, bytes })
}

fn median(found: &[Taken]) -> f64 {
    let mut seconds: Vec<f64> = found.iter().map(|t| t.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
