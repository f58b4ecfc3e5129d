//! Scores images by how likely a judge finds the content of their prompts: the reward `judge`, and the same score by
//! the held-out judge.
//!
//! The score of an image is the sum of the judge's log-probabilities of everything that its prompt mentions:
//!
//! | the prompt mentions | one term each |
//! | --- | --- |
//! | one thing | log p(entity) |
//! | two different things | log p(a) + log p(b) + 2 log 2 |
//! | a number, or two things | log p(count) |
//! | an activity, a colour of its own, a place | log p(activity), log p(tint), log p(place) |
//! | a style word | log p(style) |
//! | a ground | log p(colour) + log p(pattern) |
//!
//! An article is not a number: for "a cat" only the entity is judged.
//! The entity head was trained on pairs with a target of ½ for each, so that it gives neither more than ½ when
//! both are there: the constant makes 0 the largest score of a pair, as for every other term. A pair of the same
//! thing has one entity and a count of two.
//! No judge has learned sizes, or the style of drawings that it was not trained on: prompts that mention them
//! are refused rather than judged in part.

use std::f64::consts::LN_2;

use ddpo_guidance::DifferentiableReward;
use ddpo_reward::{Images, Prompt, Reward, RewardError, RewardInfo, check_batch};
use tch::{Device, Kind, Tensor};

use crate::artwork::{ArtworkSet, EntityKind, listed_entities};
use crate::judge::{Judge, JudgeOutput, Role};
use crate::parsed_prompt::{Grammar, ParsedPrompt};
use crate::pretrain::batch::from_bytes;
use crate::scene::{Activity, Color, Location, Pattern, SCENE_SIDE};
use crate::{Error, Result};

/// Size of every batch that goes through the network, so that a score is bitwise the same in any batch.
const BATCH: usize = 16;

/// Parses the prompts that a judge can score; needs no weights.
#[derive(Debug, Clone)]
pub struct PromptReader {
    role: Role,
    grammar: Grammar,
    entities: Vec<(String, EntityKind)>,
}

impl PromptReader {
    /// For the judge of this role.
    ///
    /// # Errors
    /// If the embedded entity list is damaged.
    pub fn new(role: Role) -> Result<Self> {
        let listed = listed_entities()?;
        Ok(Self {
            role,
            grammar: Grammar::embedded()?,
            entities: listed.into_iter().map(|it| (it.name, it.kind)).collect(),
        })
    }

    /// Parses a prompt.
    ///
    /// # Errors
    /// [`Error::Prompt`] naming what cannot be parsed or judged.
    pub fn read(&self, prompt: &str) -> Result<ParsedPrompt> {
        let parsed = self.grammar.read(prompt)?;
        let refused = |reason: String| Error::Prompt {
            prompt: prompt.to_owned(),
            reason,
        };
        if let Some(word) = parsed.size.and_then(|size| size.word()) {
            return Err(refused(format!("no judge has learned what `{word}` is")));
        }
        if let Some(set) = parsed.style.filter(|set| !self.role.sets().contains(set)) {
            return Err(refused(format!(
                "the judge `{}` has not learned what a `{}` image is",
                self.role.name(),
                set.style_word().unwrap_or_default()
            )));
        }
        Ok(parsed)
    }

    /// The entities that compete with those of the prompt: all of the same kind, such as the 45 training animals.
    fn among(&self, parsed: &ParsedPrompt) -> Vec<usize> {
        let kinds: Vec<EntityKind> = parsed
            .entities
            .iter()
            .map(|&i| self.entities[i].1)
            .collect();
        let all = self.entities.iter().enumerate();
        all.filter(|(_, (_, kind))| kinds.contains(kind))
            .map(|(i, _)| i)
            .collect()
    }
}

/// A judge's scores of images and their prompts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PromptScores {
    /// The score of each image, in nats; at most 0.
    pub log_prob: Vec<f32>,
    /// Whether the prompt's entity is the judge's top-1 among all entities of its kind; for a pair, whether both rank
    /// before all others.
    pub top1: Vec<bool>,
}

impl PromptScores {
    /// Top-1 accuracy over the images; 0 without images.
    pub fn top1_accuracy(&self) -> f64 {
        let first = self.top1.iter().filter(|&&first| first).count();
        first as f64 / self.top1.len().max(1) as f64
    }
}

