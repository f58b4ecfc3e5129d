//! The stage that writes the shipped model: averaged weights, the computed encoder, half precision.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ddpo_clip::ClipTextModel;
use ddpo_model::{Named, StableDiffusion, Unet};
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::judge::{Judge, Role};
use ddpo_pocket::{shape, vocab};
use ddpo_sched::ScheduleConfig;
use ddpo_torch::{Store, weights};
use tch::{Device, Kind, Tensor};

use crate::args::Args;
use crate::files::{CODEC, assets, average_of, trained_vae};

pub fn export(args: &Args) -> Result<()> {
    let assets = assets(args)?;
    let trained = args.work.join("diffusion.safetensors");
    match (trained.exists(), &args.from) {
        (false, Some(from)) => eprintln!(
            "export: no {}; the model stays that of {}",
            trained.display(),
            from.display()
        ),
        _ => export_model(args, &trained, &assets)?,
    }
    export_judges(args, &assets)
}

fn export_model(args: &Args, trained: &Path, assets: &Path) -> Result<()> {
    let store = Store::random(0, Device::Cpu, Kind::Float);
    let net = Unet::new(&store.root(), &shape::unet())?;
    let unet = Named {
        net,
        tensors: store.finish()?,
    };
    let store = Store::random(0, Device::Cpu, Kind::Float);
    let text_config = shape::text();
    let net = ClipTextModel::new(&store.root(), &text_config)?;
    let text = Named {
        net,
        tensors: store.finish()?,
    };
    let copied = average_of(trained, "unet.", &unet.tensors)?
        + average_of(trained, "text_encoder.", &text.tensors)?;
    let expected = unet.tensors.len() + text.tensors.len();
    ensure!(
        copied == expected,
        "{} has {copied} tensors of the model, not {expected}",
        trained.display()
    );
    let files = vocab::tokenizer_files()
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect();
    let schedule = ScheduleConfig::sd_v1_4();
    let model =
        StableDiffusion::assemble(unet, trained_vae(args)?, text, text_config, files, schedule)?;
    model.save(&assets.join("model"), Kind::Half)?;
    let codec = assets.join(CODEC);
    std::fs::create_dir_all(assets.join("pretrain"))?;
    std::fs::copy(args.work.join("codec.safetensors"), &codec)
        .with_context(|| format!("cannot write {}", codec.display()))?;
    Ok(())
}

fn export_judges(args: &Args, assets: &Path) -> Result<()> {
    let pack = Pack::embedded()?;
    for role in [Role::Reward, Role::HeldOut] {
        let trained = args.work.join(format!("judge-{}.safetensors", role.name()));
        if trained.exists() {
            export_judge(&trained, role, &pack, &assets.join("judges"))?;
        } else {
            eprintln!(
                "export: no {} yet; train it and export again",
                trained.display()
            );
        }
    }
    Ok(())
}

fn export_judge(trained: &Path, role: Role, pack: &Pack, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let config = role.config(pack);
    let store = Store::random(0, Device::Cpu, Kind::Float);
    let _judge = Judge::new(&store.root(), &config);
    let tensors = store.finish()?;
    let copied = average_of(trained, "", &tensors)?;
    ensure!(
        copied == tensors.len(),
        "{} has {copied} tensors of the judge, not {}",
        trained.display(),
        tensors.len()
    );
    let half: Vec<(String, Tensor)> = tensors
        .iter()
        .map(|(n, t)| (n.clone(), t.to_kind(Kind::Half)))
        .collect();
    weights::save(
        &folder.join(format!("{}.safetensors", role.name())),
        half.iter().map(|(n, t)| (n.as_str(), t)),
    )?;
    let json = serde_json::to_string_pretty(&config)? + "\n";
    std::fs::write(folder.join(format!("{}.json", role.name())), json)?;
    Ok(())
}
