//! Keys of `[reward]` for rewards that networks compute here.

use ddpo_encoder::Rescaling;
use tch::Kind;

use super::plan::DTYPES;
use super::reader::Reader;
use super::services::text;

/// A network and where it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkPlan {
    /// A folder with its files, or a repository of the hub.
    pub weights: String,
    /// Not looked for yet.
    pub device: String,
    /// Of weights and compute.
    pub dtype: Kind,
}

/// `reward.weights.aesthetic` and what else `aesthetic` needs.
pub(super) fn aesthetic(r: &mut Reader) -> (NetworkPlan, Rescaling) {
    let twice = r.get("reward.twice_rescaled");
    let rescaling = match twice {
        true => Rescaling::Twice,
        false => Rescaling::Once,
    };
    (network(r, "reward.weights.aesthetic"), rescaling)
}

/// `reward.weights.image_reward`.
pub(super) fn image_reward(r: &mut Reader) -> NetworkPlan {
    network(r, "reward.weights.image_reward")
}

fn network(r: &mut Reader, key: &str) -> NetworkPlan {
    let weights = text(r, key);
    let weights = r.beside(key, &weights);
    r.replace(key, weights.clone());
    let device: String = r.get("reward.device");
    if let Err(error) = ddpo_torch::parse_device(&device)
        && r.is_set("reward.device")
    {
        r.problem("reward.device", format!("is \"{device}\": {error}"));
    }
    NetworkPlan {
        weights,
        device,
        dtype: r.choice("reward.dtype", &DTYPES),
    }
}
