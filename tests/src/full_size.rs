//! One LoRA update of Stable Diffusion v1.4 at its own size, as `tests/full_size/lora_update.py` has stored it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ddpo_model::{Files, LORA_FILE, Lora, Named, Unet, UnetConfig, UnetPolicy, Vae, VaeConfig};
use ddpo_rl::{DdpoConfig, Replayed, Trajectories, replay_update};
use ddpo_sched::{Ddim, Guided, ScheduleConfig};
use ddpo_torch::weights::read_all;
use ddpo_train::{AdamW, AdamWConfig, Policy};
use tch::{Device, Kind, Tensor};

/// Whatever a crate reports.
pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Strength of guidance in the stored update.
const GUIDANCE: f64 = 5.0;

/// How the reference keeps feature maps: its numbers differ by what f32 rounds away.
#[derive(Clone, Copy, Debug)]
pub enum Layout {
    /// As diffusers does by itself.
    Contiguous,
    /// As ours are, and as diffusers' documentation recommends.
    ChannelsLast,
}

/// Of gradients from others.
#[derive(Debug)]
pub struct Distance {
    /// Largest difference, relative to the largest value of its tensor; of the tensor where that is most.
    pub worst: f64,
    /// Norm of all differences, relative to the norm of all gradients.
    pub norm: f64,
}

/// The UNet with the stored adapter, and the rollout that it is to learn from.
pub struct LoraUpdate {
    folder: PathBuf,
    /// Guided, low-rank factors of rank 4 trained.
    pub policy: Guided<UnetPolicy>,
    sampler: Ddim,
    rollout: Trajectories,
    advantages: Vec<f32>,
}

impl LoraUpdate {
    /// Reads the UNet of `folder/model` and what lies in `folder/lora_update`.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub fn open(folder: &Path, kind: Kind, checkpointing: bool) -> Result<Self> {
        let stored = folder.join("lora_update");
        let files = Files::Folder(folder.join("model"));
        let mut unet = read(&files, kind)?;
        let lora = Lora::open(&mut unet.net, &stored.join(LORA_FILE))?;
        let policy = UnetPolicy::with_lora(unet, lora);
        let mut rolled = read_all(&stored.join("rollout.safetensors"))?;
        let mut take = |name: &str| rolled.remove(name).ok_or(format!("no tensor {name}"));
        let schedule: ScheduleConfig = files.json("scheduler/scheduler_config.json")?;
        let n_steps = take("timesteps")?.size()[0] as usize;
        let uncond = take("negative_embeds")?;
        Ok(Self {
            folder: stored,
            policy: Guided::new(policy.with_checkpointing(checkpointing), uncond, GUIDANCE),
            sampler: Ddim::new(&schedule, n_steps, 1.0)?,
            rollout: Trajectories::new(
                vec![0],
                take("latents")?,
                take("log_probs")?,
                take("prompt_embeds")?,
            )?,
            advantages: Vec::try_from(&take("advantages")?)?,
        })
    }

    /// Takes the update, one pair at a time.
    ///
    /// # Errors
    /// What the algorithm reports.
    pub fn take(&self) -> Result<Replayed> {
        let mut optimizer = AdamW::new(AdamWConfig::default(), self.policy.params())?;
        let config = DdpoConfig {
            micro_batch: 1,
            ..DdpoConfig::importance_sampling()
        };
        Ok(replay_update(
            &self.policy,
            None,
            &mut optimizer,
            &self.sampler,
            &self.rollout,
            &self.advantages,
            &config,
        )?)
    }

    /// How far the gradients are from the stored ones.
    ///
    /// # Errors
    /// If the stored gradients are not those of these factors.
    pub fn distance(&self, replayed: &Replayed, layout: Layout) -> Result<Distance> {
        let expected = self.stored(layout)?;
        Distance::between(&replayed.grads, expected)
    }

    /// How far the reference in one layout is from itself in the other.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub fn own_distance(&self) -> Result<Distance> {
        let mut other = self.stored(Layout::ChannelsLast)?;
        other.remove("loss");
        let other: Vec<(String, Tensor)> = other.into_iter().collect();
        Distance::between(&other, self.stored(Layout::Contiguous)?)
    }

    fn stored(&self, layout: Layout) -> Result<BTreeMap<String, Tensor>> {
        let file = match layout {
            Layout::Contiguous => "grads.safetensors",
            Layout::ChannelsLast => "grads_channels_last.safetensors",
        };
        Ok(read_all(&self.folder.join(file))?)
    }
}

impl Distance {
    fn between(grads: &[(String, Tensor)], mut expected: BTreeMap<String, Tensor>) -> Result<Self> {
        let (mut worst, mut squares, mut of_squares) = (0.0_f64, 0.0, 0.0);
        for (name, gradient) in grads {
            let of = expected
                .remove(name)
                .ok_or(format!("no gradient of {name}"))?;
            let relative = (gradient - &of).abs().max() / of.abs().max();
            let relative = relative.double_value(&[]);
            if relative.is_nan() {
                return Err(format!("{name}: not a number").into());
            }
            worst = worst.max(relative);
            squares += (gradient - &of)
                .square()
                .sum(Kind::Double)
                .double_value(&[]);
            of_squares += of.square().sum(Kind::Double).double_value(&[]);
        }
        match expected.keys().find(|name| *name != "loss") {
            None => Ok(Self {
                worst,
                norm: (squares / of_squares).sqrt(),
            }),
            Some(name) => Err(format!("{name} has no gradient here").into()),
        }
    }
}

/// The UNet of `folder/model` alone, in f32.
///
/// # Errors
/// What is missing or damaged.
pub fn unet(folder: &Path) -> Result<Unet> {
    Ok(read(&Files::Folder(folder.join("model")), Kind::Float)?.net)
}

/// The autoencoder of `folder/model` alone, in f32.
///
/// # Errors
/// What is missing or damaged.
pub fn vae(folder: &Path) -> Result<Vae> {
    let files = Files::Folder(folder.join("model"));
    let config: VaeConfig = files.json("vae/config.json")?;
    let store = files.weights("vae", Device::Cpu, Kind::Float, Vae::aliases)?;
    let net = Vae::new(&store.root(), &config)?;
    store.finish()?;
    Ok(net)
}

fn read(files: &Files, kind: Kind) -> Result<Named<Unet>> {
    let config: UnetConfig = files.json("unet/config.json")?;
    let store = files.weights("unet", Device::Cpu, kind, |_| Vec::new())?;
    let net = Unet::new(&store.root(), &config)?;
    let tensors = store.finish()?;
    Ok(Named { net, tensors })
}
