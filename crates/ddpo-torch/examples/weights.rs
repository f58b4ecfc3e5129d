//! Weights that are strict and shared: `cargo run -p ddpo-torch --example weights`.
//!
//! Writes a safetensors file, opens it for a network that does not fit, and for one that does; the second one's tensors
//! are the pages of the file.

use std::error::Error;
use std::time::Instant;

use ddpo_torch::Store;
use ddpo_torch::nn::Linear;
use ddpo_torch::weights::{read_all, save};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let name = format!("ddpo-weights-{}.safetensors", std::process::id());
    let path = std::env::temp_dir().join(name);
    let weight = Tensor::randn([2048, 2048], (Kind::Float, Device::Cpu));
    let bias = Tensor::zeros([2048], (Kind::Float, Device::Cpu));
    save(&path, [("proj.weight", &weight), ("proj.bias", &bias)])?;

    // Every tensor that is missing, misshapen or left over is named at once.
    let store = Store::open(&path, Device::Cpu, Kind::Float)?;
    let _narrow = Linear::new(&(&store.root() / "proj"), 1024, 2048);
    let _missing = Linear::new(&(&store.root() / "head"), 2048, 10);
    let misfit = store.finish().err().ok_or("a misfit was accepted")?;
    println!("{misfit}");

    let started = Instant::now();
    let store = Store::open(&path, Device::Cpu, Kind::Float)?;
    let layer = Linear::new(&(&store.root() / "proj"), 2048, 2048);
    let mut tensors = store.finish()?;
    println!("16 MiB opened in {:.1?}", started.elapsed());
    if layer.weight != weight {
        return Err("what was read is not what was written".into());
    }

    // Copy on write: training such a tensor leaves the file as it is, and the file may even go.
    let shared = tensors.get_mut("proj.weight").ok_or("proj.weight")?;
    let _same = tch::no_grad(|| shared.zero_());
    let untouched = read_all(&path)?["proj.weight"] == weight;
    std::fs::remove_file(&path)?;
    let changed = layer.weight.abs().max().double_value(&[]) == 0.0;
    println!("changed in memory: {changed}; the file as it was: {untouched}");
    match changed && untouched {
        true => Ok(()),
        false => Err("the tensor is not a private view of the file".into()),
    }
}
