//! `[reward]`: which reward, and what each kind needs to know.
//!
//! A kind reads its own keys only. The keys of the other kinds may be there too, so that a preset can carry
//! what every reward needs; they are left out of the resolved configuration. What no preset and no experiment
//! says comes from `reward_defaults.toml`.

use super::layers::reward_layer;
use super::reader::Reader;
use crate::failure::Result;

/// What a picture is worth, ready to be made.
#[derive(Debug, Clone)]
pub struct RewardPlan {
    /// Which reward.
    pub kind: RewardKind,
    /// Threads that score pictures.
    pub threads: usize,
}

/// `reward.kind`, with what only that kind needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RewardKind {
    /// Minus the JPEG size in kB.
    #[default]
    JpegCompressibility,
    /// The JPEG size in kB.
    JpegIncompressibility,
    /// Hasler and Süsstrunk 2003.
    Colourfulness,
}

/// Keys below `reward.` that only some kinds read.
const KEYS_OF_KINDS: [&str; 0] = [];

impl RewardKind {
    /// Names in configurations and for `ddpo score --reward`.
    pub const NAMES: [&'static str; 3] = [
        "jpeg-compressibility",
        "jpeg-incompressibility",
        "colourfulness",
    ];

    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        match self {
            Self::JpegCompressibility => "jpeg-compressibility",
            Self::JpegIncompressibility => "jpeg-incompressibility",
            Self::Colourfulness => "colourfulness",
        }
    }

    /// Reads the keys of the kind of that name.
    fn read(_r: &mut Reader, name: &str) -> Self {
        match name {
            "jpeg-incompressibility" => Self::JpegIncompressibility,
            "colourfulness" => Self::Colourfulness,
            _ => Self::JpegCompressibility,
        }
    }
}

impl RewardPlan {
    /// Reads `[reward]`.
    pub(super) fn read(r: &mut Reader) -> Self {
        r.allow(&KEYS_OF_KINDS);
        let name = r.choice("reward.kind", &RewardKind::NAMES.map(|name| (name, name)));
        Self {
            kind: RewardKind::read(r, name),
            threads: r.count("reward.threads", 1..=64) as usize,
        }
    }

    /// A reward by itself, without a run: its kind and `reward.…=VALUE` pairs.
    pub fn alone(kind: &str, set: &[String]) -> Result<Self> {
        let mut reader = Reader::new(reward_layer(kind, set)?);
        let plan = Self::read(&mut reader);
        reader.finish()?;
        Ok(plan)
    }

    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Whether somebody is asked about pictures, whose answers are kept.
    pub fn has_answers(&self) -> bool {
        false
    }
}
