//! Small convolutional networks that say what is on a picture.
//!
//! Two of them, of different architecture and seed and trained on disjoint sets of drawings: one may serve as a
//! reward, the other only ever measures, so that a policy cannot learn to please its examiner.

use ddpo_torch::nn::{Conv2d, GroupNorm, Linear};
use ddpo_torch::{Scope, Store};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::artwork::{Pack, Set};
use crate::scene::{Color, Mixture, Pattern};

/// The shape of a judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeConfig {
    /// Channels a level; the resolution halves from one to the next.
    pub channels: Vec<i64>,
    /// Residual blocks a level.
    pub blocks: i64,
    /// Side of the first convolution.
    pub stem: i64,
    /// Its stride.
    pub stride: i64,
    /// Names that the entity head knows, in its order.
    pub entities: Vec<String>,
}

/// The two judges of the pocket world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May serve as a reward.
    Reward,
    /// Only ever measures.
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
    pub fn sets(self) -> &'static [Set] {
        match self {
            Self::Reward => &[Set::Fluent3d, Set::Openmoji, Set::NotoV1],
            Self::HeldOut => &[Set::Noto, Set::FluentFlat, Set::Twemoji, Set::Emojione],
        }
    }

    /// Its shape, for the entities of `pack`.
    pub fn config(self, pack: &Pack) -> JudgeConfig {
        let entities = pack.entities().iter().map(|e| e.name.clone()).collect();
        let (channels, blocks, stem, stride) = match self {
            Self::Reward => (vec![48, 96, 192], 2, 5, 4),
            Self::HeldOut => (vec![64, 128, 256], 1, 7, 4),
        };
        JudgeConfig {
            channels,
            blocks,
            stem,
            stride,
            entities,
        }
    }

    /// The scenes it was trained on.
    pub fn mixture(self) -> Mixture {
        let mut mixture = Mixture {
            animals: 0.7,
            unseen_animals: 0.15,
            objects: 0.15,
            ..Mixture::default()
        };
        for set in Set::ALL {
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

/// What a judge thinks of pictures, as log-probabilities.
pub struct Verdict {
    /// `[batch, entities]`.
    pub entity: Tensor,
    /// `[batch, 7]`, in the order of [`Set::ALL`].
    pub style: Tensor,
    /// `[batch, 6]`, in the order of [`Pattern::ALL`].
    pub pattern: Tensor,
    /// `[batch, 10]`, in the order of [`Color::GROUNDS`].
    pub color: Tensor,
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

/// A residual network with a head a question.
pub struct Judge {
    config: JudgeConfig,
    stem: Conv2d,
    levels: Vec<(Option<Conv2d>, Vec<Block>)>,
    norm: GroupNorm,
    heads: [Linear; 4],
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
                head("style", Set::ALL.len()),
                head("pattern", Pattern::ALL.len()),
                head("color", Color::GROUNDS.len()),
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

    /// Its configuration.
    pub fn config(&self) -> &JudgeConfig {
        &self.config
    }

    /// # Shapes
    /// - `images`: `[batch, 3, 64, 64]`, f32, in [-1, 1]
    pub fn forward(&self, images: &Tensor) -> Verdict {
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
        let [entity, style, pattern, color] = &self.heads;
        let answer = |head: &Linear| head.forward(&features).log_softmax(-1, Kind::Float);
        Verdict {
            entity: answer(entity),
            style: answer(style),
            pattern: answer(pattern),
            color: answer(color),
        }
    }
}

/// How often the right answer came first, and among the first five.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HitRate {
    /// Share of pictures named right, in [0, 1].
    pub first: f64,
    /// Share of pictures whose name is among the five likeliest, in [0, 1].
    pub top_five: f64,
    /// Pictures judged.
    pub n: usize,
}

impl HitRate {
    /// # Shapes
    /// - `log_probs`: `[batch, answers]`
    /// - `truth`: the right answer's index a picture
    /// - `among`: answers that compete; all others are left out
    pub fn of(log_probs: &Tensor, truth: &[usize], among: &[usize]) -> Self {
        let columns = Tensor::from_slice(&among.iter().map(|&i| i as i64).collect::<Vec<_>>());
        let order = log_probs.index_select(1, &columns).argsort(1, true);
        let rank = |(row, &answer): (usize, &usize)| {
            let column = among
                .iter()
                .position(|&i| i == answer)
                .expect("the truth competes") as i64;
            (0..among.len() as i64)
                .find(|&r| order.int64_value(&[row as i64, r]) == column)
                .expect("a permutation")
        };
        let ranks: Vec<i64> = truth.iter().enumerate().map(rank).collect();
        let share = |k: i64| ranks.iter().filter(|&&r| r < k).count() as f64 / ranks.len() as f64;
        Self {
            first: share(1),
            top_five: share(5),
            n: ranks.len(),
        }
    }
}
