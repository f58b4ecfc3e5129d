//! The stages that train the judges.

use anyhow::Result;
use ddpo_pocket::accuracy::{Drawings, JudgeAccuracy};
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::judge::Role;
use ddpo_pocket::pretrain::judges::{JudgePlan, JudgeTraining, Reconstructions};
use ddpo_pocket::scene::Composer;
use ddpo_torch::weights;

use crate::args::Args;
use crate::files::{existing, trained_vae};
use crate::log::Log;

/// Number of scenes reconstructed by the VAE before training.
const N_RECONSTRUCTED: u64 = 12_000;

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
    let cached = args
        .work
        .join(format!("blurred-{}.safetensors", role.name()));
    let reconstructions =
        Reconstructions::new(&composer, &vae.net, seed + 1, N_RECONSTRUCTED, &cached)?;
    log.line("scenes reconstructed");
    let mut training = JudgeTraining::new(
        plan,
        &composer,
        &reconstructions,
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
            None => log.line("starts from random weights: no earlier judge among the assets"),
        }
    }
    let rates = |training: &mut JudgeTraining<'_>| -> Result<String> {
        let mut text =
            String::from("entity, active, counted | activity, none | count, one | tint, place:");
        for drawings in [Drawings::Own, Drawings::Others] {
            let r = training
                .with_average(|judge| JudgeAccuracy::of(judge, role, drawings, None, &pack, 200))?;
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
