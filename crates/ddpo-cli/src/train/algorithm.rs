//! The algorithm that a plan names, with the plan's numbers.

use ddpo_guidance::{UniversalGuidance, UniversalGuide};
use ddpo_rl::Ddpo;
use ddpo_rwr::Rwr;
use ddpo_sched::{NoiseSchedule, Sampler, ScheduleConfig};
use ddpo_train::AdamWConfig;

use crate::config::{Method, Plan, ddpo_config, rwr_config};
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
