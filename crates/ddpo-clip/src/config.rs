//! The text encoder's configuration, as in `text_encoder/config.json` of the diffusers layout.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{json, read};
use crate::{Error, Result};

/// The activation between the two layers of each MLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · σ(1.702 x)`, of OpenAI's models.
    #[default]
    QuickGelu,
    /// `x · Φ(x)`, exact, of OpenCLIP's.
    Gelu,
}

/// Sizes of a CLIP text encoder, in transformers' names; missing keys have transformers' defaults.
///
/// Unlike our own configurations it accepts unknown keys: transformers writes some thirty that
/// are irrelevant here, and new ones with every release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Rows of the token table.
    pub vocab_size: i64,
    /// Width of the embeddings.
    pub hidden_size: i64,
    /// Width inside each MLP.
    pub intermediate_size: i64,
    /// Transformer blocks.
    pub num_hidden_layers: i64,
    /// Heads; divides [`hidden_size`](Self::hidden_size).
    pub num_attention_heads: i64,
    /// Rows of the position table: the most tokens of a text.
    pub max_position_embeddings: i64,
    /// Activation of the MLPs.
    pub hidden_act: Activation,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// Id that starts a text; stored in the file, not used by the encoder.
    pub bos_token_id: i64,
    /// Id that ends a text; stored in the file, not used by the encoder.
    pub eos_token_id: i64,
    /// Id after the end of a text; stored in the file, not used by the encoder.
    pub pad_token_id: i64,
}

impl Default for ClipTextConfig {
    /// transformers 5.23.0, `CLIPTextConfig()`.
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            bos_token_id: 49406,
            eos_token_id: 49407,
            pad_token_id: 1,
        }
    }
}

impl ClipTextConfig {
    /// CLIP ViT-L/14's text tower, the encoder of Stable Diffusion v1.
    pub fn vit_l14() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_attention_heads: 12,
            ..Self::default()
        }
    }

    /// Two blocks of width 32 over 24 positions, for tests.
    pub fn tiny(vocab_size: i64) -> Self {
        Self {
            vocab_size,
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            max_position_embeddings: 24,
            bos_token_id: vocab_size - 2,
            eos_token_id: vocab_size - 1,
            pad_token_id: vocab_size - 1,
            ..Self::default()
        }
    }

    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`] or [`Error::Config`], each with the path.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_json(&path.display().to_string(), &read(path)?)
    }

    /// Parses and checks a `config.json`; `file` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not such a file, [`Error::Config`] if a value is out of range.
    pub fn from_json(file: &str, bytes: &[u8]) -> Result<Self> {
        let config: Self = json(file, bytes)?;
        config.check(file)?;
        Ok(config)
    }

    /// A `config.json` from which transformers builds the same encoder.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Written<'a> {
            architectures: [&'static str; 1],
            model_type: &'static str,
            #[serde(flatten)]
            config: &'a ClipTextConfig,
        }
        let written = Written {
            architectures: ["CLIPTextModel"],
            model_type: "clip_text_model",
            config: self,
        };
        let mut json =
            serde_json::to_string_pretty(&written).expect("numbers and strings serialise");
        json.push('\n');
        json
    }

    /// Refuses sizes that are out of range; `file` is the name in errors.
    ///
    /// # Errors
    /// [`Error::Config`] with the first key at fault.
    pub fn check(&self, file: &str) -> Result<()> {
        let sizes = ConfigCheck { file };
        sizes.positive(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        sizes.divides(
            ("num_attention_heads", self.num_attention_heads),
            ("hidden_size", self.hidden_size),
        )?;
        sizes.eps(self.layer_norm_eps)
    }
}

/// Checks of network configurations; the errors name file and key.
#[derive(Clone, Copy, Debug)]
pub struct ConfigCheck<'a> {
    /// The name in errors.
    pub file: &'a str,
}

impl ConfigCheck<'_> {
    /// [`Error::Config`] of a key.
    ///
    /// # Errors
    /// Always.
    pub fn fault(&self, key: &'static str, reason: String) -> Result<()> {
        let file = self.file.to_owned();
        Err(Error::Config { file, key, reason })
    }

    /// Keys whose values must be at least 1.
    ///
    /// # Errors
    /// [`Error::Config`] with the first one at fault.
    pub fn positive(&self, sizes: &[(&'static str, i64)]) -> Result<()> {
        match sizes.iter().find(|(_, value)| *value < 1) {
            Some((key, value)) => self.fault(key, format!("is {value}, expected at least 1")),
            None => Ok(()),
        }
    }

    /// A key whose value, above 0, must divide another's.
    ///
    /// # Errors
    /// [`Error::Config`] with both.
    pub fn divides(
        &self,
        (key, divisor): (&'static str, i64),
        (whole_key, whole): (&str, i64),
    ) -> Result<()> {
        if whole % divisor == 0 {
            return Ok(());
        }
        let reason = format!("is {divisor}, which does not divide `{whole_key}` = {whole}");
        self.fault(key, reason)
    }

    /// ε of the layer norms.
    ///
    /// # Errors
    /// [`Error::Config`] unless it is positive and finite.
    pub fn eps(&self, layer_norm_eps: f64) -> Result<()> {
        if layer_norm_eps.is_finite() && layer_norm_eps > 0.0 {
            return Ok(());
        }
        let reason = format!("is {layer_norm_eps}, expected a positive number");
        self.fault("layer_norm_eps", reason)
    }
}
