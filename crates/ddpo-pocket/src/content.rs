//! How likely a judge finds what a prompt says: the reward `judge`, and the same by the judge that only measures.
//!
//! The score of an image is the sum of the judge's log-probabilities of what its prompt mentions, and of nothing
//! else:
//!
//! | the prompt says | one term each |
//! | --- | --- |
//! | one thing | log p(entity) |
//! | two different things | log p(a) + log p(b) + 2 log 2 |
//! | a number, or two things | log p(count) |
//! | an activity, a colour of its own, a place | log p(activity), log p(tint), log p(place) |
//! | a style word | log p(style) |
//! | a ground | log p(colour) + log p(pattern) |
//!
//! An article is no number: of "a cat" only the cat is judged.
//! The entity head was trained on pairs with half of the truth for each, so that it can give neither more than ½ when
//! both are there: the constant makes 0 the largest score of a pair, as it is of every other term. A thing and the
//! same thing again are one entity twice over.
//! No judge has learned sizes, and none the style of drawings that it was not trained on: prompts that ask for them
//! are refused, not judged by half.

use std::f64::consts::LN_2;

use ddpo_guidance::DifferentiableReward;
use ddpo_reward::{Images, Prompt, Reward, RewardError, RewardInfo, check_batch};
use tch::{Device, Kind, Tensor};

use crate::artwork::{EntityKind, Set, listed_entities};
use crate::judge::{Judge, Role, Verdict};
use crate::parsed_prompt::{Grammar, ParsedPrompt};
use crate::pretrain::batch::from_bytes;
use crate::scene::{Activity, Color, Pattern, Place, SCENE_SIDE};
use crate::{Error, Result};

/// Images that are looked at together: always as many, so that a score is the same to the bit in any batch.
const TOGETHER: usize = 16;

/// Reads prompts as far as a judge can be asked about them; needs no weights.
#[derive(Debug, Clone)]
pub struct Questions {
    role: Role,
    grammar: Grammar,
    entities: Vec<(String, EntityKind)>,
}

impl Questions {
    /// Of the judge of that role.
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

    /// What a prompt asks for.
    ///
    /// # Errors
    /// [`Error::Prompt`] with what in it cannot be read, or cannot be judged.
    pub fn read(&self, prompt: &str) -> Result<ParsedPrompt> {
        let asks = self.grammar.read(prompt)?;
        let refused = |reason: String| Error::Prompt {
            prompt: prompt.to_owned(),
            reason,
        };
        if let Some(word) = asks.size.and_then(|size| size.word()) {
            return Err(refused(format!("no judge has learned what `{word}` is")));
        }
        if let Some(set) = asks.style.filter(|set| !self.role.sets().contains(set)) {
            return Err(refused(format!(
                "the judge `{}` has not learned what a `{}` image is",
                self.role.name(),
                set.style_word().unwrap_or_default()
            )));
        }
        Ok(asks)
    }

    /// The entities that compete with those asked for: all of the same kind, such as the 45 training animals.
    fn among(&self, asks: &ParsedPrompt) -> Vec<usize> {
        let kinds: Vec<EntityKind> = asks.entities.iter().map(|&i| self.entities[i].1).collect();
        let all = self.entities.iter().enumerate();
        all.filter(|(_, (_, kind))| kinds.contains(kind))
            .map(|(i, _)| i)
            .collect()
    }
}

/// What a judge says of images and their prompts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Examined {
    /// The score of each image, in nats; at most 0.
    pub log_prob: Vec<f32>,
    /// Whether what the prompt names comes first among all entities of its kind; of a pair, both before all others.
    pub named_first: Vec<bool>,
}

impl Examined {
    /// The share of images that show first what their prompt names; 0 of none.
    pub fn named_first_rate(&self) -> f64 {
        let first = self.named_first.iter().filter(|&&first| first).count();
        first as f64 / self.named_first.len().max(1) as f64
    }
}

/// A judge that is asked about prompts: the one that may be a reward, or the one that only ever measures.
///
/// ```
/// use ddpo_pocket::content::Examiner;
/// use ddpo_pocket::judge::Role;
/// use ddpo_reward::{Images, prompts::numbered};
///
/// let examiner = Examiner::embedded(Role::HeldOut, tch::Device::Cpu)?;
/// let white = Images::from_bytes(1, 64, 64, vec![255; 64 * 64 * 3])?;
/// let examined = examiner.examine(&white, &numbered(["two cats"]))?;
/// assert!(examined.log_prob[0] < -3.0 && examined.named_first.len() == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Examiner {
    judge: Judge,
    questions: Questions,
    device: Device,
}

