//! The judges: small convolutional classifiers of what an image shows.
//!
//! There are two, of different architecture and seed and trained on disjoint sets of drawings. One may serve as a
//! reward; the other is held out for evaluation, so that no policy is trained on it.

use std::path::Path;

use ddpo_model::Vae;
use ddpo_torch::nn::{Conv2d, GroupNorm, Linear};
use ddpo_torch::{Scope, Store};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::artwork::{ArtworkSet, Pack};
use crate::caption::NUMBERS;
use crate::scene::{Activity, Color, Location, Mixture, Pattern};

/// The architecture of a judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeConfig {
    /// Channels per level; the resolution halves from one to the next.
    pub channels: Vec<i64>,
    /// Residual blocks per level.
    pub blocks: i64,
    /// Kernel size of the first convolution.
    pub stem: i64,
    /// Its stride.
    pub stride: i64,
    /// Classes of the entity head, in order.
    pub entities: Vec<String>,
    /// Classes of the activity head after "none", in order.
    pub activities: Vec<String>,
    /// Classes of the count head, in order: "one", "two", ….
    pub counts: Vec<String>,
    /// Classes of the tint head after "none", in order.
    pub tints: Vec<String>,
    /// Classes of the place head after "none", in order.
    pub places: Vec<String>,
}

impl JudgeConfig {
    /// Reads a configuration; `name` is for messages.
    ///
    /// # Errors
    /// [`crate::Error::Judge`] if it is damaged, lacks a head, or has other classes than this version of the code.
    pub fn read(name: &str, json: &[u8]) -> crate::Result<Self> {
        let refuse = |reason: String| crate::Error::Judge {
            name: name.to_owned(),
            reason,
        };
        let config: Self = serde_json::from_slice(json).map_err(|e| refuse(e.to_string()))?;
        let words = Classes::of_this_code();
        for (head, known, ours) in [
            ("activities", &config.activities, &words.activities),
            ("counts", &config.counts, &words.counts),
            ("tints", &config.tints, &words.tints),
            ("places", &config.places, &words.places),
        ] {
            if known != ours {
                return Err(refuse(format!(
                    "its {head} are {known:?}, expected {ours:?}"
                )));
            }
        }
        Ok(config)
    }
}

/// The classes of all heads but the entity head, in order.
struct Classes {
    activities: Vec<String>,
    counts: Vec<String>,
    tints: Vec<String>,
    places: Vec<String>,
}

impl Classes {
    fn of_this_code() -> Self {
        let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect();
        Self {
            activities: words(&Activity::ALL.map(|it| it.phrases()[0])),
            counts: words(&NUMBERS),
            tints: words(&Color::TINTS.map(Color::word)),
            places: words(&Location::ALL.map(Location::phrase)),
        }
    }
}

/// The two judges of the pocket world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May serve as a reward.
    Reward,
    /// Held out: only used for evaluation.
    HeldOut,
}

impl Role {
    /// Stem of its files in `assets/judges`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reward => "reward",
            Self::HeldOut => "held_out",
        }
    }

    /// The sets whose drawings it was trained on; no drawing is in both.
    ///
    /// The held-out judge has three of the five sets that cover every entity, the reward judge the other two.
    pub fn sets(self) -> &'static [ArtworkSet] {
        match self {
            Self::Reward => &[
                ArtworkSet::Fluent3d,
                ArtworkSet::Openmoji,
                ArtworkSet::NotoV1,
            ],
            Self::HeldOut => &[
                ArtworkSet::Noto,
                ArtworkSet::FluentFlat,
                ArtworkSet::Twemoji,
                ArtworkSet::Emojione,
            ],
        }
    }

    /// Its architecture, for the entities of `pack`.
    pub fn config(self, pack: &Pack) -> JudgeConfig {
        let entities = pack.entities().iter().map(|e| e.name.clone()).collect();
        let (channels, blocks, stem, stride) = match self {
            Self::Reward => (vec![48, 96, 192], 2, 5, 4),
            Self::HeldOut => (vec![64, 128, 256], 1, 7, 4),
        };
        let classes = Classes::of_this_code();
        JudgeConfig {
            channels,
            blocks,
            stem,
            stride,
            entities,
            activities: classes.activities,
            counts: classes.counts,
            tints: classes.tints,
            places: classes.places,
        }
    }

    /// The scenes it was trained on: many of every kind, with every animal in every activity.
    pub fn mixture(self) -> Mixture {
        let mut mixture = Mixture {
            animals: 0.7,
            unseen_animals: 0.15,
            objects: 0.15,
            activities: 0.2,
            all_animals_active: true,
            counting: 0.2,
            attributes: 0.12,
            ..Mixture::default()
        };
        for set in ArtworkSet::ALL {
            let weight = mixture.sets[set.index()];
            mixture.sets[set.index()] = if self.sets().contains(&set) {
                weight
            } else {
                0.0
            };
        }
        mixture
    }
}

