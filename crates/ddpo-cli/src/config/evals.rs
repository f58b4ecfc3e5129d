//! `[eval]`: what the policy is measured on, and by what beside its reward.

use ddpo_encoder::Rescaling;
use ddpo_eval::hacking_onset::OnsetRule;
use ddpo_pocket::content::PromptReader;
use ddpo_pocket::judge::Role;
use ddpo_pocket::scene::SCENE_SIDE;
use ddpo_reward::Aesthetic;
use ddpo_reward::prompts::PromptSet;

use super::networks::{self, NetworkPlan};
use super::plan::{POCKET, SamplerPlan};
use super::prompts::{self, Prompts};
use super::reader::Reader;
use crate::suggest::nearest;

/// `[eval]`.
#[derive(Debug, Clone)]
pub struct EvalPlan {
    /// Prompts, each under its name; none for no evaluation.
    pub sets: Vec<Prompts>,
    /// Images of each set.
    pub samples: usize,
    /// Evaluated every so many epochs, and at the first and last.
    pub every: u64,
    /// What is measured of the images beside the reward.
    pub panel: Vec<Measure>,
    /// What [`Measure::Aesthetic`] needs, where the panel has it.
    pub aesthetic: Option<(NetworkPlan, Rescaling)>,
    /// When reward and judge have parted.
    pub stop_rule: Option<StopRule>,
    /// Why a part of the panel that was asked for is not there.
    pub left_out: Option<String>,
}

/// Something that is measured of an image and that training never sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The file's size as the JPEG rewards make it, in kB.
    JpegSize,
    /// Colourfulness.
    Colourfulness,
    /// LAION's score, with the weights of the reward of that name.
    Aesthetic,
    /// Steps between neighbouring pixels.
    Edges,
    /// Distance to the other images of the evaluation.
    Diversity,
    /// Log-probability of what the prompt says, by the judge that only measures.
    HeldOutJudge,
    /// Whether that judge names first what the prompt names.
    HeldOutFirst,
}

/// How it is told that a policy was trained too far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopRule {
    /// The measure that should not fall.
    pub judge: Measure,
    /// How many standard errors of the paired difference make a change.
    pub standard_errors: f64,
}

impl StopRule {
    /// Over the evaluations of one set.
    pub fn on<'a>(&self, set: &'a Prompts) -> OnsetRule<'a> {
        OnsetRule {
            set: set.name(),
            judge: self.judge.name(),
            standard_errors: self.standard_errors,
        }
    }
}

impl Measure {
    /// Names in configurations and columns of `eval.csv`.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("jpeg-size", Self::JpegSize),
        ("colourfulness", Self::Colourfulness),
        (Aesthetic::NAME, Self::Aesthetic),
        ("edges", Self::Edges),
        ("diversity", Self::Diversity),
        ("held-out-judge", Self::HeldOutJudge),
        ("held-out-first", Self::HeldOutFirst),
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::JpegSize => "jpeg-size",
            Self::Colourfulness => "colourfulness",
            Self::Aesthetic => Aesthetic::NAME,
            Self::Edges => "edges",
            Self::Diversity => "diversity",
            Self::HeldOutJudge => "held-out-judge",
            Self::HeldOutFirst => "held-out-first",
        }
    }

    /// Quantity and unit, for figures.
    pub fn label(self) -> &'static str {
        match self {
            Self::JpegSize => "JPEG size (kB)",
            Self::Colourfulness => "colourfulness",
            Self::Aesthetic => "LAION aesthetic score (1 to 10)",
            Self::Edges => "step between neighbours (of 255)",
            Self::Diversity => "distance to other images (of 255)",
            Self::HeldOutJudge => "held-out judge (nats)",
            Self::HeldOutFirst => "named first by the held-out judge",
        }
    }

    /// The measure of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, measure)| *measure)
    }

    /// Whether the held-out judge is asked.
    pub fn is_judged(self) -> bool {
        matches!(self, Self::HeldOutJudge | Self::HeldOutFirst)
    }
}

/// Keys of which the highest counts.
pub(super) const SOURCES: [&str; 2] = ["eval.sets", "eval.file"];

