//! `[reward]`: which reward, and what each kind needs to know.
//!
//! A kind reads its own keys only. The keys of the other kinds may be there too, so that a preset can carry
//! what every reward needs; they are left out of the resolved configuration. What no preset and no experiment
//! says comes from the table of keys. Parts of a sum are kinds too, and read the keys of their kind.

use std::time::Duration;

use ddpo_encoder::Rescaling;
use ddpo_pocket::content::JudgeReward;
use ddpo_pocket::scene::SCENE_SIDE;
use ddpo_reward::prompts::numbered;
use ddpo_reward::vlm::{Question, Wording, counting_questions};
use ddpo_reward::{Aesthetic, CommandReward, Composite, ImageRewardScore, VlmBertScore, Vqa};
use ddpo_train::Retry;

use super::layers::reward_layers;
use super::networks::{self, NetworkPlan};
use super::plan::{POCKET, SamplerPlan};
use super::prompts::Prompts;
use super::reader::Reader;
use super::services::{self, CachePlan, CommandPlan, EncoderPlan, VlmPlan};
use crate::failure::Result;

/// What an image is worth, ready to be made.
#[derive(Debug, Clone)]
pub struct RewardPlan {
    /// Which reward.
    pub kind: RewardKind,
    /// Threads that score images.
    pub threads: usize,
    /// Where scores of whoever is asked are remembered.
    pub cache: Option<CachePlan>,
}

/// `reward.kind`, with what only that kind needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RewardKind {
    /// Minus the JPEG size in kB.
    #[default]
    JpegCompressibility,
    /// The JPEG size in kB.
    JpegIncompressibility,
    /// Hasler and Süsstrunk 2003.
    Colourfulness,
    /// LAION's score.
    Aesthetic(NetworkPlan, Rescaling),
    /// What people would prefer.
    ImageReward(NetworkPlan),
    /// The pocket world's reward judge.
    Judge,
    /// How many, and which animal.
    VlmCounting(VlmPlan),
    /// BERTScore recall of the prompt in a description.
    VlmBertScore(VlmPlan, Wording, EncoderPlan),
    /// Questions whose answers must contain what is expected.
    VlmVqa(VlmPlan, Vec<Question>),
    /// What a program says.
    Command(CommandPlan),
    /// A weighted sum.
    Composite {
        /// Kinds and what they count.
        parts: Vec<(RewardKind, f64)>,
        /// Each part is normalised by its own statistics before it is added.
        normalise: bool,
    },
}

impl RewardKind {
    /// Names in configurations and for `ddpo score --reward`.
    pub const NAMES: [&'static str; 11] = [
        "jpeg-compressibility",
        "jpeg-incompressibility",
        "colourfulness",
        Aesthetic::NAME,
        ImageRewardScore::NAME,
        JudgeReward::NAME,
        VlmBertScore::NAME,
        Vqa::COUNTING,
        Vqa::OF_EVERY_PROMPT,
        CommandReward::NAME,
        Composite::NAME,
    ];

    /// Those that sampling can follow, by name.
    pub const WITH_GRADIENT: [&'static str; 3] =
        ["colourfulness", Aesthetic::NAME, JudgeReward::NAME];

    /// Whether sampling can follow it.
    pub fn has_gradient(&self) -> bool {
        Self::WITH_GRADIENT.contains(&self.name())
    }

    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        match self {
            Self::JpegCompressibility => "jpeg-compressibility",
            Self::JpegIncompressibility => "jpeg-incompressibility",
            Self::Colourfulness => "colourfulness",
            Self::Aesthetic(..) => Aesthetic::NAME,
            Self::ImageReward(_) => ImageRewardScore::NAME,
            Self::Judge => JudgeReward::NAME,
            Self::VlmBertScore(..) => VlmBertScore::NAME,
            Self::VlmCounting(_) => Vqa::COUNTING,
            Self::VlmVqa(..) => Vqa::OF_EVERY_PROMPT,
            Self::Command(_) => CommandReward::NAME,
            Self::Composite { .. } => Composite::NAME,
        }
    }

