//! `ddpo sample`: images from a model, and everything that the steps saw and made.

use std::fs;
use std::path::Path;

use ddpo_reward::{Images, prompts::numbered};
use ddpo_sched::{
    FixedNoise, KeyedNoise, LatentBatch, LogProb, Sampler, Seeds, StepRecord, Stream, sample,
};
use ddpo_torch::weights;
use ddpo_train::Conditioner;
use image::RgbImage;
use tch::{Kind, Tensor};

use crate::commands::args::SampleArgs;
use crate::config::{DTYPES, ModelSource};
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::models::{self, Guidance, Model, Size};
use crate::output;

/// Pixels that are decoded at a time, as the presets' `model.vae_slice` has it: 32 images of 64×64, one of
/// 512×512.
const DECODED: i64 = 32 * 64 * 64;

/// Samples one image for each prompt.
pub fn run(args: &SampleArgs) -> Result<Exit> {
    let device = ddpo_torch::device(&args.device).or_exit(Exit::Config, "--device")?;
    let kind = dtype(&args.dtype)?;
    let from = ModelSource {
        path: args.model.clone(),
        revision: args.revision.clone(),
    };
    let mut whole = models::open(&from, device, kind)?;
    let size = Size {
        height: args.height,
        width: args.width,
    };
    let latent_shape = size.latent_shape(&whole, ["--height", "--width"])?;
    whole.images.slice = slice(latent_shape, whole.images.vae.net.config.factor());
    let negative = args.negative.as_str();
    let uncond = whole
        .prompts
        .encode(&[negative])
        .or_exit(Exit::Data, "cannot embed the negative prompt")?;
    let guidance = Guidance {
        scale: args.guidance,
        negative,
        in_training: true,
    };
    let lora = args.lora.as_deref();
    let uncond_again = Some(uncond.shallow_clone());
    let mut model = Model::new(whole, guidance, uncond_again, |unet| {
        models::frozen(unet, lora)
    })?;
    model.latent_shape = latent_shape.to_vec();
    let n_steps = args.steps as usize;
    let sampler = models::sampler(&model.schedule, n_steps, args.sampler.kind(args.eta))?;

    let prompts = numbered(args.prompt.iter().cloned());
    let cond = model
        .prompts
        .embed(&prompts)
        .or_exit(Exit::Data, "cannot embed the prompts")?;
    let sample_ids: Vec<u64> = prompts.iter().map(|prompt| prompt.id).collect();
    let batch = LatentBatch {
        shape: &model.latent_shape,
        cond: &cond,
        sample_ids: &sample_ids,
        // A deterministic step has no log-probability, and the trace then has none.
        log_prob: sampler.require_stochastic().ok().map(|()| LogProb::Mean),
    };
    let noise = noise(args, n_steps, sample_ids.len(), &model.latent_shape)?;
    let mut trace = Trace::default();
    let latents = sample(
        model.policy.as_ref(),
        &*sampler,
        &batch,
        &noise,
        &mut |record| {
            if args.trace.is_some() {
                trace.take(&record);
            }
            Ok(())
        },
    )
    .or_exit(Exit::Other, "sampling failed")?;
    if latents.isfinite().all().int64_value(&[]) == 0 {
        return Err(Failure::new(Exit::Numerical, "the latents are not finite"));
    }
    let images = model
        .images
        .decode(&latents)
        .or_exit(Exit::Data, "cannot decode the latents")?;
    write_images(&args.out, &images, &args.prompt)?;
    if let Some(path) = &args.trace {
        trace.write(path, &*sampler, &cond.tokens, &uncond, &images)?;
    }
    println!("{} images in {}", images.len(), args.out.display());
    Ok(Exit::Done)
}

/// How many images are decoded at a time, of latents `[channels, height, width]`.
fn slice([_, height, width]: [i64; 3], factor: i64) -> i64 {
    let pixels = height * width * factor * factor;
    (DECODED / pixels.max(1)).max(1)
}

fn dtype(name: &str) -> Result<Kind> {
    let found = DTYPES.iter().find(|(known, _)| *known == name);
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        Failure::config(format!(
            "--dtype {name}: expected one of {}",
            DTYPES.map(|(n, _)| n).join(", ")
        ))
    })
}

