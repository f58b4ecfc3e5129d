//! One iteration of the preset `lora` on a model of Stable Diffusion's layout: images per second of sampling and of the
//! update separately, peak memory of each, and their share of the device's peak of matrix products in the same precision.
//!
//! ```text
//! cargo run --release -p ddpo-tests --example lora_iteration -- DIR [--device cpu|cuda:N] [--dtype bf16|f16|f32]
//!     [--samples 16] [--steps 50] [--updates 4] [--batch 8] [--micro-batch 4] [--no-checkpointing]
//! ```
//!
//! `DIR` is a model in the diffusers layout, such as `DIR/model` of `tests/full_size/generate.py`, whose weights are
//! random, which does not change the cost. By default it runs on a GPU in bf16, or without one on the CPU in f32, since
//! not every CPU supports half precision. The output lists what differs from the preset, and what could not be
//! measured.

use std::path::Path;
use std::time::Instant;

use ddpo_model::{Files, LoraConfig, StableDiffusion, UnetPolicy};
use ddpo_reward::JpegCompressibility;
use ddpo_reward::prompts::PromptSet;
use ddpo_rl::{Baseline, Ddpo, DdpoConfig};
use ddpo_sched::{Ddim, Guided};
use ddpo_tests::full_size::Result;
use ddpo_torch::PeakMemory;
use ddpo_train::{
    AdamW, AdamWConfig, Event, ImageModel, Metrics, Observer, Policy, Retry, RewardWorker,
    TrainContext, TrainPlan, train,
};
use tch::{Cuda, Device, Kind, Tensor};

/// Number of multiplications and additions, by torch 2.11.0's `FlopCounterMode` over diffusers 0.42.1 on the meta device with
/// SD v1.4's configurations: one latent of 64×64 through the UNet with 77 tokens, and through the decoder.
const UNET_FLOPS: f64 = 803_273_441_280.0;
const DECODER_FLOPS: f64 = 2_514_518_933_504.0;
/// Number of weights of that UNet.
const UNET_WEIGHTS: usize = 859_520_964;

/// The arguments; by default the preset's numbers (`configs/presets/lora.toml`), except for the number of samples.
struct Asked {
    folder: String,
    device: Device,
    kind: Kind,
    samples: usize,
    steps: usize,
    updates: usize,
    batch: usize,
    micro_batch: usize,
    checkpointing: bool,
}

const GUIDANCE: f64 = 5.0;
const STEPS: usize = 50;
const SAMPLES: usize = 16;

fn main() -> Result<()> {
    ddpo_torch::load_cuda();
    let asked = Asked::parse(std::env::args().skip(1))?;
    let peak = matmul_peak(&asked)?;
    let found = iteration(&asked)?;
    report(&asked, &found, peak);
    Ok(())
}

impl Asked {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut kind = None;
        let mut asked = Self {
            folder: String::new(),
            device: Device::cuda_if_available(),
            kind: Kind::Float,
            samples: SAMPLES,
            steps: STEPS,
            updates: 4,
            batch: 8,
            micro_batch: 4,
            checkpointing: true,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--device" => asked.device = ddpo_torch::device(&value()?)?,
                "--dtype" => {
                    kind = Some(match value()?.as_str() {
                        "f32" => Kind::Float,
                        "bf16" => Kind::BFloat16,
                        "f16" => Kind::Half,
                        other => return Err(format!("--dtype {other}: f32, bf16 or f16").into()),
                    });
                }
                "--samples" => asked.samples = value()?.parse()?,
                "--steps" => asked.steps = value()?.parse()?,
                "--updates" => asked.updates = value()?.parse()?,
                "--batch" => asked.batch = value()?.parse()?,
                "--micro-batch" => asked.micro_batch = value()?.parse()?,
                "--no-checkpointing" => asked.checkpointing = false,
                folder if asked.folder.is_empty() && !folder.starts_with('-') => {
                    asked.folder = folder.to_owned();
                }
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        asked.kind = kind.unwrap_or(match asked.device {
            Device::Cuda(_) => Kind::BFloat16,
            _ => Kind::Float,
        });
        match asked.folder.is_empty() {
            true => Err("expected a folder with a model in the diffusers layout".into()),
            false => Ok(asked),
        }
    }
}