    /// The key of the weights of the kind of that name, for `ddpo score --model`.
    ///
    /// The error says which kinds have one.
    pub fn weights_key(name: &str) -> std::result::Result<&'static str, String> {
        const KEYS: [(&str, &str); 3] = [
            (Aesthetic::NAME, "reward.weights.aesthetic"),
            (ImageRewardScore::NAME, "reward.weights.image_reward"),
            (VlmBertScore::NAME, "reward.vlm.encoder"),
        ];
        let found = KEYS.into_iter().find(|(kind, _)| *kind == name);
        found.map(|(_, key)| key).ok_or_else(|| {
            let with = KEYS.map(|(kind, _)| kind).join(", ");
            format!("--model names weights of {with}; {name} reads none by that")
        })
    }

    /// Reads the keys of the kind of that name.
    pub(super) fn read(r: &mut Reader, name: &str) -> Self {
        match name {
            "jpeg-incompressibility" => Self::JpegIncompressibility,
            "colourfulness" => Self::Colourfulness,
            Aesthetic::NAME => {
                let (network, rescaling) = networks::aesthetic(r);
                Self::Aesthetic(network, rescaling)
            }
            ImageRewardScore::NAME => Self::ImageReward(networks::image_reward(r)),
            JudgeReward::NAME => Self::Judge,
            VlmBertScore::NAME => {
                Self::VlmBertScore(services::vlm(r), services::wording(r), services::encoder(r))
            }
            Vqa::COUNTING => Self::VlmCounting(services::vlm(r)),
            Vqa::OF_EVERY_PROMPT => Self::VlmVqa(services::vlm(r), services::questions(r)),
            CommandReward::NAME => Self::Command(services::command(r)),
            Composite::NAME => Self::Composite {
                parts: services::parts(r, &Self::NAMES),
                normalise: r.get("reward.normalise_parts"),
            },
            _ => Self::JpegCompressibility,
        }
    }

    /// The kind and, of a sum, its parts.
    fn leaves(&self) -> Vec<&Self> {
        match self {
            Self::Composite { parts, .. } => parts.iter().map(|(kind, _)| kind).collect(),
            kind => vec![kind],
        }
    }

    /// Whether somebody else is asked about images: answers are kept, and cost something.
    pub fn has_answers(&self) -> bool {
        let has_answers = |kind: &&Self| kind.vlm().is_some() || matches!(kind, Self::Command(_));
        self.leaves().iter().any(has_answers)
    }

    /// Whether images are looked at by a network here: libtorch has threads of its own.
    pub fn computes(&self) -> bool {
        let looks = |kind: &&Self| {
            matches!(
                kind,
                Self::Aesthetic(..) | Self::ImageReward(_) | Self::Judge
            )
        };
        self.leaves().iter().any(looks)
    }

    /// The chat server that is asked.
    pub fn vlm(&self) -> Option<&VlmPlan> {
        self.leaves().into_iter().find_map(|kind| match kind {
            Self::VlmBertScore(vlm, ..) | Self::VlmCounting(vlm) | Self::VlmVqa(vlm, _) => {
                Some(vlm)
            }
            _ => None,
        })
    }

    /// What compares texts.
    pub fn encoder(&self) -> Option<&EncoderPlan> {
        self.leaves().into_iter().find_map(|kind| match kind {
            Self::VlmBertScore(_, _, encoder) => Some(encoder),
            _ => None,
        })
    }
}

impl RewardPlan {
    /// Reads `[reward]`.
    pub(super) fn read(r: &mut Reader) -> Self {
        let name = r.choice("reward.kind", &RewardKind::NAMES.map(|name| (name, name)));
        let kind = RewardKind::read(r, name);
        Self {
            cache: if kind.has_answers() {
                services::cache(r)
            } else {
                None
            },
            kind,
            threads: r.count("reward.threads") as usize,
        }
    }

    /// Notes prompts that the reward cannot be asked about, which the highest of some keys names.
    pub(super) fn check_prompts(&self, r: &mut Reader, keys: &[&'static str], set: &Prompts) {
        let prompts = set.prompts();
        for kind in self.kind.leaves() {
            let bad = match kind {
                RewardKind::VlmCounting(_) => prompts
                    .iter()
                    .find_map(|p| counting_questions(p).err())
                    .map(|error| format!("vlm-counting cannot count: {error}")),
                RewardKind::Judge => JudgeReward::check(prompts)
                    .err()
                    .map(|error| format!("judge cannot judge: {error}")),
                _ => None,
            };
            if let (Some(error), Some(key)) = (bad, r.highest(keys)) {
                r.problem(key, format!("has {}, whose prompts {error}", set.name()));
            }
        }
    }

    /// Notes a model whose images the judge cannot look at, and prompts whose images a report cannot score.
    pub(super) fn check_judge(&self, r: &mut Reader, model: &str, progress: &[String]) {
        if !self.kind.leaves().contains(&&RewardKind::Judge) {
            return;
        }
        if model != POCKET {
            let problem = format!(
                "is \"{model}\": the reward judge knows drawings of 64x64 pixels and nothing else, expected \
                 \"{POCKET}\", or another reward.kind"
            );
            r.problem("model.path", problem);
        }
        if let Err(error) = JudgeReward::check(&numbered(progress.iter().cloned())) {
            let problem = format!("has a prompt that judge cannot judge: {error}");
            r.problem("progress.prompts", problem);
        }
    }

    /// Notes images of a size that the judge does not know.
    pub(super) fn check_size(&self, r: &mut Reader, sampler: &SamplerPlan) {
        if !self.kind.leaves().contains(&&RewardKind::Judge) {
            return;
        }
        for (key, size) in [("height", sampler.height), ("width", sampler.width)] {
            if let Some(size) = size.filter(|&size| size != SCENE_SIDE as u64) {
                let problem = format!(
                    "is {size}: the reward judge knows drawings of 64x64 pixels and nothing else, expected 64, or \
                     another reward.kind"
                );
                r.problem(&format!("sampler.{key}"), problem);
            }
        }
    }

    /// How long a reward that fails for now is asked again from outside; chat servers are by their client.
    pub fn retry(&self) -> Retry {
        let leaves = self.kind.leaves();
        let deadline = leaves.into_iter().find_map(|kind| match kind {
            RewardKind::Command(plan) => Some(plan.retry),
            _ => None,
        });
        deadline.map_or(Retry::never(), |deadline| Retry {
            deadline,
            pause: Duration::from_millis(100),
        })
    }

    /// What each part of a sum counts, where each is normalised by itself.
    pub fn normalised_parts(&self) -> Option<Vec<f64>> {
        match &self.kind {
            RewardKind::Composite {
                parts,
                normalise: true,
            } => Some(parts.iter().map(|(_, weight)| *weight).collect()),
            _ => None,
        }
    }

    /// A reward by itself, without a run: its kind and `reward.…=VALUE` pairs.
    pub fn alone(kind: &str, set: &[String]) -> Result<Self> {
        let mut reader = Reader::new(reward_layers(kind, set)?).within("reward.");
        let plan = Self::read(&mut reader);
        reader.finish()?;
        Ok(plan)
    }

    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }
}
