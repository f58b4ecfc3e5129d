//! The stages that train the judges.

use anyhow::Result;
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::judge::{HitRate, Role};
use ddpo_pocket::pretrain::batch::compose;
use ddpo_pocket::pretrain::judges::{Blurred, JudgePlan, JudgeTraining};
use ddpo_pocket::scene::{Composer, Mixture, Scene};

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
    let blurred = Blurred::new(&composer, &vae.net, seed + 1, BLURRED);
    log.line("scenes blurred");
    let mut training = JudgeTraining::new(
        plan,
        &composer,
        &blurred,
        &role.config(&pack),
        existing(&path),
    )?;
    let rates = |training: &mut JudgeTraining<'_>| -> Result<String> {
        let own = rate(training, &composer)?;
        let mut others = role.mixture();
        for (weight, all) in others.sets.iter_mut().zip(Mixture::default().sets) {
            *weight = all - *weight;
        }
        let other = rate(training, &Composer::new(&pack, others)?)?;
        Ok(format!(
            "own drawings {:.3} / {:.3}, others {:.3} / {:.3}",
            own.first, own.top_five, other.first, other.top_five
        ))
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

/// How often the judge in training names fresh scenes right, among all entities that scenes are made of.
fn rate(training: &mut JudgeTraining<'_>, composer: &Composer<'_>) -> Result<HitRate> {
    let data = compose(composer, 9_000, 0..500);
    let truth: Vec<usize> = data.scenes.iter().map(Scene::entity).collect();
    let among: Vec<usize> = (0..composer.pack().entities().len()).collect();
    Ok(training
        .with_average(|judge| HitRate::of(&judge.forward(&data.images).entity, &truth, &among)))
}
