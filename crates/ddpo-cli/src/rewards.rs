//! Rewards by name: a closed list for files, traits for people.

use ddpo_reward::{Colourfulness, JpegCompressibility, JpegIncompressibility, Reward, RewardInfo};

use crate::config::{RewardKind, RewardPlan};
use crate::failure::{Exit, OrExit, Result};

/// One reward for each of the plan's threads.
pub fn copies(plan: &RewardPlan) -> Result<Vec<Box<dyn Reward>>> {
    (0..plan.threads).map(|_| make(&plan.kind)).collect()
}

/// A reward ready to score.
pub fn make(kind: &RewardKind) -> Result<Box<dyn Reward>> {
    let doing = "cannot start the JPEG encoder";
    Ok(match kind {
        RewardKind::JpegCompressibility => {
            Box::new(JpegCompressibility::new().or_exit(Exit::Reward, doing)?)
        }
        RewardKind::JpegIncompressibility => {
            Box::new(JpegIncompressibility::new().or_exit(Exit::Reward, doing)?)
        }
        RewardKind::Colourfulness => Box::new(Colourfulness),
    })
}

/// The reward of that name if it needs neither weights nor a service.
pub fn at_hand(name: &str) -> Result<Option<Box<dyn Reward>>> {
    let kind = match name {
        JpegCompressibility::NAME => RewardKind::JpegCompressibility,
        JpegIncompressibility::NAME => RewardKind::JpegIncompressibility,
        Colourfulness::NAME => RewardKind::Colourfulness,
        _ => return Ok(None),
    };
    make(&kind).map(Some)
}

/// What the reward of that name measures, for figures and tables; nothing is started for it.
pub fn info(name: &str) -> Option<RewardInfo> {
    let (quantity, unit) = match name {
        JpegCompressibility::NAME => ("negative JPEG size", "kB"),
        JpegIncompressibility::NAME => ("JPEG size", "kB"),
        Colourfulness::NAME => ("colourfulness", ""),
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
