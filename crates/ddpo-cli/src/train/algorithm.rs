//! The algorithm that a plan names, with the plan's numbers.

use ddpo_guidance::{UniversalGuidance, UniversalGuide};
use ddpo_rl::{Baseline, Ddpo, DdpoConfig, Estimator};
use ddpo_rwr::{Rwr, RwrConfig};
use ddpo_sched::{NoiseSchedule, Sampler, ScheduleConfig};
use ddpo_train::AdamWConfig;

use crate::config::{Algorithm, BaselineKind, DdpoPlan, Method, Plan, RwrPlan};
use crate::failure::{Exit, Failure, OrExit, Result};

/// What `plan` names, for one process; every number is checked here. `guide` is there where the plan wants one.
pub fn of_plan(
    plan: &Plan,
    sampler: &dyn Sampler,
    schedule: &ScheduleConfig,
    guide: Option<&UniversalGuide>,
) -> Result<Box<dyn ddpo_train::Algorithm>> {
    Ok(match &plan.method {
        Method::Ddpo(ddpo) => {
            let mut ddpo = Ddpo::new(ddpo_config(plan, ddpo), sampler, 1)?;
            if let Some(weights) = plan.reward.normalised_parts() {
                ddpo = ddpo.normalise_parts(&weights);
            }
            Box::new(ddpo)
        }
        Method::Rwr(rwr) => {
            let schedule = NoiseSchedule::new(schedule)
                .or_exit(Exit::Data, "the model's noise schedule cannot be used")?;
            Box::new(Rwr::new(rwr_config(plan, rwr), schedule, 1)?)
        }
        Method::Guidance(numbers) => {
            let guide = guide.ok_or_else(|| Failure::config("universal guidance has no guide"))?;
            Box::new(UniversalGuidance::new(guide, numbers.samples, 1)?)
        }
    })
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

fn rwr_config(plan: &Plan, rwr: &RwrPlan) -> RwrConfig {
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

/// AdamW's numbers of a plan.
pub fn adamw(plan: &Plan) -> AdamWConfig {
    let rl = &plan.rl;
    AdamWConfig {
        lr: rl.lr,
        beta1: rl.beta1,
        beta2: rl.beta2,
        eps: rl.adam_eps,
        weight_decay: rl.weight_decay,
    }
}
