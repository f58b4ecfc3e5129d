//! Sampling that follows a reward: `cargo run -p ddpo-guidance --example colourful`.
//!
//! Nothing is trained. The network is the exact denoiser of normal latents and the decoder a matrix, so that all of
//! this takes a second; a guide takes a UNet and a VAE the same way. Exits with 1 unless images are the more
//! colourful the larger the weight is.

use std::process::ExitCode;

use ddpo_guidance::{ImageColourfulness, Result, UniversalGuide};
use ddpo_reward::{Colourfulness, Images, Reward, prompts::numbered};
use ddpo_sched::{
    Conditioning, Ddim, DenoiseInput, Denoiser, KeyedNoise, LatentBatch, NoiseSchedule,
    ScheduleConfig, Seeds,
};
use ddpo_train::{Error, SamplingStrategy};
use tch::{Device, Kind, Tensor};

/// Images and pixels along an edge.
const N: usize = 16;
const SIDE: usize = 8;

/// `ε = √(1 − ᾱ) x_t`: the data is standard normal.
struct Exact(NoiseSchedule);

impl Denoiser for Exact {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        let abar = Tensor::from_slice(self.0.abar()).to_kind(Kind::Float);
        let abar = abar.index_select(0, &input.t.to_kind(Kind::Int64));
        let noise: Tensor = 1.0 - abar;
        Ok(input.x_t * noise.sqrt().view([-1, 1, 1, 1]))
    }
}

/// Greyish images around ½, in [0, 1]. Differentiable: guidance needs the gradient of the reward in the latents.
fn decode(latents: &Tensor) -> Tensor {
    (latents * 0.05 + 0.5).clamp(0.0, 1.0)
}

/// Mean colourfulness of images drawn with this weight of the reward's gradient; 0 is plain sampling.
fn colourfulness(weight: f64) -> Result<f64> {
    let config = ScheduleConfig::sd_v1_4();
    let guide = UniversalGuide {
        net: Box::new(Exact(NoiseSchedule::new(&config)?)),
        schedule: NoiseSchedule::new(&config)?,
        sampler: Box::new(Ddim::new(&config, 20, 1.0)?),
        decode: Box::new(decode),
        reward: Box::new(ImageColourfulness),
        weight,
        repeats: 1,
        batch: N,
    };
    let prompts = numbered(vec!["anything"; N]);
    let sample_ids: Vec<u64> = (0..N as u64).collect();
    let batch = LatentBatch {
        shape: &[3, SIDE as i64, SIDE as i64],
        cond: &Conditioning::none(N, Device::Cpu),
        sample_ids: &sample_ids,
        log_prob: None,
    };
    let noise = KeyedNoise::new(Seeds::new(0), 0);
    let (net, sampler) = (&*guide.net, &*guide.sampler);
    let latents = guide.sample(net, sampler, &prompts, &batch, &noise, &mut |_| Ok(()))?;

    // What counts is the reward of the bytes.
    let bytes = (decode(&latents) * 255.0).round().permute([0, 2, 3, 1]);
    let bytes = Vec::<f32>::try_from(bytes.contiguous().flatten(0, -1)).map_err(Error::model)?;
    let bytes = bytes.into_iter().map(|byte| byte as u8).collect();
    let images = Images::from_bytes(N, SIDE, SIDE, bytes)?;
    let scores = Colourfulness.score(&images, &prompts)?;
    Ok(scores.iter().map(|&score| f64::from(score)).sum::<f64>() / N as f64)
}

fn main() -> Result<ExitCode> {
    let mut means = Vec::new();
    for weight in [0.0, 1.0, 4.0, 16.0] {
        let mean = colourfulness(weight)?;
        println!("weight {weight}: colourfulness {mean:.1}");
        means.push(mean);
    }
    Ok(ExitCode::from(u8::from(!means.is_sorted())))
}
