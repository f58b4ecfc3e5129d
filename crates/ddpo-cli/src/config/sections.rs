//! Reading each section of a configuration.

use std::time::Duration;

use figment::value::Value;
use tch::Device;

use super::method::Algorithm;
use super::plan::{
    ClaimRow, DTYPES, ModelPlan, ModelSource, POCKET, PolicyPlan, ProgressPlan, ReproducePlan,
    RlPlan, RunPlan, SamplerPlan, Train,
};
use super::prompts::{self, Prompts};
use super::reader::{Reader, expected};
use crate::suggest::{instead, nearest};

/// A resolved configuration names its variant, and has the sections of none.
pub(super) fn variant(r: &mut Reader) -> Option<String> {
    let variant: String = r.find("variant")?;
    let known = r.tables("variants");
    if !known.is_empty() && !known.contains(&variant) {
        let hint = match nearest(&variant, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("expected one of {}", known.join(", ")),
        };
        r.problem(
            "variant",
            format!("is \"{variant}\", which is no variant: {hint}"),
        );
    }
    Some(variant)
}

pub(super) fn run(r: &mut Reader, algorithm: Algorithm) -> RunPlan {
    RunPlan {
        epochs: match algorithm {
            // Nothing changes from one epoch to the next.
            Algorithm::UniversalGuidance => 1,
            _ => r.count("run.epochs"),
        },
        seed: r.count("run.seed"),
        threads: r.count("run.threads") as usize,
        max_time: duration(r, "run.max_time"),
        checkpoint_every: r.count("run.checkpoint_every"),
        keep_checkpoints: r.count("run.keep_checkpoints") as usize,
    }
}

/// Seconds as a number, or a number with its unit; none for 0 and for what is no duration.
pub(super) fn duration(r: &mut Reader, key: &str) -> Option<Duration> {
    let value: Value = r.find(key)?;
    let seconds = match value.as_str() {
        Some(text) => parse_seconds(text),
        None => value.deserialize::<f64>().ok(),
    };
    match seconds.map(Duration::try_from_secs_f64) {
        Some(Ok(Duration::ZERO)) => None,
        Some(Ok(time)) => Some(time),
        _ => {
            r.problem(key, format!("is no duration: expected {}", expected(key)));
            None
        }
    }
}

fn parse_seconds(text: &str) -> Option<f64> {
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1.0));
    digits
        .trim()
        .parse::<f64>()
        .ok()
        .map(|number| number * factor)
}

/// A folder may be beside the configuration; `pocket` is never one.
fn path(r: &mut Reader) -> String {
    let key = "model.path";
    let path: String = r.get(key);
    if path == POCKET {
        return path;
    }
    let path = r.beside(key, &path);
    r.replace(key, path.clone());
    path
}

/// `on_paper`: nothing is computed, so that the device need not be there.
pub(super) fn model(r: &mut Reader, on_paper: bool) -> ModelPlan {
    let name: String = r.get("model.device");
    let found = match on_paper {
        true => ddpo_torch::parse_device(&name),
        false => ddpo_torch::device(&name),
    };
    let device = found.unwrap_or_else(|error| {
        if !name.is_empty() {
            r.problem("model.device", format!("is \"{name}\": {error}"));
        }
        Device::Cpu
    });
    let source = ModelSource {
        path: path(r),
        revision: r.find("model.revision"),
    };
    ModelPlan {
        source,
        device,
        dtype: r.choice("model.dtype", &DTYPES),
        tf32: r.get("model.tf32"),
        vae_slice: r.count("model.vae_slice") as usize,
    }
}

pub(super) fn policy(r: &mut Reader) -> PolicyPlan {
    let is_lora = r.choice("policy.train", &[("full", false), ("lora", true)]);
    let rank = r.count("policy.lora.rank");
    let alpha = r.number("policy.lora.alpha");
    let targets: Vec<String> = r.get("policy.lora.targets");
    PolicyPlan {
        train: match is_lora {
            true => Train::Lora {
                rank,
                alpha,
                targets,
            },
            false => Train::Full,
        },
        checkpointing: r.get("policy.checkpointing"),
    }
}

