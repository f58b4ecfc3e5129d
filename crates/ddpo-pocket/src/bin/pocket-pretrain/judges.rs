//! The stages that train the judges.

use anyhow::Result;
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::judge::Role;
use ddpo_pocket::pretrain::judges::{Blurred, JudgePlan, JudgeTraining};
use ddpo_pocket::rates::{Drawings, JudgeRates};
use ddpo_pocket::scene::Composer;
use ddpo_torch::weights;

use crate::Args;
use crate::stages::{Log, existing, trained_vae};

/// Scenes sent through the VAE once before training.
const BLURRED: u64 = 12_000;

pub fn train(args: &Args, role: Role) -> Result<()> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, role.mixture())?;
    let vae = trained_vae(args)?;
    let seed = match role {
        Role::Reward => 20,
        Role::HeldOut => 30,
    };
    let mut plan = JudgePlan {
        seed,
        ..JudgePlan::default()
    };
    plan.samples = args.samples.unwrap_or(plan.samples);
    let path = args.work.join(format!("judge-{}.safetensors", role.name()));
    let mut log = Log::new(role.name(), args);
    let kept = args
        .work
        .join(format!("blurred-{}.safetensors", role.name()));
    let blurred = Blurred::new(&composer, &vae.net, seed + 1, BLURRED, &kept)?;
    log.line("scenes blurred");
    let mut training = JudgeTraining::new(
        plan,
        &composer,
        &blurred,
        &role.config(&pack),
        existing(&path),
    )?;
    if let (None, Some(from)) = (existing(&path), &args.from) {
        let file = from.join(format!("judges/{}.safetensors", role.name()));
        match existing(&file) {
            Some(file) => {
                let lacking = training.start_from(&weights::read_all(file)?, file)?;
                log.line(&format!(
                    "starts from {}, random: {lacking:?}",
                    file.display()
                ));
            }
            None => log.line("starts from nothing: no earlier judge among the assets"),
        }
    }
    let rates = |training: &mut JudgeTraining<'_>| -> Result<String> {
        let mut text =
            String::from("entity, active, counted | activity, none | count, one | tint, place:");
        for drawings in [Drawings::Own, Drawings::Others] {
            let r = training
                .with_average(|judge| JudgeRates::of(judge, role, drawings, None, &pack, 200))?;
            text += &format!(
                " {drawings:?} {:.2} {:.2} {:.2} | {:.2} {:.2} | {:.2} {:.2} | {:.2} {:.2};",
                r.entity.first,
                r.entity_active.first,
                r.entity_counted.first,
                r.activity.first,
                r.no_activity.first,
                r.count.first,
                r.one.first,
                r.tint.first,
                r.place.first
            );
        }
        Ok(text)
    };
    training.run(&mut |training, progress| {
        if log.tick(progress) {
            training.save(&path)?;
            let text = rates(training).unwrap_or_else(|e| e.to_string());
            log.line(&text);
        }
        Ok(true)
    })?;
    training.save(&path)?;
    let text = rates(&mut training)?;
    log.line(&format!("done; {text}"));
    Ok(())
}
