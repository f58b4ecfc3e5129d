//! Low-rank adaptation (Hu et al. 2021) of the UNet's attention, in the files that diffusers reads.

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_torch::nn::{Linear, LowRank};
use ddpo_torch::weights::{check_weight, read_all_with_metadata, save_with_metadata};
use ddpo_torch::{Init, Store};
use ddpo_train::{ParamSet, Persist, StateReader};
use serde_json::json;
use tch::{Kind, Tensor};

use crate::{Error, Result, Unet};

mod file;

/// What diffusers' `save_lora_weights` calls its file.
pub const LORA_FILE: &str = "pytorch_lora_weights.safetensors";

/// Shape of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Inner width of every pair of factors.
    pub rank: i64,
    /// The product of the factors is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Which attention projections: the end of a module's name, from a dot on, as peft's `target_modules`.
    pub targets: Vec<String>,
}

impl Default for LoraConfig {
    /// ddpo-pytorch `scripts/train.py`: diffusers 0.17.1's default rank, no scaling, every projection of self-
    /// and cross-attention.
    fn default() -> Self {
        Self {
            rank: 4,
            alpha: 4.0,
            targets: ["to_q", "to_k", "to_v", "to_out.0"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

impl LoraConfig {
    fn check(&self) -> Result<()> {
        let fail = |key: &str, reason| {
            let file = format!("policy.lora.{key}");
            Err(Error::Config { file, reason })
        };
        if self.rank < 1 {
            return fail("rank", format!("is {}, must be at least 1", self.rank));
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return fail("alpha", format!("is {}, must be positive", self.alpha));
        }
        Ok(())
    }

    fn takes(&self, module: &str) -> bool {
        self.targets.iter().any(|target| {
            let rest = module.strip_suffix(target.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

/// The factors of an adapter, shared with the UNet that it was attached to.
///
/// Factors are f32 whatever the kind of the UNet's weights, and record gradients.
#[derive(Debug)]
pub struct Lora {
    config: LoraConfig,
    params: ParamSet,
}

impl Lora {
    /// Attaches fresh factors, which change nothing yet: `down ~ N(0, 1 / rank²)`, `up = 0`
    /// (diffusers 0.17.1, `LoRALinearLayer.__init__`), keyed by `seed` and name. Replaces an adapter before.
    ///
    /// # Errors
    /// [`Error::Config`] for a rank or scale that cannot be, or targets that no projection matches; the UNet is then
    /// as it was.
    pub fn attach(unet: &mut Unet, config: &LoraConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut linears = unet.attention_linears();
        if !linears.iter().any(|(module, _)| config.takes(module)) {
            return Err(Error::Config {
                file: "policy.lora.targets".into(),
                reason: format!(
                    "no attention projection is called {}; there are to_q, to_k, to_v and to_out.0 of attn1 and attn2",
                    config.targets.join(" or ")
                ),
            });
        }
        let mut params = Vec::new();
        for (module, layer) in &mut linears {
            // Also where this adapter has no factors: what is trained and saved is all that acts.
            layer.low_rank = None;
            if !config.takes(module) {
                continue;
            }
            let (n_out, n_in) = layer.weight.size2()?;
            let store = Store::random(seed, layer.weight.device(), Kind::Float);
            let scope = &store.root() / &module;
            let init = Init::Normal(1.0 / config.rank as f64);
            let down = scope.tensor("lora_A.weight", &[config.rank, n_in], init);
            let up = scope.tensor("lora_B.weight", &[n_out, config.rank], Init::Zeros);
            params.extend(adapt(module, layer, down, up, config.scale()));
        }
        Self::trained(config.clone(), params)
    }

    /// Attaches the factors of a file: [`save`](Self::save)'s, diffusers', peft's own, or one that
    /// `save_attn_procs` of diffusers 0.17 wrote; or of the one such file in a folder. Replaces an adapter before.
    ///
    /// Alpha is in the metadata of diffusers' file, and for peft's own (`PeftModel.save_pretrained`) in
    /// `adapter_config.json` beside it. Without metadata it is the rank, as diffusers reads such a file.
    ///
    /// # Errors
    /// [`ddpo_torch::Error::Misfit`] with every factor that is missing, misshapen, not of this UNet, not finite or
    /// of whole numbers, and what the file is damaged for; [`Error::Config`] for a configuration that is not there,
    /// or asks for what is not built. The UNet is then as it was.
    pub fn open(unet: &mut Unet, path: &Path) -> Result<Self> {
        let path = &file::locate(path)?;
        let (mut tensors, texts) = read_all_with_metadata(path)?;
        let settings = file::Settings::find(path, &tensors, &texts)?;
        let file = path.display().to_string();
        let mut found = BTreeMap::new();
        let unfit =
            |(name, tensor): (&String, &Tensor)| check_weight(name, tensor, Kind::Float).err();
        let mut faults: Vec<String> = tensors.iter().filter_map(unfit).collect();
        for (module, layer) in unet.attention_linears() {
            match file::take_pair(&mut tensors, &module, &layer.weight.size()) {
                Ok(Some(pair)) => _ = found.insert(module, pair),
                Ok(None) => {}
                Err(fault) => faults.push(fault),
            }
        }
        let extra = tensors.keys();
        faults.extend(extra.map(|n| {
            format!("`{n}` is in the file, but adapts no attention projection of the UNet")
        }));
        let ranks: Vec<i64> = found.values().map(|(down, _)| down.size()[0]).collect();
        let rank = ranks.first().copied().unwrap_or(0);
        if let Some(other) = ranks.iter().find(|r| **r != rank) {
            faults.push(format!(
                "ranks {rank} and {other} in one file are not supported"
            ));
        }
        if faults.is_empty() && found.is_empty() {
            faults.push("it has no low-rank factors".to_owned());
        }
        if !faults.is_empty() {
            return Err(ddpo_torch::Error::Misfit { file, faults }.into());
        }
        let alpha = match settings {
            Some(settings) => settings.alpha(rank)?,
            None => rank as f64,
        };
        let mut targets: Vec<String> = found.keys().filter_map(|m| projection(m)).collect();
        targets.sort();
        targets.dedup();
        let config = LoraConfig {
            rank,
            alpha,
            targets,
        };
        config.check()?;
        let mut params = Vec::new();
        for (module, layer) in unet.attention_linears() {
            layer.low_rank = None;
            if let Some((down, up)) = found.remove(&module) {
                let device = layer.weight.device();
                let here = |t: Tensor| t.to_device(device).to_kind(Kind::Float);
                params.extend(adapt(&module, layer, here(down), here(up), config.scale()));
            }
        }
        Self::trained(config, params)
    }

    fn trained(config: LoraConfig, params: Vec<(String, Tensor)>) -> Result<Self> {
        let params = ParamSet::new(params)?;
        params.thaw();
        Ok(Self { config, params })
    }

    /// Its shape.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The factors, named `<module>.lora_A.weight` (down, `[rank, in]`) and `<module>.lora_B.weight`
    /// (up, `[out, rank]`).
    pub fn params(&self) -> &ParamSet {
        &self.params
    }

    /// Restores the factors of a checkpoint, in place.
    ///
    /// # Errors
    /// What [`ParamSet`] reports of entries that are missing or do not fit.
    pub fn load(&mut self, from: &StateReader) -> ddpo_train::Result<()> {
        self.params.load(from)
    }

    /// Writes the factors in f32 as a file that diffusers' `load_lora_weights` reads, scale included.
    ///
    /// # Errors
    /// [`ddpo_torch::Error::Io`] with the path.
    pub fn save(&self, path: &Path) -> Result<()> {
        let named: Vec<(String, &Tensor)> = self
            .params
            .iter()
            .map(|(name, tensor)| (format!("unet.{name}"), tensor))
            .collect();
        let metadata = json!({
            "unet.peft_type": "LORA",
            "unet.r": self.config.rank,
            "unet.lora_alpha": self.config.alpha,
            "unet.target_modules": self.config.targets,
        });
        save_with_metadata(
            path,
            named.iter().map(|(name, tensor)| (name.as_str(), *tensor)),
            [(file::METADATA.to_owned(), metadata.to_string())],
        )?;
        Ok(())
    }
}

/// Adds every attached branch to its weight, in place, and takes the branches off.
///
/// The sum is taken in f32 and rounded to the weight's kind once.
pub fn merge(unet: &mut Unet) {
    tch::no_grad(|| {
        for (_, layer) in unet.attention_linears() {
            if layer.low_rank.is_some() {
                let merged = layer.merged().weight;
                layer.weight.copy_(&merged);
                layer.low_rank = None;
            }
        }
    });
}

/// Puts a pair of factors beside a layer; returns them under their names.
fn adapt(
    module: &str,
    layer: &mut Linear,
    down: Tensor,
    up: Tensor,
    scale: f64,
) -> [(String, Tensor); 2] {
    let named = [("A", &down), ("B", &up)]
        .map(|(side, t)| (format!("{module}.lora_{side}.weight"), t.shallow_clone()));
    layer.low_rank = Some(LowRank { down, up, scale });
    named
}

/// What a module's name ends with: `to_q`, `to_k`, `to_v` or `to_out.0`.
fn projection(module: &str) -> Option<String> {
    let place = module.rfind(".to_")?;
    Some(module[place + 1..].to_owned())
}
