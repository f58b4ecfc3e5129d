//! `ddpo plan --probe`: what a run will take, from one step of each kind on its own device.

use std::time::Instant;

use ddpo_model::ImageCodec;
use ddpo_reward::Prompt;
use ddpo_sched::{Conditioned, Conditioning, DenoiseInput, Sampler};
use ddpo_torch::PeakMemory;
use ddpo_train::{AdamW, Conditioner, Optimizer};
use tch::{Device, Kind, Tensor};

use crate::config::{Method, Plan};
use crate::failure::{Exit, Failure, OrExit, Result};
use crate::models::{self, Model};
use crate::train::adamw;

const DOING: &str = "the probe failed";

/// What is not known without a model, and how to find out.
pub fn without_model() -> Vec<String> {
    vec!["bytes and time: --probe loads the model and takes one step".to_owned()]
}

/// Sizes in bytes.
struct Bytes {
    unet: u64,
    others: u64,
    gradients: u64,
    optimiser: u64,
    trajectory: u64,
    /// Measured: what a micro-batch needs beyond all that.
    activations: u64,
}

/// Seconds, of one each.
struct Seconds {
    denoising_step: f64,
    decoding: f64,
    micro_batch: f64,
    optimiser_step: f64,
}

/// Loads the model, takes one step of each kind, and says what the run will take.
pub fn run(plan: &Plan) -> Result<Vec<String>> {
    if let Method::Guidance(_) = plan.method {
        let told = "--probe knows no guided steps: `--set guidance.samples=2 --set eval.sets=[]` and time/sample_s tell";
        return Ok(vec![told.to_owned()]);
    }
    let model = models::of_plan(plan, None)?;
    let (bytes, seconds) = measure(plan, &model)?;
    Ok(lines(plan, &bytes, &seconds))
}

fn measure(plan: &Plan, model: &Model) -> Result<(Bytes, Seconds)> {
    let device = plan.model.device;
    let sampler = models::sampler(
        &model.schedule,
        plan.sampler.n_steps,
        (&plan.sampler).into(),
    )?;
    let prompt = [Prompt::new(0, "a cat")];
    let cond = model.prompts.embed(&prompt)?;

    let n = plan.sampler.batch.min(plan.method.samples_per_epoch());
    let input = Input::new(n, model, &*sampler, &cond);
    let predict = model
        .policy
        .conditioned(&input.cond)
        .or_exit(Exit::Other, DOING)?;
    let denoising_step = timed(device, || step(&predict, &input))?;
    drop(predict);
    let slice = n.min(plan.model.vae_slice);
    let decoding = timed(device, || {
        decode(&model.images, &input.x_t.narrow(0, 0, slice as i64))
    })?;

    let input = Input::new(plan.rl.micro_batch, model, &*sampler, &cond);
    let params = model.policy.params();
    // The first makes the gradients, which are counted by themselves.
    accumulate(model, &input)?;
    let memory = PeakMemory::begin(device).or_exit(Exit::Other, DOING)?;
    let micro_batch = timed(device, || accumulate(model, &input))?;
    let peak = memory.peak().or_exit(Exit::Other, DOING)?;
    let activations = peak.saturating_sub(memory.before());
    let mut optimizer = AdamW::new(adamw(plan), params)?;
    // No learning: gradients of the probe are not worth a step, and zeros take as long.
    params.zero_grad();
    let optimiser_step = timed(device, || {
        let stepped = optimizer.step(params, plan.rl.max_grad_norm);
        stepped.map(drop).map_err(Failure::from)
    })?;

    let samples = plan.method.samples_per_epoch() as u64;
    let latent: i64 = model.latent_shape.iter().product();
    let latents = (plan.sampler.n_steps as u64 + 1) * latent as u64 * 4;
    let of_part = |(_, part): (_, &Tensor)| part.numel() * part.kind().elt_size_in_bytes();
    let prompts = cond.parts().map(of_part).sum::<usize>() as u64;
    let trained = params.numel() as u64 * 4;
    let bytes = Bytes {
        unet: model.unet_bytes,
        others: model.other_bytes,
        gradients: trained,
        optimiser: 2 * trained,
        trajectory: samples * (latents + prompts + plan.sampler.n_steps as u64 * 4),
        activations,
    };
    let seconds = Seconds {
        denoising_step,
        decoding: decoding / slice as f64,
        micro_batch,
        optimiser_step,
    };
    Ok((bytes, seconds))
}

/// Latents at every step in turn.
struct Input {
    x_t: Tensor,
    t: Tensor,
    cond: Conditioning,
}