/// What a policy that draws from `drawn` is measured on.
///
/// Whoever brings prompts of their own is told about these: sets that were named below them, as by a preset, are not
/// what was meant.
fn sets(r: &mut Reader, drawn: &Prompts) -> Vec<Prompts> {
    let key = r.highest(&SOURCES);
    let own = prompts::height(r, drawn);
    if key == Some("eval.file") {
        return vec![prompts::file(r, "eval.file", "eval.sha256")];
    }
    if own.is_some() && r.height("eval.sets") < own {
        return vec![drawn.clone()];
    }
    let known = PromptSet::ALL.map(PromptSet::name);
    let sets = names(r, "eval.sets", "prompt set", PromptSet::by_name, &known);
    sets.into_iter().map(Prompts::from).collect()
}

pub(super) fn eval(r: &mut Reader, drawn: &Prompts) -> EvalPlan {
    let sets = sets(r, drawn);
    let known = Measure::NAMES.map(|(name, _)| name);
    let panel = names(r, "eval.panel", "measure", Measure::by_name, &known);
    let standard_errors = r.number("eval.stop_rule.standard_errors");
    let judge = r.choice("eval.stop_rule.judge", &Measure::NAMES);
    // Without a panel there is nothing to tell it by, and nothing is told.
    let stop_rule = panel.contains(&judge).then_some(StopRule {
        judge,
        standard_errors,
    });
    if stop_rule.is_none() && !panel.is_empty() {
        let problem = format!("is \"{}\", which is not in eval.panel", judge.name());
        r.problem("eval.stop_rule.judge", problem);
    }
    EvalPlan {
        aesthetic: panel
            .contains(&Measure::Aesthetic)
            .then(|| networks::aesthetic(r)),
        sets,
        samples: r.count("eval.samples") as usize,
        every: r.count("eval.every"),
        panel,
        stop_rule,
        left_out: None,
    }
}

/// A list of names, each of which must be known.
fn names<T>(
    r: &mut Reader,
    key: &str,
    what: &str,
    by_name: fn(&str) -> Option<T>,
    known: &[&str],
) -> Vec<T> {
    let given: Vec<String> = r.get(key);
    let mut found = Vec::new();
    for name in given {
        match by_name(&name) {
            Some(it) => found.push(it),
            None => {
                let hint = match nearest(&name, known.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("expected some of {}", known.join(", ")),
                };
                r.problem(key, format!("has \"{name}\", which is no {what}: {hint}"));
            }
        }
    }
    found
}

impl EvalPlan {
    /// Leaves the held-out judge out of the panel where it cannot look at the images, and notes why: a configuration
    /// that runs on the pocket model runs on others too.
    pub(super) fn for_model(mut self, model: &str, sampler: &SamplerPlan) -> Self {
        if !self.panel.iter().any(|measure| measure.is_judged()) {
            return self;
        }
        let Some(reason) = self.unjudged(model, sampler) else {
            return self;
        };
        self.panel.retain(|measure| !measure.is_judged());
        self.stop_rule = self.stop_rule.filter(|rule| !rule.judge.is_judged());
        self.left_out = Some(format!("the held-out judge does not measure: {reason}"));
        self
    }

    fn unjudged(&self, model: &str, sampler: &SamplerPlan) -> Option<String> {
        if model != POCKET {
            return Some(format!(
                "it knows the drawings of the model \"{POCKET}\", and `model.path` is \"{model}\""
            ));
        }
        let sides = [("height", sampler.height), ("width", sampler.width)];
        for (key, size) in sides {
            if let Some(size) = size.filter(|&size| size != SCENE_SIDE as u64) {
                return Some(format!(
                    "it knows drawings of 64x64 pixels, and `sampler.{key}` is {size}"
                ));
            }
        }
        let questions = match PromptReader::new(Role::HeldOut) {
            Ok(questions) => questions,
            Err(error) => return Some(error.to_string()),
        };
        self.sets.iter().find_map(|set| {
            let mut bad = set
                .prompts()
                .iter()
                .filter_map(|prompt| questions.read(&prompt.text).err());
            let error = bad.next()?;
            Some(format!("of `{}`, {error}", set.name()))
        })
    }
}
