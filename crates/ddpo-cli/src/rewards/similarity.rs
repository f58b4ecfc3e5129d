//! BERTScore for rewards that compare texts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ddpo_encoder::BertScore;
use ddpo_reward::vlm::TextSimilarity;
use ddpo_reward::{RewardError, VlmBertScore};
use sha2::{Digest, Sha256};
use tch::Kind;

use crate::config::EncoderPlan;
use crate::failure::{Exit, OrExit, Result};
use crate::models::weights::{Needed, Part, Wanted};

/// The paper's encoder; another one has the same files. 750 million parameters: 3 GB as f32, 1.5 GB as f16.
const ENCODER: Part = Part {
    from: "microsoft/deberta-xlarge-mnli",
    needed: &[
        Needed {
            any: &[&["config.json"]],
            size: "",
        },
        Needed {
            any: &[&["model.safetensors"], &["pytorch_model.bin"]],
            size: "3 GB as f32, 1.5 GB as f16",
        },
        Needed {
            any: &[
                &["tokenizer.json"],
                &["vocab.txt"],
                &["vocab.json", "merges.txt"],
            ],
            size: "",
        },
    ],
    optional: &["tokenizer_config.json"],
    also: "",
};

/// How much of a file's beginning and end tells it apart from another of its size.
const PROBE: u64 = 1 << 20;

/// One encoder for all threads: it may have gigabytes, and texts are short.
#[derive(Clone)]
pub struct Encoder {
    score: Arc<Mutex<BertScore>>,
    version: String,
}

impl Encoder {
    /// Reads the encoder of a plan.
    ///
    /// # Errors
    /// Exit 3 with the folder, and where its files are to be had.
    pub fn open(plan: &EncoderPlan) -> Result<Self> {
        let key = "reward.vlm.encoder";
        let wanted = Wanted {
            reward: VlmBertScore::NAME,
            key,
            named: &plan.weights,
            parts: &[ENCODER],
        };
        let found = wanted.locate()?;
        let folder = &found.folders[0];
        let doing = || format!("`{key}` {}", folder.display());
        let score = BertScore::open(folder, plan.layer, plan.device, Kind::Float);
        let score = score.or_exit(Exit::Data, doing())?;
        let version = version(folder, plan.layer).or_exit(Exit::Data, doing())?;
        Ok(Self {
            score: Arc::new(Mutex::new(score)),
            version,
        })
    }
}

impl TextSimilarity for Encoder {
    fn recall(&mut self, candidate: &str, reference: &str) -> ddpo_reward::Result<f32> {
        let score = self.score.lock().unwrap_or_else(PoisonError::into_inner);
        let agreement = score.compare(candidate, reference);
        let failed = |error| RewardError::permanent(VlmBertScore::NAME, error);
        Ok(agreement.map_err(failed)?.recall)
    }

    fn version(&self) -> String {
        self.version.clone()
    }
}

/// Layer and a hash of configuration and weights; of large files their size, beginning and end.
fn version(folder: &Path, layer: i64) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    for name in ["config.json", "model.safetensors", "pytorch_model.bin"] {
        let Ok(mut file) = File::open(folder.join(name)) else {
            continue;
        };
        let length = file.metadata()?.len();
        hasher.update(length.to_le_bytes());
        for from in [0, length.saturating_sub(PROBE)] {
            file.seek(SeekFrom::Start(from))?;
            let mut part = Vec::new();
            (&file).take(PROBE).read_to_end(&mut part)?;
            hasher.update(part);
        }
    }
    let hash: String = hasher
        .finalize()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    Ok(format!("bertscore-recall layer={layer} weights={hash}"))
}