impl Input {
    fn new(n: usize, model: &Model, sampler: &dyn Sampler, cond: &Conditioning) -> Self {
        let mut shape = vec![n as i64];
        shape.extend_from_slice(&model.latent_shape);
        let device = cond.device();
        let steps = (0..sampler.n_steps()).cycle().take(n);
        let timesteps: Vec<f32> = steps.map(|step| sampler.timestep(step) as f32).collect();
        // A wave: what the numbers are does not matter, as long as they are no subnormals.
        let numel = shape.iter().product::<i64>();
        let wave = (Tensor::arange(numel, (Kind::Float, device)) * 12.9898).sin();
        Self {
            x_t: wave.view(shape.as_slice()),
            t: Tensor::from_slice(&timesteps).to_device(device),
            cond: cond.select(&Tensor::zeros([n as i64], (Kind::Int64, device))),
        }
    }
}

fn step(predict: &Conditioned<'_>, input: &Input) -> Result<()> {
    let eps = tch::no_grad(|| predict(&input.x_t, &input.t));
    eps.map(drop).or_exit(Exit::Other, DOING)
}

fn decode(images: &ImageCodec, latents: &Tensor) -> Result<()> {
    images.decode(latents).map(drop).or_exit(Exit::Other, DOING)
}

fn accumulate(model: &Model, input: &Input) -> Result<()> {
    let input = DenoiseInput {
        x_t: &input.x_t,
        t: &input.t,
        cond: &input.cond,
    };
    let mut loss = |eps: &Tensor| Ok(eps.square().mean(Kind::Float));
    model
        .policy
        .accumulate(input, &mut loss)
        .map_err(Failure::from)
}

/// Seconds of a call, after one that is not counted.
fn timed(device: Device, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let wait = || {
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
    };
    call()?;
    wait();
    let begin = Instant::now();
    call()?;
    wait();
    Ok(begin.elapsed().as_secs_f64())
}

fn lines(plan: &Plan, bytes: &Bytes, seconds: &Seconds) -> Vec<String> {
    let rl = &plan.rl;
    let (samples, n_steps) = (plan.method.samples_per_epoch(), plan.sampler.n_steps);
    let updates = plan.method.updates_per_epoch();
    // What one update trains on: pairs of sample and step, or samples with one timestep each.
    let items = match &plan.method {
        Method::Ddpo(_) => samples / updates * n_steps,
        Method::Rwr(rwr) => rwr.batch,
        Method::Guidance(_) => 0,
    };
    let batches = samples.div_ceil(plan.sampler.batch);
    let micro_batches = updates * items.div_ceil(rl.micro_batch);
    let sampling =
        (batches * n_steps) as f64 * seconds.denoising_step + samples as f64 * seconds.decoding;
    let update =
        micro_batches as f64 * seconds.micro_batch + updates as f64 * seconds.optimiser_step;
    let epoch = sampling + update;
    let device = bytes.unet + bytes.others + bytes.gradients + bytes.optimiser + bytes.activations;
    let size = |name: &str, n: u64, what: &str| format!("{name}: {} ({what})", human(n));
    let kept = match plan.policy.checkpointing {
        true => "measured, one micro-batch, checkpointing on",
        false => "measured, one micro-batch, checkpointing off",
    };
    vec![
        size("weights of the UNet", bytes.unet, "on the device"),
        size(
            "weights of text encoder and autoencoder",
            bytes.others,
            "on the device",
        ),
        size("gradients", bytes.gradients, "on the device, f32"),
        size(
            "optimiser",
            bytes.optimiser,
            "on the device, two moments in f32",
        ),
        size("activations", bytes.activations, kept),
        size("device in all", device, "while training"),
        size("trajectory", bytes.trajectory, "of an epoch, on the host"),
        format!(
            "one denoising step of a batch of {}: {:.3} s",
            plan.sampler.batch.min(samples),
            seconds.denoising_step
        ),
        format!(
            "one micro-batch of {}: {:.3} s",
            rl.micro_batch, seconds.micro_batch
        ),
        format!(
            "an epoch: sampling {} + training {}, rewards not counted",
            duration(sampling),
            duration(update)
        ),
        format!(
            "the run: {} epochs, {}",
            plan.run.epochs,
            duration(epoch * plan.run.epochs as f64)
        ),
    ]
}

fn human(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match mib >= 1024.0 {
        true => format!("{:.2} GiB", mib / 1024.0),
        false => format!("{mib:.1} MiB"),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_told_in_units_that_people_read() {
        assert_eq!(human(3_438_083_856), "3.20 GiB");
        assert_eq!(human(3_145_728), "3.0 MiB");
        assert_eq!(duration(90.0), "90.0 s");
        assert_eq!(duration(5400.0), "90.0 min");
        assert_eq!(duration(86_400.0), "24.0 h");
        assert_eq!(duration(864_000.0), "10.0 days");
    }
}
