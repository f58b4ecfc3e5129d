//! Files that several stages share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ddpo_model::{Files, Named, StableDiffusion, Vae};
use ddpo_pocket::pretrain::codec::PatchCodec;
use ddpo_pocket::shape;
use ddpo_torch::{Store, weights};
use tch::{Device, Kind, Tensor};

use crate::args::Args;

/// The codec's file among the assets: training that starts from the assets must use the same latents.
pub const CODEC: &str = "pretrain/codec.safetensors";

/// The trained VAE: the computed encoder and the averaged decoder; if the work folder has none, that of the assets
/// which training starts from.
pub fn trained_vae(args: &Args) -> Result<Named<Vae>> {
    let decoder = args.work.join("decoder.safetensors");
    if let (None, Some(from)) = (existing(&decoder), &args.from) {
        let folder = from.join("model");
        eprintln!("VAE: taken from {}", folder.display());
        let whole = StableDiffusion::load(&Files::Folder(folder), Device::Cpu, Kind::Float)?;
        return Ok(whole.images.vae);
    }
    let config = shape::vae();
    let store = Store::random(0, Device::Cpu, Kind::Float);
    let net = Vae::new(&store.root(), &config)?;
    let mut tensors = store.finish()?;
    average_of(&decoder, "", &tensors)?;
    PatchCodec::load(&args.work.join("codec.safetensors"))?.write(&mut tensors, &config);
    Ok(Named { net, tensors })
}

/// Copies the averaged weights of a checkpoint, whose names start with `part`, into tensors of a model;
/// returns how many there were.
pub fn average_of(
    checkpoint: &Path,
    part: &str,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<usize> {
    let file = weights::read_all(checkpoint)?;
    let _guard = tch::no_grad_guard();
    let prefix = format!("average/{part}");
    let ours = file
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)));
    let mut n = 0;
    for (name, tensor) in ours {
        n += 1;
        let target = tensors.get(name).with_context(|| {
            format!("{}: no tensor `{name}` in the model", checkpoint.display())
        })?;
        anyhow::ensure!(
            target.size() == tensor.size(),
            "{}: tensor `{name}` has shape {:?}, the model {:?}; delete the file and train again",
            checkpoint.display(),
            tensor.size(),
            target.size()
        );
        target.shallow_clone().copy_(tensor);
    }
    Ok(n)
}

/// `path`, if there is such a file.
pub fn existing(path: &Path) -> Option<&Path> {
    path.exists().then_some(path)
}

/// The folder that the crate embeds, unless another was named.
pub fn assets(args: &Args) -> Result<PathBuf> {
    args.assets
        .clone()
        .context("--assets names the folder to write, usually crates/ddpo-pocket/assets")
}