/// Cost of an iteration.
struct Found {
    report: Metrics,
    /// Largest |ratio − 1| before the first update.
    ratio: f64,
    /// Peak bytes while sampling, and while updating.
    peaks: [u64; 2],
    is_v1_4: bool,
}

/// The first iteration on a GPU chooses kernels, and is not reported.
fn iteration(asked: &Asked) -> Result<Found> {
    ddpo_torch::set_tf32(true)?;
    let files = Files::Folder(Path::new(&asked.folder).to_owned());
    let mut whole = StableDiffusion::load(&files, asked.device, asked.kind)?;
    whole.images.slice = 1;
    let latent_shape = whole.latent_shape().to_vec();
    let weights: usize = whole.unet.tensors.values().map(Tensor::numel).sum();
    let is_v1_4 = weights == UNET_WEIGHTS && latent_shape == [4, 64, 64];
    let uncond = whole.prompts.encode(&[""])?;
    let policy = UnetPolicy::lora(whole.unet, &LoraConfig::default(), 42)?;
    let policy = policy.with_checkpointing(asked.checkpointing);
    let mut policy = Guided::new(policy, uncond, GUIDANCE);
    let sampler = Ddim::new(&whole.schedule, asked.steps, 1.0)?;
    let config = AdamWConfig {
        lr: 3e-4,
        ..AdamWConfig::default()
    };
    let mut optimizer = AdamW::new(config, policy.params())?;
    let config = DdpoConfig {
        samples_per_epoch: asked.samples,
        updates_per_epoch: asked.updates,
        sample_batch: asked.batch,
        micro_batch: asked.micro_batch,
        baseline: Baseline::PerPrompt {
            buffer_size: 16,
            min_count: 16,
        },
        advantage_clip: 5.0,
        // Random weights with guidance amplify the rounding of half precision: it is measured, and does not end the run.
        ratio_bound: None,
        ..DdpoConfig::importance_sampling()
    };
    let mut algorithm = Ddpo::new(config, &sampler, 1)?;
    let reward = Box::new(JpegCompressibility::new()?);
    let rewards = RewardWorker::new(vec![reward], Retry::never())?;
    let mut watch = Watch::new(asked.device)?;
    let prompts = PromptSet::Animals.prompts();
    let model = ImageModel::new(&whole.prompts, &whole.images, &latent_shape);
    let mut context = TrainContext::new(
        &mut policy,
        &mut optimizer,
        &sampler,
        &rewards,
        &prompts,
        model,
    )
    .with_seed(42)
    .with_device(asked.device)
    .with_observer(&mut watch);
    let plan = TrainPlan::epochs(match asked.device {
        Device::Cuda(_) => 2,
        _ => 1,
    });
    train(&mut algorithm, &mut context, &plan)?;
    Ok(Found {
        report: watch.report.ok_or("no epoch was done")?,
        ratio: watch.ratio,
        peaks: watch.peaks,
        is_v1_4,
    })
}

/// Records memory at the end of sampling.
struct Watch {
    device: Device,
    memory: PeakMemory,
    peaks: [u64; 2],
    ratio: f64,
    report: Option<Metrics>,
}

impl Watch {
    fn new(device: Device) -> Result<Self> {
        Ok(Self {
            device,
            memory: PeakMemory::begin(device)?,
            peaks: [0; 2],
            ratio: 0.0,
            report: None,
        })
    }

    fn mark(&mut self, phase: usize) -> ddpo_torch::Result<()> {
        self.peaks[phase] = self.memory.peak()?;
        self.memory = PeakMemory::begin(self.device)?;
        Ok(())
    }
}

