//! Sizes of text encoders, as a `config.json` of transformers has them.

use std::path::Path;

use ddpo_clip::ConfigCheck;
use ddpo_clip::files::{json, read};
use serde::Deserialize;

use crate::Result;

/// Sizes of a BERT or DeBERTa encoder.
///
/// Unknown keys are passed over: transformers writes some thirty that mean nothing here. What changes results and is
/// not computed here is refused by [`check`](Self::check).
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TextConfig {
    /// `bert` or `deberta`.
    pub model_type: String,
    /// Rows of the token table.
    pub vocab_size: i64,
    /// Width of the tokens.
    pub hidden_size: i64,
    /// Transformer layers in the file.
    pub num_hidden_layers: i64,
    /// Heads; divides [`hidden_size`](Self::hidden_size).
    pub num_attention_heads: i64,
    /// Width inside each MLP.
    pub intermediate_size: i64,
    /// Only `gelu`.
    pub hidden_act: String,
    /// Rows of the position table: the most tokens of a text.
    pub max_position_embeddings: i64,
    /// Rows of the segment table; none if 0.
    #[serde(default)]
    pub type_vocab_size: i64,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// DeBERTa: whether attention knows distances.
    #[serde(default)]
    pub relative_attention: bool,
    /// DeBERTa: the largest distance; below 1, [`max_position_embeddings`](Self::max_position_embeddings).
    #[serde(default = "unbounded")]
    pub max_relative_positions: i64,
    /// DeBERTa: `c2p|p2c` or a list of them.
    #[serde(default)]
    pub pos_att_type: Terms,
    /// DeBERTa: whether places are added to the tokens too.
    #[serde(default = "yes")]
    pub position_biased_input: bool,
    /// DeBERTa: not computed here.
    #[serde(default)]
    talking_head: bool,
}

/// Which disentangled terms DeBERTa adds to its attention.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms(pub Vec<String>);

impl<'de> Deserialize<'de> for Terms {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Published files have a text with bars, transformers 5 writes a list.
        let value = serde_json::Value::deserialize(deserializer)?;
        let names = match &value {
            serde_json::Value::Null => Vec::new(),
            serde_json::Value::String(text) => text.split('|').map(str::to_owned).collect(),
            serde_json::Value::Array(list) => list
                .iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            other => {
                let message = format!("{other} is no list of attention terms");
                return Err(serde::de::Error::custom(message));
            }
        };
        Ok(Self(names))
    }
}

fn unbounded() -> i64 {
    -1
}

fn yes() -> bool {
    true
}

impl TextConfig {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Io`], [`ddpo_clip::Error::Damaged`] or [`ddpo_clip::Error::Config`], each with the path.
    pub fn from_file(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let config: Self = json(&file, &read(path)?)?;
        config.check(&file)?;
        Ok(config)
    }

    /// Refuses what no encoder can have and what is not computed here; `file` is the name in errors.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Config`] with the first key at fault.
    pub fn check(&self, file: &str) -> Result<()> {
        let sizes = ConfigCheck { file };
        sizes.positive(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        sizes.divides(
            ("num_attention_heads", self.num_attention_heads),
            ("hidden_size", self.hidden_size),
        )?;
        sizes.eps(self.layer_norm_eps)?;
        let terms = &self.pos_att_type.0;
        let term = terms.iter().find(|t| *t != "c2p" && *t != "p2c");
        let (key, reason) = if !["bert", "deberta"].contains(&self.model_type.as_str()) {
            let reason = format!("is \"{}\": expected bert or deberta", self.model_type);
            ("model_type", reason)
        } else if self.hidden_act != "gelu" {
            let reason = format!("is \"{}\": only gelu is computed here", self.hidden_act);
            ("hidden_act", reason)
        } else if let Some(term) = term {
            let reason = format!("has \"{term}\": only c2p and p2c are computed here");
            ("pos_att_type", reason)
        } else if self.talking_head {
            ("talking_head", "is true: not computed here".to_owned())
        } else {
            return Ok(());
        };
        Ok(sizes.fault(key, reason)?)
    }
}