/// Scores images for prompts with the reward judge or the held-out judge.
///
/// ```
/// use ddpo_pocket::content::PromptScorer;
/// use ddpo_pocket::judge::Role;
/// use ddpo_reward::{Images, prompts::numbered};
///
/// let scorer = PromptScorer::embedded(Role::HeldOut, tch::Device::Cpu)?;
/// let white = Images::from_bytes(1, 64, 64, vec![255; 64 * 64 * 3])?;
/// let scores = scorer.score(&white, &numbered(["two cats"]))?;
/// assert!(scores.log_prob[0] < -3.0 && scores.top1.len() == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PromptScorer {
    judge: Judge,
    reader: PromptReader,
    device: Device,
}

impl PromptScorer {
    /// With the judge of this role that is compiled into the crate.
    ///
    /// # Errors
    /// None, unless the crate was built from damaged assets.
    pub fn embedded(role: Role, device: Device) -> Result<Self> {
        let judge = Judge::embedded(role, device)?;
        let reader = PromptReader::new(role)?;
        let known = judge.config().entities.iter();
        if !known.eq(reader.entities.iter().map(|(name, _)| name)) {
            return Err(Error::Judge {
                name: role.name().to_owned(),
                reason: "its entities are not those of the artwork".to_owned(),
            });
        }
        Ok(Self {
            judge,
            reader,
            device,
        })
    }

    /// Parses prompts.
    ///
    /// # Errors
    /// [`Error::Prompt`] with the first that cannot be judged.
    pub fn read(&self, prompts: &[Prompt]) -> Result<Vec<ParsedPrompt>> {
        let read = |prompt: &Prompt| self.reader.read(&prompt.text);
        prompts.iter().map(read).collect()
    }

    /// The scores of images as tensors, differentiable.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, 64, 64]`, f32, in [-1, 1], on the judge's device
    /// - `prompts`: batch
    /// - returns: `[batch]`, f32, in nats, at most 0
    pub fn log_prob(&self, images: &Tensor, prompts: &[ParsedPrompt]) -> Tensor {
        log_prob_of(&self.judge.forward(images), prompts)
    }

    /// Scores images, without gradient. The score of an image does not depend on the others.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] for images that are not of 64×64 pixels, for prompts that cannot be judged, and
    /// if there is not one prompt per image.
    pub fn score(&self, images: &Images, prompts: &[Prompt]) -> ddpo_reward::Result<PromptScores> {
        check_batch(images, prompts)?;
        let actual = [images.width(), images.height()];
        if actual != [SCENE_SIDE; 2] {
            let expected = format!("{SCENE_SIDE}x{SCENE_SIDE} pixels");
            let actual = format!("{}x{}", actual[0], actual[1]);
            return Err(RewardError::bad_input("images", expected, actual));
        }
        let parsed = self.read(prompts).map_err(|error| {
            RewardError::bad_input("prompts", "prompts of the pocket world", error)
        })?;
        let _guard = tch::no_grad_guard();
        let mut scores = PromptScores::default();
        let stride = SCENE_SIDE * SCENE_SIDE * 3;
        for (bytes, parsed) in images
            .bytes()
            .chunks(stride * BATCH)
            .zip(parsed.chunks(BATCH))
        {
            let mut filled = bytes.to_vec();
            filled.resize(stride * BATCH, 0);
            let images = from_bytes(&filled).to_device(self.device);
            let output = self.judge.forward(&images).first(parsed.len() as i64);
            let log_probs = log_prob_of(&output, parsed).to_device(Device::Cpu);
            let entity = output.entity.to_device(Device::Cpu);
            for (row, parsed) in (0..).zip(parsed) {
                scores.log_prob.push(log_probs.double_value(&[row]) as f32);
                scores.top1.push(self.is_top1(&entity.get(row), parsed));
            }
        }
        Ok(scores)
    }

    fn is_top1(&self, entity: &Tensor, parsed: &ParsedPrompt) -> bool {
        let value = |i: usize| entity.double_value(&[i as i64]);
        let asked = parsed.entities.iter().map(|&i| value(i));
        let least = asked.fold(f64::INFINITY, f64::min);
        let among = self.reader.among(parsed);
        let mut others = among.into_iter().filter(|i| !parsed.entities.contains(i));
        others.all(|i| value(i) < least)
    }
}

impl JudgeOutput {
    /// Of the first `n` images.
    fn first(self, n: i64) -> Self {
        let head = |t: Tensor| t.narrow(0, 0, n);
        Self {
            entity: head(self.entity),
            style: head(self.style),
            pattern: head(self.pattern),
            color: head(self.color),
            activity: head(self.activity),
            count: head(self.count),
            tint: head(self.tint),
            place: head(self.place),
        }
    }
}

