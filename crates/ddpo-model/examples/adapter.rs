//! Saves an adapter for Stable Diffusion, and what the UNet predicts with it, for another program to compare.
//!
//! ```text
//! cargo run -p ddpo-model --example adapter -- MODEL OUT
//! python tests/golden/_adapter_in_diffusers.py MODEL OUT
//! ```
use std::error::Error;
use std::path::Path;

use ddpo_model::{Files, LORA_FILE, Lora, LoraConfig, StableDiffusion};
use ddpo_sched::{Key, Seeds, Stream};
use ddpo_torch::weights::save;
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, out] = arguments.as_slice() else {
        return Err("two arguments, please: the model's folder, and one to write to".into());
    };
    std::fs::create_dir_all(out)?;
    let files = Files::Folder(model.into());
    let mut model = StableDiffusion::load(&files, Device::Cpu, Kind::Float)?;
    let config = LoraConfig {
        rank: 3,
        alpha: 4.5, // not the rank, so that a reader who ignores it is found out
        ..LoraConfig::default()
    };
    let lora = Lora::attach(&mut model.unet.net, &config, 1)?;
    let key = Seeds::new(1).derive(Stream::Evaluation, 0, 0);
    tch::no_grad(|| {
        for (i, (_, factor)) in lora.params().iter().enumerate() {
            factor
                .shallow_clone()
                .copy_(&(normal(&key, i, &factor.size()) * 0.3));
        }
    });
    lora.save(&Path::new(out).join(LORA_FILE))?;

    let mut shape = vec![1];
    shape.extend(model.latent_shape());
    let x_t = normal(&key, lora.params().len(), &shape);
    let t = Tensor::from_slice(&[501_i64]);
    let cond = model.prompts.encode(&["a cat"])?;
    let output = tch::no_grad(|| model.unet.net.forward(&x_t, &t, &cond));
    let named = [
        ("x_t", &x_t),
        ("t", &t),
        ("cond", &cond),
        ("output", &output),
    ];
    Ok(save(&Path::new(out).join("unet.safetensors"), named)?)
}

fn normal(key: &Key, stream: usize, shape: &[i64]) -> Tensor {
    let mut values = vec![0.0; shape.iter().product::<i64>() as usize];
    key.sub(stream as u64).fill_normal(&mut values);
    Tensor::from_slice(&values).view(shape)
}
