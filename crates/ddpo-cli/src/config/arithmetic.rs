//! Whether a plan's counts fit together: the libraries know, and check them before a model is read.

use ddpo_rl::{Baseline, DdpoConfig, Estimator};
use ddpo_rwr::RwrConfig;
use ddpo_sched::{Ddim, ScheduleConfig};
use ddpo_train::Error;

use super::ddpo::{BaselineKind, DdpoPlan};
use super::keys;
use super::method::{Algorithm, Method};
use super::plan::Plan;
use super::reader::Reader;
use super::rwr::RwrPlan;

/// Notes what the algorithm's library refuses, under the key that says it.
pub(super) fn check(plan: &Plan, r: &mut Reader) {
    let (section, checked) = match &plan.method {
        Method::Ddpo(ddpo) => {
            // Any whose steps all have noise: what the run's own sampler must be is seen at its keys.
            let Ok(sampler) = Ddim::new(&ScheduleConfig::sd_v1_4(), 2, 1.0) else {
                return;
            };
            ("rl", ddpo_config(plan, ddpo).check(&sampler, 1))
        }
        Method::Rwr(rwr) => ("rwr", rwr_config(plan, rwr).check(1)),
        Method::Guidance(_) => return,
    };
    if let Err(Error::Config {
        key,
        actual,
        expected,
    }) = checked
    {
        r.problem(&key_of(section, key), format!("is {actual}: {expected}"));
    }
}

/// The key that a library's number is read from; what algorithms share is in `[rl]`.
fn key_of(section: &str, number: &str) -> String {
    if number == "sample_batch" {
        return "sampler.batch".to_owned();
    }
    let candidates = [section, "rl", "rl.stats"].map(|section| format!("{section}.{number}"));
    let found = candidates.iter().find(|key| keys::by_name(key).is_some());
    found.unwrap_or(&candidates[0]).clone()
}

/// DDPO's numbers of a plan.
pub fn ddpo_config(plan: &Plan, ddpo: &DdpoPlan) -> DdpoConfig {
    let rl = &plan.rl;
    DdpoConfig {
        estimator: match rl.algorithm {
            Algorithm::DdpoSf => Estimator::ScoreFunction,
            _ => Estimator::ImportanceSampling {
                clip_range: ddpo.clip_range,
            },
        },
        samples_per_epoch: ddpo.samples_per_epoch,
        updates_per_epoch: ddpo.updates_per_epoch,
        samples_per_prompt: ddpo.samples_per_prompt,
        shared_noise: ddpo.shared_noise,
        sample_batch: plan.sampler.batch,
        micro_batch: rl.micro_batch,
        baseline: match ddpo.baseline {
            BaselineKind::Prompt => Baseline::PerPrompt {
                buffer_size: ddpo.stats_buffer_size,
                min_count: ddpo.stats_min_count,
            },
            BaselineKind::Batch => Baseline::Batch,
            BaselineKind::Group => Baseline::Group {
                size: ddpo.samples_per_prompt,
            },
        },
        advantage_clip: ddpo.advantage_clip,
        max_grad_norm: rl.max_grad_norm,
        log_prob: ddpo.log_prob,
        kl_weight: ddpo.kl_weight,
        // Without guidance in training, or without guidance at all, see `DdpoConfig::ratio_bound`.
        ratio_bound: (ddpo.train_guidance || plan.sampler.guidance_scale == 1.0)
            .then_some(ddpo.clip_range * ddpo.ratio_bound),
        max_skipped: rl.max_skipped,
    }
}

/// RWR's numbers of a plan.
pub fn rwr_config(plan: &Plan, rwr: &RwrPlan) -> RwrConfig {
    RwrConfig {
        weighting: rwr.weighting,
        scope: rwr.scope,
        samples_per_round: rwr.samples_per_round,
        samples_per_prompt: rwr.samples_per_prompt,
        updates_per_round: rwr.updates_per_round,
        batch: rwr.batch,
        latents: rwr.latents,
        moments: rwr.moments,
        order: rwr.order,
        sample_batch: plan.sampler.batch,
        micro_batch: plan.rl.micro_batch,
        max_grad_norm: plan.rl.max_grad_norm,
        max_skipped: plan.rl.max_skipped,
    }
}
