//! Sizes of BLIP's two encoders in ImageReward: those of the release, or of a folder with a configuration.

use std::path::Path;

use ddpo_clip::ConfigCheck;
use ddpo_clip::files::{json, read};
use serde::Deserialize;

use crate::{BlipVisionConfig, Result};

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRewardConfig {
    /// The image tower.
    pub vision: BlipVisionConfig,
    /// Rows of the text encoder's token table.
    pub vocab_size: i64,
    /// Rows of its position table.
    pub max_positions: i64,
    /// Width of its tokens.
    pub width: i64,
    /// Width inside each of its MLPs.
    pub inner: i64,
    /// Its layers.
    pub n_layers: i64,
    /// Its heads; divides [`width`](Self::width).
    pub n_heads: i64,
}

/// `med_config.json` of THUDM/ImageReward, and `text_config` of transformers' `BlipConfig`.
///
/// The width of what is attended to (`encoder_width` there) is not read: BLIP overwrites it with the image tower's.
#[derive(Deserialize)]
struct Text {
    vocab_size: i64,
    max_position_embeddings: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
}

/// `vision_config` of transformers' `BlipConfig`.
#[derive(Deserialize)]
struct Vision {
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    image_size: i64,
    patch_size: i64,
}

impl ImageRewardConfig {
    /// ImageReward-v1.0: BLIP with ViT-L/16 at 224 pixels (`ImageReward.py`, `med_config.json`).
    pub fn v1_0() -> Self {
        Self {
            vision: BlipVisionConfig {
                width: 1024,
                inner: 4096,
                n_layers: 24,
                n_heads: 16,
                image_size: 224,
                patch_size: 16,
            },
            vocab_size: 30524,
            max_positions: 512,
            width: 768,
            inner: 3072,
            n_layers: 12,
            n_heads: 12,
        }
    }

    /// The sizes from a folder with the weights: of both encoders from a `config.json` of transformers' `BlipConfig`,
    /// otherwise of the text encoder from the release's `med_config.json`. Missing values are those of
    /// [`v1_0`](Self::v1_0); the `config.json` of another model, such as the BERT of the vocabulary, is ignored.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Io`], [`ddpo_clip::Error::Damaged`] or [`ddpo_clip::Error::Config`], each with the path.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default)]
            model_type: String,
        }
        #[derive(Deserialize)]
        struct Both {
            text_config: Text,
            vision_config: Vision,
        }
        let there = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        let mut config = Self::v1_0();
        let path = if let Some(path) = there("config.json") {
            let (file, bytes) = (path.display().to_string(), read(&path)?);
            if json::<Kind>(&file, &bytes)?.model_type == "blip" {
                let both: Both = json(&file, &bytes)?;
                config.see(&both.vision_config);
                config.read(&both.text_config);
                config.check(&file)?;
                return Ok(config);
            }
            there("med_config.json")
        } else {
            there("med_config.json")
        };
        if let Some(path) = path {
            let file = path.display().to_string();
            config.read(&json(&file, &read(&path)?)?);
            config.check(&file)?;
        }
        Ok(config)
    }

    fn see(&mut self, vision: &Vision) {
        self.vision = BlipVisionConfig {
            width: vision.hidden_size,
            inner: vision.intermediate_size,
            n_layers: vision.num_hidden_layers,
            n_heads: vision.num_attention_heads,
            image_size: vision.image_size,
            patch_size: vision.patch_size,
        };
    }

    fn read(&mut self, text: &Text) {
        self.vocab_size = text.vocab_size;
        self.max_positions = text.max_position_embeddings;
        self.width = text.hidden_size;
        self.inner = text.intermediate_size;
        self.n_layers = text.num_hidden_layers;
        self.n_heads = text.num_attention_heads;
    }

    /// Refuses sizes that are out of range; `file` is the name in errors.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Config`] with the first key at fault.
    pub fn check(&self, file: &str) -> Result<()> {
        let (sizes, vision) = (ConfigCheck { file }, &self.vision);
        let encoders = [
            (vision.width, vision.inner, vision.n_layers, vision.n_heads),
            (self.width, self.inner, self.n_layers, self.n_heads),
        ];
        for (width, inner, n_layers, n_heads) in encoders {
            sizes.positive(&[
                ("hidden_size", width),
                ("intermediate_size", inner),
                ("num_hidden_layers", n_layers),
                ("num_attention_heads", n_heads),
            ])?;
            sizes.divides(("num_attention_heads", n_heads), ("hidden_size", width))?;
        }
        sizes.positive(&[
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_positions),
            ("image_size", vision.image_size),
            ("patch_size", vision.patch_size),
        ])?;
        Ok(sizes.divides(
            ("patch_size", vision.patch_size),
            ("image_size", vision.image_size),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of THUDM/ImageReward, which has BLIP's `configs/med_config.json`.
    const MED: &str = r#"{"architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": 768,
        "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
        "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0, "add_type_embeddings": false,
        "vocab_size": 30524, "encoder_width": 768, "add_cross_attention": true}"#;

    #[test]
    fn a_folder_says_its_sizes_and_otherwise_has_the_release_s() {
        let folder = tempfile::tempdir().unwrap();
        let of_folder = || ImageRewardConfig::of_folder(folder.path());
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        assert_eq!(of_folder().unwrap(), ImageRewardConfig::v1_0());
        write("med_config.json", MED);
        assert_eq!(of_folder().unwrap(), ImageRewardConfig::v1_0());
        // BERT's own configuration, which may be in the folder of its vocabulary.
        write("config.json", r#"{"model_type": "bert", "hidden_size": 9}"#);
        assert_eq!(of_folder().unwrap(), ImageRewardConfig::v1_0());
        write("med_config.json", &MED.replace("12,", "6,"));
        let small = of_folder().unwrap();
        assert_eq!((small.n_layers, small.n_heads), (6, 6));
        assert_eq!(small.vision, ImageRewardConfig::v1_0().vision);
        write("med_config.json", &MED.replace("768", "770"));
        let error = of_folder().unwrap_err().to_string();
        assert!(
            error.contains("med_config.json: `num_attention_heads` is 12"),
            "{error}"
        );
        write("config.json", r#"{"model_type": "blip"}"#);
        let error = of_folder().unwrap_err().to_string();
        assert!(error.contains("config.json: missing field"), "{error}");
    }
}