impl Observer for Watch {
    fn on(&mut self, event: &Event<'_>) -> ddpo_train::Result<()> {
        match event {
            Event::EpochStarted { .. } => self.memory = PeakMemory::begin(self.device)?,
            Event::Rewarded { .. } => self.mark(0)?,
            Event::RatioChecked { by_step, .. } => {
                self.ratio = by_step.iter().copied().fold(self.ratio, f64::max);
            }
            Event::EpochDone { report, .. } => {
                self.mark(1)?;
                self.report = Some((*report).clone());
            }
            _ => {}
        }
        Ok(())
    }
}

/// Multiplications and additions per second of large matrix products: the best of repeated calls over a second.
fn matmul_peak(asked: &Asked) -> Result<(i64, f64)> {
    let (size, calls) = match asked.device {
        Device::Cuda(_) => (8192, 10),
        _ => (2048, 1),
    };
    let finish = || {
        if let Device::Cuda(index) = asked.device {
            Cuda::synchronize(index as i64);
        }
    };
    let ones = Tensor::ones([size, size], (asked.kind, asked.device));
    let (mut best, begin) = (f64::INFINITY, Instant::now());
    let _warm = ones.matmul(&ones);
    finish();
    while best.is_infinite() || begin.elapsed().as_secs_f64() < 1.0 {
        let one = Instant::now();
        for _ in 0..calls {
            let _product = ones.matmul(&ones);
        }
        finish();
        best = best.min(one.elapsed().as_secs_f64() / f64::from(calls));
    }
    Ok((size, 2.0 * (size as f64).powi(3) / best))
}

fn report(asked: &Asked, found: &Found, (size, peak): (i64, f64)) {
    let (device, kind) = (asked.device, asked.kind);
    println!(
        "{} on {device:?} in {kind:?}, {} threads: LoRA of rank 4, guidance {GUIDANCE}, {} samples, {} steps, {} updates",
        asked.folder,
        tch::get_num_threads(),
        asked.samples,
        asked.steps,
        asked.updates,
    );
    println!(
        "matrix products of {size}: {:.1} GFLOP/s, the measured peak",
        peak / 1e9
    );
    let seconds = |name| found.report.get(name).unwrap_or(f64::NAN);
    let passes = (asked.samples * asked.steps * 2) as f64;
    // Frozen weights have no gradients: a backward pass costs as much as a forward pass, and checkpointing adds a
    // second forward pass.
    let there_and_back = if asked.checkpointing { 3.0 } else { 2.0 };
    let phases = [
        (
            "sampling",
            seconds("time/sample_s"),
            passes * UNET_FLOPS + asked.samples as f64 * DECODER_FLOPS,
        ),
        (
            "update",
            seconds("time/update_s"),
            passes * there_and_back * UNET_FLOPS,
        ),
    ];
    for ((name, seconds, flops), bytes) in phases.into_iter().zip(found.peaks) {
        let rate = asked.samples as f64 / seconds;
        let part = match found.is_v1_4 {
            true => format!(
                "{:.1} GFLOP/s, {:.3} of the measured peak",
                flops / seconds / 1e9,
                flops / seconds / peak
            ),
            false => "operations not counted".to_owned(),
        };
        let mib = bytes as f64 / f64::from(1 << 20);
        println!("{name}: {seconds:.2} s, {rate:.4} images/s, peak {mib:.0} MiB, {part}");
    }
    println!(
        "largest |ratio - 1| before the first update: {:.2e}",
        found.ratio
    );
    caveats(asked, found);
}

fn caveats(asked: &Asked, found: &Found) {
    if (asked.samples, asked.steps) != (SAMPLES, STEPS) {
        println!(
            "differs from the preset: {SAMPLES} samples of {STEPS} steps; the cost per step is the same"
        );
    }
    if !found.is_v1_4 {
        println!(
            "not measured: operations, which are only known for the sizes of Stable Diffusion v1.4"
        );
    }
    match asked.device {
        Device::Cuda(_) => println!("memory: tensors, as counted by libtorch's allocator"),
        _ => {
            println!("memory: resident, including files of weights and the program");
            println!("not measured: a GPU; there is none, or --device excludes it");
        }
    }
}