/// What files give, and keyed noise for the rest.
fn noise(args: &SampleArgs, n_steps: usize, n: usize, shape: &[i64]) -> Result<FixedNoise> {
    let keyed = KeyedNoise::of_stream(Seeds::new(args.seed), Stream::Evaluation, 0);
    let mut noise = FixedNoise::new(keyed);
    let batch: Vec<i64> = [&[n as i64], shape].concat();
    if let Some(path) = &args.latents {
        noise = noise.with_latents(&read_tensor(path, "latents", &batch)?);
    }
    if let Some(path) = &args.noise {
        let steps: Vec<i64> = [&[n_steps as i64], batch.as_slice()].concat();
        noise = noise.with_noise(&read_tensor(path, "noise", &steps)?);
    }
    Ok(noise)
}

/// A tensor of a file that must have this shape.
fn read_tensor(path: &Path, name: &str, shape: &[i64]) -> Result<Tensor> {
    let shown = path.display();
    let mut tensors =
        weights::read_all(path).or_exit(Exit::Data, format!("cannot read {shown}"))?;
    let tensor = tensors.remove(name).ok_or_else(|| {
        let there: Vec<String> = tensors.keys().cloned().collect();
        Failure::new(
            Exit::Data,
            format!("{shown} has no tensor `{name}`, only {}", there.join(", ")),
        )
    })?;
    if tensor.size() != shape {
        let message = format!(
            "{shown}: `{name}` has shape {:?}, expected {shape:?}",
            tensor.size()
        );
        return Err(Failure::new(Exit::Data, message));
    }
    Ok(tensor)
}

/// `0000.png`, `0001.png`, … and the prompts, one per line.
fn write_images(folder: &Path, images: &Images, prompts: &[String]) -> Result<()> {
    let doing = || {
        format!(
            "cannot write to {}: choose another folder with --out",
            folder.display()
        )
    };
    fs::create_dir_all(folder).or_exit(Exit::Config, doing())?;
    let (width, height) = (images.width() as u32, images.height() as u32);
    for (at, bytes) in images.iter_bytes().enumerate() {
        let image = RgbImage::from_raw(width, height, bytes.to_vec())
            .ok_or_else(|| Failure::new(Exit::Other, "an image is short"))?;
        image
            .save(folder.join(format!("{at:04}.png")))
            .or_exit(Exit::Other, doing())?;
    }
    output::write(&folder.join("prompts.txt"), &(prompts.join("\n") + "\n"))
}

/// What the steps saw and made.
#[derive(Debug, Default)]
struct Trace {
    latents: Vec<Tensor>,
    noise: Vec<Tensor>,
    log_probs: Vec<Tensor>,
}

impl Trace {
    fn take(&mut self, record: &StepRecord<'_>) {
        let host = |tensor: &Tensor| tensor.to_device(tch::Device::Cpu).copy();
        if record.step == 0 {
            self.latents.push(host(record.x_t));
        }
        self.latents.push(host(record.x_prev));
        self.noise.push(host(record.noise));
        self.log_probs.extend(record.log_prob.map(host));
    }

    fn write(
        &self,
        path: &Path,
        sampler: &dyn Sampler,
        cond: &Tensor,
        uncond: &Tensor,
        images: &Images,
    ) -> Result<()> {
        let times = (0..sampler.n_steps()).map(|step| sampler.timestep(step));
        let times = Tensor::from_slice(&times.collect::<Vec<f64>>());
        // Whole numbers unless the sampler goes between training timesteps.
        let whole = times.round().equal(&times);
        let timesteps = match whole {
            true => times.to_kind(Kind::Int64),
            false => times,
        };
        let shape = [images.len(), images.height(), images.width(), 3].map(|n| n as i64);
        let mut tensors = vec![
            ("timesteps", timesteps),
            ("latents", Tensor::stack(&self.latents, 0)),
            ("noise", Tensor::stack(&self.noise, 0)),
            ("prompt_embeds", cond.shallow_clone()),
            ("negative_embeds", uncond.expand_as(cond).contiguous()),
            ("images", Tensor::from_slice(images.bytes()).view(shape)),
        ];
        if !self.log_probs.is_empty() {
            tensors.push(("log_probs", Tensor::stack(&self.log_probs, 0)));
        }
        let doing = format!("cannot write {}", path.display());
        weights::save(path, tensors.iter().map(|(name, tensor)| (*name, tensor)))
            .or_exit(Exit::Other, doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_decoded_as_many_at_a_time_as_in_a_run() {
        assert_eq!(slice([4, 64, 64], 8), 1, "preset lora");
        assert_eq!(slice([12, 8, 8], 8), 32, "preset pocket");
        assert_eq!(slice([4, 96, 96], 8), 1);
    }
}
