//! Rewards by name: a closed list for files, traits for people.

use ddpo_reward::{Colourfulness, JpegCompressibility, JpegIncompressibility, Reward};

use crate::config::RewardKind;
use crate::failure::{Exit, OrExit, Result};

/// The reward of that name.
pub fn by_name(name: &str) -> Option<RewardKind> {
    RewardKind::NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, kind)| *kind)
}

/// All names.
pub fn names() -> Vec<&'static str> {
    RewardKind::NAMES.iter().map(|(name, _)| *name).collect()
}

/// A reward ready to score.
pub fn make(kind: RewardKind) -> Result<Box<dyn Reward>> {
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