impl Examiner {
    /// With the judge of that role that is compiled into the crate.
    ///
    /// # Errors
    /// None, unless the crate was built from damaged assets.
    pub fn embedded(role: Role, device: Device) -> Result<Self> {
        let judge = Judge::embedded(role, device)?;
        let questions = Questions::new(role)?;
        let known = judge.config().entities.iter();
        if !known.eq(questions.entities.iter().map(|(name, _)| name)) {
            return Err(Error::Judge {
                name: role.name().to_owned(),
                reason: "its entities are not those of the artwork".to_owned(),
            });
        }
        Ok(Self {
            judge,
            questions,
            device,
        })
    }

    /// What prompts ask for.
    ///
    /// # Errors
    /// [`Error::Prompt`] with the first that cannot be judged.
    pub fn read(&self, prompts: &[Prompt]) -> Result<Vec<ParsedPrompt>> {
        let read = |prompt: &Prompt| self.questions.read(&prompt.text);
        prompts.iter().map(read).collect()
    }

    /// The scores of images as tensors, differentiable.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, 64, 64]`, f32, in [-1, 1], on the judge's device
    /// - `asks`: batch
    /// - returns: `[batch]`, f32, in nats, at most 0
    pub fn log_prob(&self, images: &Tensor, asks: &[ParsedPrompt]) -> Tensor {
        of_verdict(&self.judge.forward(images), asks)
    }

    /// Scores and names of images, without gradient. What an image gets does not depend on the others.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] for images that are not of 64×64 pixels, for prompts that cannot be judged, and
    /// where there is not one prompt for each image.
    pub fn examine(&self, images: &Images, prompts: &[Prompt]) -> ddpo_reward::Result<Examined> {
        check_batch(images, prompts)?;
        let actual = [images.width(), images.height()];
        if actual != [SCENE_SIDE; 2] {
            let expected = format!("{SCENE_SIDE}x{SCENE_SIDE} pixels");
            let actual = format!("{}x{}", actual[0], actual[1]);
            return Err(RewardError::bad_input("images", expected, actual));
        }
        let asks = self.read(prompts).map_err(|error| {
            RewardError::bad_input("prompts", "prompts of the pocket world", error)
        })?;
        let _guard = tch::no_grad_guard();
        let mut examined = Examined::default();
        let stride = SCENE_SIDE * SCENE_SIDE * 3;
        for (bytes, asks) in images
            .bytes()
            .chunks(stride * TOGETHER)
            .zip(asks.chunks(TOGETHER))
        {
            let mut filled = bytes.to_vec();
            filled.resize(stride * TOGETHER, 0);
            let images = from_bytes(&filled).to_device(self.device);
            let verdict = self.judge.forward(&images).head(asks.len() as i64);
            let scores = of_verdict(&verdict, asks).to_device(Device::Cpu);
            let entity = verdict.entity.to_device(Device::Cpu);
            for (row, asks) in (0..).zip(asks) {
                examined.log_prob.push(scores.double_value(&[row]) as f32);
                examined
                    .named_first
                    .push(self.names_first(&entity.get(row), asks));
            }
        }
        Ok(examined)
    }

    fn names_first(&self, entity: &Tensor, asks: &ParsedPrompt) -> bool {
        let value = |i: usize| entity.double_value(&[i as i64]);
        let asked = asks.entities.iter().map(|&i| value(i));
        let least = asked.fold(f64::INFINITY, f64::min);
        let among = self.questions.among(asks);
        let mut others = among.into_iter().filter(|i| !asks.entities.contains(i));
        others.all(|i| value(i) < least)
    }
}