/// Configuration and weights of a judge that is compiled into the crate.
fn embedded_files(role: Role) -> (&'static [u8], &'static [u8]) {
    match role {
        Role::Reward => (
            include_bytes!("../assets/judges/reward.json"),
            include_bytes!("../assets/judges/reward.safetensors"),
        ),
        Role::HeldOut => (
            include_bytes!("../assets/judges/held_out.json"),
            include_bytes!("../assets/judges/held_out.safetensors"),
        ),
    }
}

/// Log-probabilities of a judge's heads.
pub struct JudgeOutput {
    /// `[batch, entities]`.
    pub entity: Tensor,
    /// `[batch, 7]`, in the order of [`ArtworkSet::ALL`].
    pub style: Tensor,
    /// `[batch, 6]`, in the order of [`Pattern::ALL`].
    pub pattern: Tensor,
    /// `[batch, 10]`, in the order of [`Color::GROUNDS`].
    pub color: Tensor,
    /// `[batch, 4]`: none, then the order of [`Activity::ALL`].
    pub activity: Tensor,
    /// `[batch, 8]`: one to eight.
    pub count: Tensor,
    /// `[batch, 8]`: none, then the order of [`Color::TINTS`].
    pub tint: Tensor,
    /// `[batch, 3]`: none, then the order of [`Location::ALL`].
    pub place: Tensor,
}

struct Block {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
}

impl Block {
    fn new(scope: &Scope<'_>, channels: i64) -> Self {
        let norm = |name: &str| GroupNorm::new(&(scope / name), 8, channels, 1e-5);
        let conv = |name: &str| Conv2d::new(&(scope / name), channels, channels, 3, 1, 1);
        Self {
            norm1: norm("norm1"),
            conv1: conv("conv1"),
            norm2: norm("norm2"),
            conv2: conv("conv2"),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.conv1.forward(&self.norm1.forward(x).relu());
        x + self.conv2.forward(&self.norm2.forward(&h).relu())
    }
}

/// A residual network with one head per question.
pub struct Judge {
    config: JudgeConfig,
    stem: Conv2d,
    levels: Vec<(Option<Conv2d>, Vec<Block>)>,
    norm: GroupNorm,
    heads: [Linear; 8],
}

impl Judge {
    /// Takes its tensors from `scope`.
    pub fn new(scope: &Scope<'_>, config: &JudgeConfig) -> Self {
        let channels = &config.channels;
        let level = |(i, &width): (usize, &i64)| {
            let scope = scope / format!("levels.{i}");
            let down =
                (i > 0).then(|| Conv2d::new(&(&scope / "down"), channels[i - 1], width, 3, 2, 1));
            (
                down,
                (0..config.blocks)
                    .map(|j| Block::new(&(&scope / format!("blocks.{j}")), width))
                    .collect(),
            )
        };
        let last = channels[channels.len() - 1];
        let head = |name: &str, n: usize| Linear::new(&(scope / name), last, n as i64);
        Self {
            stem: Conv2d::new(
                &(scope / "stem"),
                3,
                channels[0],
                config.stem,
                config.stride,
                config.stem / 2,
            ),
            levels: channels.iter().enumerate().map(level).collect(),
            norm: GroupNorm::new(&(scope / "norm"), 8, last, 1e-5),
            heads: [
                head("entity", config.entities.len()),
                head("style", ArtworkSet::ALL.len()),
                head("pattern", Pattern::ALL.len()),
                head("color", Color::GROUNDS.len()),
                head("activity", 1 + config.activities.len()),
                head("count", config.counts.len()),
                head("tint", 1 + config.tints.len()),
                head("place", 1 + config.places.len()),
            ],
            config: config.clone(),
        }
    }

