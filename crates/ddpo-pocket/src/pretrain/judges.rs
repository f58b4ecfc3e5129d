//! Training the judges on composed scenes, blurred by the model's own VAE half of the time.

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_model::Vae;
use ddpo_sched::{Draw, KeyedNoise, NoiseSource, Seeds, Stream};
use ddpo_torch::{Store, weights};
use tch::{Device, Kind, Tensor};

use super::Progress;
use super::batch::compose;
use super::train_state::{StepArgs, TrainState, learning_rate};
use crate::judge::{Judge, JudgeConfig};
use crate::scene::{Composer, Scene};
use crate::{Error, Result};
use labels::{activity, color, count, pattern, place, tint};

/// Scenes reconstructed by the VAE, as bytes.
pub struct Reconstructions {
    /// `[n, 3, 64, 64]`, u8.
    images: Tensor,
    scenes: Vec<Scene>,
}

impl Reconstructions {
    /// The first `n` scenes of the stream of `seed`, encoded and decoded, a few at a time; read from `cached` if it
    /// holds exactly these, else written there.
    ///
    /// # Errors
    /// If reading or writing fails.
    pub fn new(
        composer: &Composer<'_>,
        vae: &Vae,
        seed: u64,
        n: u64,
        cached: &Path,
    ) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let scenes: Vec<Scene> = (0..n).map(|index| composer.scene(seed, index)).collect();
        let key = Tensor::from_slice(&[digest(&scenes)]);
        if cached.exists() {
            let mut file = weights::read_all(cached)?;
            if file.get("key") == Some(&key) {
                let images = file
                    .remove("images")
                    .filter(|t| t.size() == [n as i64, 3, 64, 64]);
                let images = images.ok_or_else(|| Error::Checkpoint {
                    path: cached.to_owned(),
                    tensor: "images".into(),
                })?;
                return Ok(Self { images, scenes });
            }
        }
        let mut images = Vec::new();
        for first in (0..n).step_by(50) {
            let some = compose(composer, seed, first..(first + 50).min(n));
            let made = vae.decode(&vae.encode(&some.images));
            images.push(
                ((made.clamp(-1.0, 1.0) + 1.0) * 127.5)
                    .round()
                    .to_kind(Kind::Uint8),
            );
        }
        let images = Tensor::cat(&images, 0);
        weights::save(cached, [("images", &images), ("key", &key)])?;
        Ok(Self { images, scenes })
    }

    /// Some of them, from index `first` on, wrapping around.
    fn some(&self, first: u64, n: u64) -> (Tensor, Vec<Scene>) {
        let len = self.scenes.len() as u64;
        let rows: Vec<i64> = (first..first + n).map(|i| (i % len) as i64).collect();
        let images = self
            .images
            .index_select(0, &Tensor::from_slice(&rows))
            .to_kind(Kind::Float)
            / 127.5
            - 1.0;
        (
            images,
            rows.iter()
                .map(|&row| self.scenes[row as usize].clone())
                .collect(),
        )
    }
}

/// FNV-1a hash of the scenes, which changes with the mixture, the seed and the composer.
fn digest(scenes: &[Scene]) -> i64 {
    let text = format!("{scenes:?}");
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step) as i64
}

/// Hyperparameters of the training of a judge.
#[derive(Clone, Debug)]
pub struct JudgePlan {
    /// Scenes in total.
    pub samples: u64,
    /// Scenes per update.
    pub batch: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// Seed of weights and scenes.
    pub seed: u64,
    /// Share of the batch that has been through the VAE.
    pub blurred: f64,
}

impl Default for JudgePlan {
    fn default() -> Self {
        Self {
            samples: 200_000,
            batch: 64,
            lr: 2e-3,
            seed: 2,
            blurred: 0.5,
        }
    }
}

/// A judge in training.
pub struct JudgeTraining<'a> {
    plan: JudgePlan,
    composer: &'a Composer<'a>,
    blurred: &'a Reconstructions,
    judge: Judge,
    train_state: TrainState,
}

impl<'a> JudgeTraining<'a> {
    /// Random weights, or those of an earlier [`JudgeTraining::save`] at `resume`.
    ///
    /// # Errors
    /// If the checkpoint does not fit.
    pub fn new(
        plan: JudgePlan,
        composer: &'a Composer<'a>,
        blurred: &'a Reconstructions,
        config: &JudgeConfig,
        resume: Option<&Path>,
    ) -> Result<Self> {
        let store = Store::random(plan.seed, Device::Cpu, Kind::Float);
        let judge = Judge::new(&store.root(), config);
        let mut train_state = TrainState::new(&store.finish()?);
        if let Some(path) = resume {
            train_state.load(path)?;
        }
        Ok(Self {
            plan,
            composer,
            blurred,
            judge,
            train_state,
        })
    }