pub(super) fn sampler(r: &mut Reader) -> SamplerPlan {
    let eta = r.number("sampler.eta");
    if eta == 0.0 {
        r.problem(
            "sampler.eta",
            "is 0: a deterministic step has no log-probability, expected above 0",
        );
    }
    SamplerPlan {
        n_steps: r.count("sampler.n_steps") as usize,
        eta,
        guidance_scale: r.number("sampler.guidance_scale"),
        batch: r.count("sampler.batch") as usize,
        height: r.find_count("sampler.height"),
        width: r.find_count("sampler.width"),
    }
}

pub(super) fn rl(r: &mut Reader) -> RlPlan {
    RlPlan {
        algorithm: r.choice("rl.algorithm", &Algorithm::NAMES),
        lr: r.number("rl.lr"),
        beta1: r.number("rl.beta1"),
        beta2: r.number("rl.beta2"),
        adam_eps: r.number("rl.adam_eps"),
        weight_decay: r.number("rl.weight_decay"),
        max_grad_norm: r.number("rl.max_grad_norm"),
        micro_batch: r.count("rl.micro_batch") as usize,
        max_skipped: r.count("rl.max_skipped") as u32,
    }
}

/// How many prompts of one's own are drawn through training.
const SHOWN: usize = 8;

/// Images through training. As with evaluations, prompts of one's own replace those named below them.
pub(super) fn progress(r: &mut Reader, drawn: &Prompts) -> ProgressPlan {
    let (key, own) = ("progress.prompts", prompts::height(r, drawn));
    let prompts = match own.is_some() && r.height(key) < own {
        true => {
            let mut first: Vec<String> = Vec::new();
            for prompt in drawn.prompts() {
                if first.len() < SHOWN && !first.contains(&prompt.text) {
                    first.push(prompt.text.clone());
                }
            }
            r.derive(key, first.clone(), "the first of the run's own prompts");
            first
        }
        false => r.get(key),
    };
    ProgressPlan {
        prompts,
        every: r.count("progress.every"),
    }
}

/// Keys that only reports use; they read them from the run's folder.
pub(super) fn for_reports(r: &mut Reader) {
    let _: String = r.get("title");
    // `[about]` is for lists and reports too, which read it from the file.
    for key in ["paper", "shows", "found", "replaced", "against"] {
        let _: Option<String> = r.find(&format!("about.{key}"));
    }
    let _: Option<f64> = r.find("about.minutes");
}

pub(super) fn reproduce(r: &mut Reader) -> ReproducePlan {
    let plan = ReproducePlan {
        algorithms: r.get("reproduce.algorithms"),
        variants: r.tables("variants"),
        seeds: r.count("reproduce.seeds"),
    };
    claims(r, &plan);
    plan
}

/// Claims are checked against runs, which reports do: here is seen whether there can be such runs.
///
/// A claim on a misspelt algorithm would never be checked. All rows in one message would fill a screen: each is read
/// by itself.
fn claims(r: &mut Reader, plan: &ReproducePlan) {
    let expected = expected("claims");
    let raw: Vec<Value> = r.find("claims").unwrap_or_default();
    let mut rows = Vec::new();
    for (row, value) in (1..).zip(raw) {
        match value.deserialize::<ClaimRow>() {
            Ok(claim) => rows.push(claim),
            Err(error) => r.problem("claims", format!("row {row}: {error}; expected {expected}")),
        }
    }
    // The configuration that a run writes has no variants, and names them in `reproduce.algorithms`.
    let variants = plan
        .variants
        .iter()
        .chain(&plan.algorithms)
        .map(String::as_str);
    let known: Vec<&str> = variants
        .chain(Algorithm::NAMES.iter().map(|(name, _)| *name))
        .collect();
    for name in rows.iter().flat_map(ClaimRow::names) {
        if !known.contains(&name) {
            let hint = instead(name, &known);
            r.problem("claims", format!("speak of the algorithm `{name}`: {hint}"));
        }
    }
}