    /// A judge from tensors, all of which must be used.
    ///
    /// # Errors
    /// [`ddpo_torch::Error::Misfit`] with every tensor that does not fit.
    pub fn load(store: Store, config: &JudgeConfig) -> crate::Result<Self> {
        let judge = Self::new(&store.root(), config);
        store.finish()?;
        Ok(judge)
    }

    /// The judge of this role in a folder of judges, as `pocket-pretrain` exports them, in f32 on `device`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Judge`] with the file and what it lacks, or every tensor that does
    /// not fit.
    pub fn open(folder: &Path, role: Role, device: Device) -> crate::Result<Self> {
        let path = folder.join(format!("{}.json", role.name()));
        let json = std::fs::read(&path).map_err(|source| crate::Error::Io {
            path: path.clone(),
            source,
        })?;
        let config = JudgeConfig::read(&path.display().to_string(), &json)?;
        let store = Store::open(&path.with_extension("safetensors"), device, Kind::Float)?;
        Self::load(store, &config)
    }

    /// The judge of this role that is compiled into the crate, in f32 on `device`.
    ///
    /// # Errors
    /// None, unless the crate was built from damaged assets.
    pub fn embedded(role: Role, device: Device) -> crate::Result<Self> {
        let (json, weights) = embedded_files(role);
        let config = JudgeConfig::read(role.name(), json)?;
        Self::load(
            Store::embedded(role.name(), weights, device, Kind::Float)?,
            &config,
        )
    }

    /// Its configuration.
    pub fn config(&self) -> &JudgeConfig {
        &self.config
    }

    /// # Shapes
    /// - `images`: `[batch, 3, 64, 64]`, f32, in [-1, 1]
    pub fn forward(&self, images: &Tensor) -> JudgeOutput {
        let mut h = self.stem.forward(images);
        for (down, blocks) in &self.levels {
            if let Some(down) = down {
                h = down.forward(&h);
            }
            h = blocks.iter().fold(h, |h, block| block.forward(&h));
        }
        let features =
            self.norm
                .forward(&h)
                .relu()
                .mean_dim([2i64, 3].as_slice(), false, Kind::Float);
        let [entity, style, pattern, color, activity, count, tint, place] = &self.heads;
        let log_probs = |head: &Linear| head.forward(&features).log_softmax(-1, Kind::Float);
        JudgeOutput {
            entity: log_probs(entity),
            style: log_probs(style),
            pattern: log_probs(pattern),
            color: log_probs(color),
            activity: log_probs(activity),
            count: log_probs(count),
            tint: log_probs(tint),
            place: log_probs(place),
        }
    }
}

impl Judge {
    /// [`Judge::forward`] a hundred images at a time, without gradient; through `vae` first, if there is one.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, 64, 64]`, f32, in [-1, 1]
    pub fn forward_all(&self, images: &Tensor, vae: Option<&Vae>) -> JudgeOutput {
        let _guard = tch::no_grad_guard();
        let parts: Vec<JudgeOutput> = images
            .split(100, 0)
            .iter()
            .map(|part| match vae {
                Some(vae) => self.forward(&vae.decode(&vae.encode(part)).clamp(-1.0, 1.0)),
                None => self.forward(part),
            })
            .collect();
        let all = |head: fn(&JudgeOutput) -> &Tensor| {
            Tensor::cat(&parts.iter().map(head).collect::<Vec<_>>(), 0)
        };
        JudgeOutput {
            entity: all(|v| &v.entity),
            style: all(|v| &v.style),
            pattern: all(|v| &v.pattern),
            color: all(|v| &v.color),
            activity: all(|v| &v.activity),
            count: all(|v| &v.count),
            tint: all(|v| &v.tint),
            place: all(|v| &v.place),
        }
    }
}
