//! Time and peak memory of Stable Diffusion v1.4 at full size, one line in the format of
//! `tests/full_size/lora_update.py`; `benches/peers/full_size.py` runs both in turns.
//!
//! ```text
//! cargo run -p ddpo-tests --example full_size -- forward|decode|update|checkpointed DIR [f32|bf16]
//! ```

use std::path::Path;
use std::time::Instant;

use ddpo_tests::full_size::{Layout, LoraUpdate, Result, unet, vae};
use ddpo_torch::PeakMemory;
use tch::{Device, Kind, Tensor};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (what, folder, kind) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [what, folder] | [what, folder, "f32"] => (what.to_owned(), folder.to_owned(), Kind::Float),
        [what, folder, "bf16"] => (what.to_owned(), folder.to_owned(), Kind::BFloat16),
        _ => return Err("expected forward, decode, update or checkpointed, and a folder".into()),
    };
    let folder = Path::new(&folder);
    tch::set_num_threads(2);
    match what.as_str() {
        "forward" => forward(folder),
        "decode" => decode(folder),
        "update" | "checkpointed" => update(folder, kind, &what),
        other => {
            Err(format!("expected forward, decode, update or checkpointed, got {other}").into())
        }
    }
}

fn forward(folder: &Path) -> Result<()> {
    let (net, ones) = (unet(folder)?, (Kind::Float, Device::Cpu));
    let x_t = Tensor::ones([2, 4, 64, 64], ones);
    let (t, cond) = (
        Tensor::from_slice(&[501_i64, 21]),
        Tensor::ones([2, 77, 768], ones),
    );
    let run = || {
        let _eps = tch::no_grad(|| net.forward(&x_t, &t, &cond));
        Ok(())
    };
    run()?;
    println!("{{{}}}", measured("forward", run)?);
    Ok(())
}

fn decode(folder: &Path) -> Result<()> {
    let (net, latents) = (vae(folder)?, [1, 4, 64, 64]);
    let latents = Tensor::ones(latents, (Kind::Float, Device::Cpu));
    let run = || {
        let _images = tch::no_grad(|| net.decode(&latents));
        Ok(())
    };
    run()?;
    println!("{{{}}}", measured("decode", run)?);
    Ok(())
}

fn update(folder: &Path, kind: Kind, what: &str) -> Result<()> {
    let update = LoraUpdate::open(folder, kind, what == "checkpointed")?;
    let mut replayed = None;
    let found = measured(what, || {
        replayed = Some(update.take()?);
        Ok(())
    })?;
    let distance = update.distance(&replayed.ok_or("no update")?, Layout::ChannelsLast)?;
    println!(
        "{{{found}, \"gradients\": {:e}, \"gradient_norm\": {:e}}}",
        distance.worst, distance.norm
    );
    Ok(())
}

/// Wall-clock seconds, CPU seconds of all threads, bytes before and at the peak.
fn measured(what: &str, work: impl FnOnce() -> Result<()>) -> Result<String> {
    let memory = PeakMemory::begin(Device::Cpu)?;
    let (begin, on_cpu) = (Instant::now(), cpu_seconds()?);
    work()?;
    let (wall, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds()? - on_cpu);
    Ok(format!(
        "\"who\": \"ddpo\", \"what\": \"{what}\", \"wall_s\": {wall}, \"cpu_s\": {cpu}, \"before\": {}, \"peak\": {}",
        memory.before(),
        memory.peak()?
    ))
}

/// CPU time of all threads; Linux counts in hundredths.
fn cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The program's name, in brackets, may have spaces; user and system time are fields 14 and 15.
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