/// Sum of the log-probabilities of everything that each prompt mentions.
fn log_prob_of(output: &JudgeOutput, prompts: &[ParsedPrompt]) -> Tensor {
    let term = |head: &Tensor, label: &dyn Fn(&ParsedPrompt) -> Option<usize>| {
        let labels: Vec<Option<usize>> = prompts.iter().map(label).collect();
        let on = |values: Tensor| values.to_device(head.device());
        let at: Vec<i64> = labels.iter().map(|it| it.unwrap_or(0) as i64).collect();
        let asked: Vec<f32> = labels.iter().map(|it| f32::from(it.is_some())).collect();
        let found = head.gather(1, &on(Tensor::from_slice(&at)).unsqueeze(1), false);
        found.squeeze_dim(1) * on(Tensor::from_slice(&asked))
    };
    let second = |prompt: &ParsedPrompt| {
        let second = prompt.entities.get(1).copied();
        second.filter(|it| *it != prompt.entities[0])
    };
    let of_pairs: Vec<f64> = prompts
        .iter()
        .map(|prompt| {
            if second(prompt).is_some() {
                2.0 * LN_2
            } else {
                0.0
            }
        })
        .collect();
    let of_pairs = Tensor::from_slice(&of_pairs)
        .to_kind(Kind::Float)
        .to_device(output.entity.device());
    of_pairs
        + term(&output.entity, &|it| it.entities.first().copied())
        + term(&output.entity, &|it| second(it))
        + term(&output.count, &|it| it.count.map(|n| n - 1))
        + term(&output.activity, &|it| {
            it.activity.map(|it| 1 + Activity::index(it))
        })
        + term(&output.tint, &|it| {
            it.tint.and_then(|it| after_none(&Color::TINTS, it))
        })
        + term(&output.place, &|it| {
            it.location.map(|it| 1 + Location::index(it))
        })
        + term(&output.style, &|it| it.style.map(ArtworkSet::index))
        + term(&output.color, &|it| {
            it.ground
                .and_then(|(color, _)| Color::GROUNDS.iter().position(|it| *it == color))
        })
        + term(&output.pattern, &|it| {
            it.ground
                .and_then(|(_, pattern)| Pattern::ALL.iter().position(|it| *it == pattern))
        })
}

/// The index in a head whose first answer is "none".
fn after_none<T: PartialEq>(all: &[T], one: T) -> Option<usize> {
    all.iter().position(|it| *it == one).map(|at| 1 + at)
}

/// The reward judge's log-probability of the prompt's content, in nats; at most 0, higher is better.
///
/// On the pocket model it stands in for the paper's vision-language model (alignment) and for ImageReward (the
/// comparison with DPOK).
pub struct JudgeReward(PromptScorer);

impl JudgeReward {
    /// The value of `reward.kind`.
    pub const NAME: &'static str = "judge";

    /// With the embedded reward judge; the held-out one is never a reward.
    ///
    /// # Errors
    /// None, unless the crate was built from damaged assets.
    pub fn embedded(device: Device) -> Result<Self> {
        Ok(Self(PromptScorer::embedded(Role::Reward, device)?))
    }

    /// Refuses prompts that it cannot score; needs no weights.
    ///
    /// # Errors
    /// [`Error::Prompt`] with the first of them.
    pub fn check(prompts: &[Prompt]) -> Result<()> {
        let reader = PromptReader::new(Role::Reward)?;
        prompts
            .iter()
            .try_for_each(|prompt| reader.read(&prompt.text).map(drop))
    }

    /// Quantity and unit of the score.
    pub fn quantity() -> RewardInfo {
        RewardInfo {
            quantity: "log-probability by the reward judge".to_owned(),
            unit: "nats".to_owned(),
        }
    }

    /// The scorer that this reward uses.
    pub fn scorer(&self) -> &PromptScorer {
        &self.0
    }
}

impl DifferentiableReward for JudgeReward {
    fn scores(&self, images: &Tensor, prompts: &[Prompt]) -> ddpo_train::Result<Tensor> {
        let parsed = self.0.read(prompts).map_err(ddpo_train::Error::model)?;
        let side = SCENE_SIDE as i64;
        let expected = [parsed.len() as i64, 3, side, side];
        ddpo_sched::check_shape(images, "images", &expected)?;
        Ok(self.0.log_prob(&(images * 2.0 - 1.0), &parsed))
    }
}

impl Reward for JudgeReward {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> ddpo_reward::Result<Vec<f32>> {
        Ok(self.0.score(images, prompts)?.log_prob)
    }

    fn info(&self) -> RewardInfo {
        Self::quantity()
    }
}
