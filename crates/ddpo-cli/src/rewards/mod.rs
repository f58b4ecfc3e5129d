//! Rewards by name: a closed list for files, traits for people.

pub mod networks;
mod similarity;

use ddpo_pocket::content::JudgeReward;
use ddpo_reward::vlm::{Chat, ChatConfig};
use ddpo_reward::{
    Aesthetic, CacheMiss, Cached, Colourfulness, CommandReward, Composite, ImageRewardScore,
    JpegCompressibility, JpegIncompressibility, Reward, RewardInfo, VlmBertScore, Vqa,
    WeightedReward,
};
use tch::Device;

use crate::config::{CachePlan, RewardKind, RewardPlan, VlmPlan};
use crate::failure::{Exit, Failure, OrExit, Result};

use similarity::Encoder;

/// Rewards for the threads that score batches of so many images.
///
/// Requests to a chat server stay in flight while the last answers of a batch are waited for: there are as many
/// threads as it takes for the next batches to fill the gap.
pub fn copies(plan: &RewardPlan, batch: usize) -> Result<Vec<Box<dyn Reward>>> {
    let vlm = plan.kind.vlm();
    let n = vlm.map_or(0, |vlm| vlm.chat.in_flight.div_ceil(batch.max(1)) + 1);
    let maker = Maker {
        chat: vlm.map(chat).transpose()?,
        encoder: plan.kind.encoder().map(Encoder::open).transpose()?,
        cache: plan.cache.as_ref(),
    };
    // A network is in memory once, and libtorch spreads its work over threads by itself.
    let threads = match plan.kind.computes() {
        true => 1,
        false => plan.threads.max(n),
    };
    (0..threads).map(|_| maker.make(&plan.kind)).collect()
}

/// Makes rewards that share a chat server's connections and its limit of requests, and a text encoder.
struct Maker<'a> {
    chat: Option<Chat>,
    encoder: Option<Encoder>,
    cache: Option<&'a CachePlan>,
}

impl Maker<'_> {
    fn make(&self, kind: &RewardKind) -> Result<Box<dyn Reward>> {
        let doing = "cannot start the JPEG encoder";
        let reward: Box<dyn Reward> = match kind {
            RewardKind::JpegCompressibility => {
                Box::new(JpegCompressibility::new().or_exit(Exit::Reward, doing)?)
            }
            RewardKind::JpegIncompressibility => {
                Box::new(JpegIncompressibility::new().or_exit(Exit::Reward, doing)?)
            }
            RewardKind::Colourfulness => Box::new(Colourfulness),
            RewardKind::Aesthetic(plan, rescaling) => networks::aesthetic(plan, *rescaling)?,
            RewardKind::ImageReward(plan) => networks::image_reward(plan)?,
            RewardKind::Judge => Box::new(
                JudgeReward::embedded(Device::Cpu).or_exit(Exit::Data, "the reward judge")?,
            ),
            RewardKind::VlmBertScore(vlm, wording, plan) => {
                let encoder = match &self.encoder {
                    Some(shared) => shared.clone(),
                    None => Encoder::open(plan)?,
                };
                let (chat, encoder) = (self.chat(vlm)?, Box::new(encoder));
                Box::new(VlmBertScore::new(chat, encoder, *wording, vlm.encoding))
            }
            RewardKind::VlmCounting(vlm) => Box::new(Vqa::counting(self.chat(vlm)?, vlm.encoding)),
            RewardKind::VlmVqa(vlm, questions) => {
                let made = Vqa::of_every_prompt(self.chat(vlm)?, vlm.encoding, questions.clone());
                Box::new(made.or_exit(Exit::Config, "`reward.vlm.questions`")?)
            }
            RewardKind::Command(plan) => {
                let made = CommandReward::new(plan.config.clone());
                Box::new(made.or_exit(Exit::Config, "`reward.command`")?)
            }
            RewardKind::Composite { parts, .. } => return self.sum(parts),
        };
        match self.cache {
            Some(cache) if kind.has_answers() => remembered(cache, reward),
            _ => Ok(reward),
        }
    }

    fn sum(&self, parts: &[(RewardKind, f64)]) -> Result<Box<dyn Reward>> {
        let part = |(kind, weight): &(RewardKind, f64)| -> Result<WeightedReward> {
            Ok(WeightedReward {
                reward: self.make(kind)?,
                weight: *weight,
            })
        };
        let parts = parts.iter().map(part).collect::<Result<_>>()?;
        Ok(Box::new(
            Composite::new(parts).or_exit(Exit::Config, "`reward.parts`")?,
        ))
    }

    fn chat(&self, vlm: &VlmPlan) -> Result<Chat> {
        match &self.chat {
            Some(shared) => Ok(shared.clone()),
            None => chat(vlm),
        }
    }
}

/// A client, with its key from the environment.
fn chat(vlm: &VlmPlan) -> Result<Chat> {
    let api_key = match &vlm.api_key_env {
        None => None,
        Some(name) => Some(std::env::var(name).map_err(|_| {
            Failure::config(format!(
                "`reward.vlm.api_key_env` is \"{name}\": no such environment variable is set"
            ))
        })?),
    };
    let config = ChatConfig {
        api_key,
        ..vlm.chat.clone()
    };
    Chat::new(config).or_exit(Exit::Config, "`reward.vlm`")
}

fn remembered(cache: &CachePlan, reward: Box<dyn Reward>) -> Result<Box<dyn Reward>> {
    let missing = match cache.offline {
        true => CacheMiss::Fail,
        false => CacheMiss::Compute,
    };
    let cached = Cached::new(&cache.folder, missing, reward);
    Ok(Box::new(cached.or_exit(Exit::Data, "`reward.cache`")?))
}

/// The reward of that name if it needs neither weights nor a service.
pub fn at_hand(name: &str) -> Result<Option<Box<dyn Reward>>> {
    let kind = match name {
        JpegCompressibility::NAME => RewardKind::JpegCompressibility,
        JpegIncompressibility::NAME => RewardKind::JpegIncompressibility,
        Colourfulness::NAME => RewardKind::Colourfulness,
        JudgeReward::NAME => RewardKind::Judge,
        _ => return Ok(None),
    };
    let maker = Maker {
        chat: None,
        encoder: None,
        cache: None,
    };
    maker.make(&kind).map(Some)
}

/// What the reward of that name measures, for figures and tables; nothing is started for it.
pub fn info(name: &str) -> Option<RewardInfo> {
    let (quantity, unit) = match name {
        JpegCompressibility::NAME => ("negative JPEG size", "kB"),
        JpegIncompressibility::NAME => ("JPEG size", "kB"),
        Colourfulness::NAME => ("colourfulness", ""),
        Aesthetic::NAME => return Some(Aesthetic::quantity()),
        ImageRewardScore::NAME => return Some(ImageRewardScore::quantity()),
        JudgeReward::NAME => return Some(JudgeReward::quantity()),
        VlmBertScore::NAME => return Some(VlmBertScore::quantity()),
        Vqa::COUNTING | Vqa::OF_EVERY_PROMPT => return Some(Vqa::quantity()),
        CommandReward::NAME => return Some(CommandReward::quantity()),
        Composite::NAME => return Some(Composite::quantity()),
        _ => return None,
    };
    Some(RewardInfo {
        quantity: quantity.to_owned(),
        unit: unit.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_says_what_it_measures_as_the_reward_itself_does() {
        for name in RewardKind::NAMES {
            let info = info(name).expect(name);
            if let Some(reward) = at_hand(name).expect(name) {
                assert_eq!((reward.name(), reward.info()), (name, info));
            }
        }
    }
}