impl Verdict {
    /// Of the first `n` images.
    fn head(self, n: i64) -> Self {
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

fn of_verdict(verdict: &Verdict, asks: &[ParsedPrompt]) -> Tensor {
    let term = |head: &Tensor, label: &dyn Fn(&ParsedPrompt) -> Option<usize>| {
        let labels: Vec<Option<usize>> = asks.iter().map(label).collect();
        let on = |values: Tensor| values.to_device(head.device());
        let at: Vec<i64> = labels.iter().map(|it| it.unwrap_or(0) as i64).collect();
        let asked: Vec<f32> = labels.iter().map(|it| f32::from(it.is_some())).collect();
        let found = head.gather(1, &on(Tensor::from_slice(&at)).unsqueeze(1), false);
        found.squeeze_dim(1) * on(Tensor::from_slice(&asked))
    };
    let second = |asks: &ParsedPrompt| {
        let second = asks.entities.get(1).copied();
        second.filter(|it| *it != asks.entities[0])
    };
    let of_pairs: Vec<f64> = asks
        .iter()
        .map(|asks| {
            if second(asks).is_some() {
                2.0 * LN_2
            } else {
                0.0
            }
        })
        .collect();
    let of_pairs = Tensor::from_slice(&of_pairs)
        .to_kind(Kind::Float)
        .to_device(verdict.entity.device());
    of_pairs
        + term(&verdict.entity, &|it| it.entities.first().copied())
        + term(&verdict.entity, &|it| second(it))
        + term(&verdict.count, &|it| it.count.map(|n| n - 1))
        + term(&verdict.activity, &|it| {
            it.activity.map(|it| 1 + Activity::index(it))
        })
        + term(&verdict.tint, &|it| {
            it.tint.and_then(|it| after_none(&Color::TINTS, it))
        })
        + term(&verdict.place, &|it| {
            it.place.map(|it| 1 + Place::index(it))
        })
        + term(&verdict.style, &|it| it.style.map(Set::index))
        + term(&verdict.color, &|it| {
            it.ground
                .and_then(|(color, _)| Color::GROUNDS.iter().position(|it| *it == color))
        })
        + term(&verdict.pattern, &|it| {
            it.ground
                .and_then(|(_, pattern)| Pattern::ALL.iter().position(|it| *it == pattern))
        })
}

/// The answer of a head whose first answer is "none".
fn after_none<T: PartialEq>(all: &[T], one: T) -> Option<usize> {
    all.iter().position(|it| *it == one).map(|at| 1 + at)
}

/// The reward judge's log-probability of what the prompt says, in nats; at most 0, higher is better.
///
/// On the pocket model it stands in for the paper's vision-language model (alignment) and for ImageReward (the
/// comparison with DPOK), and says so by its name.
pub struct JudgeReward(Examiner);

impl JudgeReward {
    /// Kind in configurations.
    pub const NAME: &'static str = "judge";

    /// With the embedded reward judge; the held-out one is never a reward.
    ///
    /// # Errors
    /// None, unless the crate was built from damaged assets.
    pub fn embedded(device: Device) -> Result<Self> {
        Ok(Self(Examiner::embedded(Role::Reward, device)?))
    }

    /// Refuses prompts that it cannot be asked about; needs no weights.
    ///
    /// # Errors
    /// [`Error::Prompt`] with the first of them.
    pub fn check(prompts: &[Prompt]) -> Result<()> {
        let questions = Questions::new(Role::Reward)?;
        prompts
            .iter()
            .try_for_each(|prompt| questions.read(&prompt.text).map(drop))
    }

    /// What it measures.
    pub fn quantity() -> RewardInfo {
        RewardInfo {
            quantity: "log-probability by the reward judge".to_owned(),
            unit: "nats".to_owned(),
        }
    }

    /// The judge and how it is asked.
    pub fn examiner(&self) -> &Examiner {
        &self.0
    }
}

impl DifferentiableReward for JudgeReward {
    fn scores(&self, images: &Tensor, prompts: &[Prompt]) -> ddpo_train::Result<Tensor> {
        let asks = self.0.read(prompts).map_err(ddpo_train::Error::model)?;
        let side = SCENE_SIDE as i64;
        let expected = [asks.len() as i64, 3, side, side];
        ddpo_sched::check_shape(images, "images", &expected)?;
        Ok(self.0.log_prob(&(images * 2.0 - 1.0), &asks))
    }
}

impl Reward for JudgeReward {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> ddpo_reward::Result<Vec<f32>> {
        Ok(self.0.examine(images, prompts)?.log_prob)
    }

    fn info(&self) -> RewardInfo {
        Self::quantity()
    }
}