    /// Starts from the weights of an earlier judge; heads that it lacks stay random. Returns their names.
    ///
    /// # Errors
    /// A weight of another shape, or a missing one that is not a head's; `path` is for the message.
    pub fn start_from(
        &mut self,
        weights: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<Vec<String>> {
        const NEW: [&str; 4] = ["activity.", "count.", "tint.", "place."];
        let may_lack = |name: &str| NEW.iter().any(|head| name.starts_with(head));
        self.train_state.start_from_part(weights, path, &may_lack)
    }

    /// Trains to the end; `observe` may stop it by returning false.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn run(
        &mut self,
        observe: &mut dyn FnMut(&mut Self, Progress) -> Result<bool>,
    ) -> Result<()> {
        let total = self.plan.samples / self.plan.batch;
        while self.train_state.step < total {
            let step = self.train_state.step;
            let loss = self.loss(step)?;
            loss.backward();
            let lr = learning_rate(self.plan.lr, step, total, 100, 0.6);
            let args = StepArgs {
                lr,
                beta2: 0.99,
                weight_decay: 0.05,
                max_grad_norm: 5.0,
                ema: 0.998,
            };
            let grad_norm = self.train_state.step(args)?;
            let loss = loss.double_value(&[]);
            let progress = Progress {
                step: step + 1,
                total,
                samples_per_step: self.plan.batch,
                loss,
                lr,
                grad_norm,
            };
            if !observe(self, progress)? {
                break;
            }
        }
        Ok(())
    }

    fn loss(&self, step: u64) -> Result<Tensor> {
        let JudgePlan {
            batch,
            seed,
            blurred,
            ..
        } = self.plan;
        let first = step * batch;
        let n_blurred = (batch as f64 * blurred) as u64;
        let sharp = compose(self.composer, seed, first..first + batch - n_blurred);
        let (images, mut scenes) = self.blurred.some(step * n_blurred, n_blurred);
        let images = Tensor::cat(&[images, sharp.images], 0);
        scenes.extend(sharp.scenes);
        let seeds = Seeds::new(seed);
        let images = jitter(&images, seeds, step)?;
        let output = self.judge.forward(&images);
        let head = |log_probs: &Tensor, label: fn(&Scene) -> usize| {
            let labels: Vec<i64> = scenes.iter().map(|s| label(s) as i64).collect();
            log_probs.nll_loss_nd(
                &Tensor::from_slice(&labels),
                None::<&Tensor>,
                tch::Reduction::Mean,
                -100,
            )
        };
        // Each animal of a pair has a target of one half.
        let entity =
            head(&output.entity, Scene::entity) + head(&output.entity, Scene::other_entity);
        Ok(0.5 * entity
            + 0.2 * head(&output.style, |s| s.set().index())
            + 0.1 * head(&output.pattern, pattern)
            + 0.1 * head(&output.color, color)
            + 0.5 * head(&output.activity, activity)
            + 0.5 * head(&output.count, count)
            + 0.3 * head(&output.tint, tint)
            + 0.2 * head(&output.place, place))
    }

    /// Runs `f` with the averaged judge.
    pub fn with_average<T>(&mut self, f: impl FnOnce(&Judge) -> T) -> T {
        let Self {
            train_state, judge, ..
        } = self;
        train_state.with_average(|| {
            let _guard = tch::no_grad_guard();
            f(judge)
        })
    }

    /// Writes everything that resuming needs.
    ///
    /// # Errors
    /// If writing fails.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.train_state.save(path)
    }

    /// The averaged weights, by name.
    pub fn average(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.train_state.average()
    }
}

/// Mixes the colour channels a little, changes contrast and brightness, and adds noise, keyed by the step.
///
/// This makes a judge robust to the palette of other sets and to the noise that samplers leave.
fn jitter(images: &Tensor, seeds: Seeds, step: u64) -> Result<Tensor> {
    let batch = images.size()[0];
    let ids: Vec<u64> = (0..batch as u64).map(|i| step * batch as u64 + i).collect();
    let noise = KeyedNoise::of_stream(seeds, Stream::Data, 1);
    let mix = noise.normal(&ids, Draw::Step(0), &[3, 3])? * 0.08
        + Tensor::eye(3, (Kind::Float, Device::Cpu));
    let shift = noise.normal(&ids, Draw::Step(1), &[3, 1])? * 0.06;
    let grain = noise.normal(&ids, Draw::Step(2), &[1, 64, 64])?;
    let flat = mix.matmul(&images.view([batch, 3, -1])) + shift;
    let amount = noise.normal(&ids, Draw::Step(3), &[1, 1, 1])?.abs() * 0.06;
    Ok(flat.view_as(images) + grain * amount)
}

/// Labels of a scene, as class indices of the heads.
pub mod labels {
    use crate::scene::{Activity, Color, Location, Pattern, Scene};

    /// Index into [`Pattern::ALL`].
    pub fn pattern(scene: &Scene) -> usize {
        position(&Pattern::ALL, &scene.ground.pattern)
    }

    /// Index into [`Color::GROUNDS`].
    pub fn color(scene: &Scene) -> usize {
        position(&Color::GROUNDS, &scene.ground.color)
    }

    /// 0 for none, then [`Activity::ALL`].
    pub fn activity(scene: &Scene) -> usize {
        scene
            .kind
            .activity()
            .map_or(0, |it| 1 + Activity::index(it))
    }

    /// 0 for one.
    pub fn count(scene: &Scene) -> usize {
        scene.count() - 1
    }

    /// 0 for none, then [`Color::TINTS`].
    pub fn tint(scene: &Scene) -> usize {
        let tint = scene.kind.tint();
        tint.map_or(0, |it| 1 + position(&Color::TINTS, &it))
    }

    /// 0 for none, then [`Location::ALL`].
    pub fn place(scene: &Scene) -> usize {
        scene
            .kind
            .location()
            .map_or(0, |it| 1 + Location::index(it))
    }

    fn position<T: PartialEq>(all: &[T], one: &T) -> usize {
        let at = all.iter().position(|x| x == one);
        at.expect("everything that scenes have is in its list")
    }
}
