//! CLIP's image tower: a transformer over the patches of an image.

use std::path::Path;

use ddpo_torch::nn::{Embedding, LayerNorm, Linear};
use ddpo_torch::{Init, Scope, Store};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::block::{Block, BlockConfig};
use crate::config::ConfigCheck;
use crate::files::{json, read, weights};
use crate::{Activation, Result};

/// Sizes of an image tower, in transformers' names; missing keys have transformers' defaults.
///
/// It accepts unknown keys, as [`ClipTextConfig`](crate::ClipTextConfig) does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of the tokens.
    pub hidden_size: i64,
    /// Width inside each MLP.
    pub intermediate_size: i64,
    /// Length of the projected embedding.
    pub projection_dim: i64,
    /// Transformer blocks.
    pub num_hidden_layers: i64,
    /// Heads; divides [`hidden_size`](Self::hidden_size).
    pub num_attention_heads: i64,
    /// Pixels along a side of the square input.
    pub image_size: i64,
    /// Pixels along a side of a patch.
    pub patch_size: i64,
    /// Activation of the MLPs.
    pub hidden_act: Activation,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
}

impl Default for ClipVisionConfig {
    /// transformers 5.23.0, `CLIPVisionConfig()`.
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipVisionConfig {
    /// CLIP ViT-L/14's image tower: `openai/clip-vit-large-patch14`.
    pub fn vit_l14() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            projection_dim: 768,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            patch_size: 14,
            ..Self::default()
        }
    }

    /// Two blocks of width 32 over 4 × 4 patches, for tests.
    pub fn tiny() -> Self {
        Self {
            hidden_size: 32,
            intermediate_size: 48,
            projection_dim: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            image_size: 32,
            patch_size: 8,
            ..Self::default()
        }
    }

    /// Reads and checks a `config.json`, of the image tower alone or of both towers.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Damaged`](crate::Error::Damaged) or [`Error::Config`](crate::Error::Config), each with the path.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_json(&path.display().to_string(), &read(path)?)
    }

    /// Parses and checks a `config.json`; `file` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) if it is not such a file, [`Error::Config`](crate::Error::Config) if a value is out of range.
    pub fn from_json(file: &str, bytes: &[u8]) -> Result<Self> {
        /// Configuration of both towers, which has one projection size for both.
        #[derive(Deserialize)]
        struct Both {
            vision_config: Option<ClipVisionConfig>,
            projection_dim: Option<i64>,
        }
        let both: Both = json(file, bytes)?;
        let config = match both.vision_config {
            Some(vision) => Self {
                projection_dim: both.projection_dim.unwrap_or(vision.projection_dim),
                ..vision
            },
            None => json(file, bytes)?,
        };
        config.check(file)?;
        Ok(config)
    }

    /// Refuses sizes that are out of range; `file` is the name in errors.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the first key at fault.
    pub fn check(&self, file: &str) -> Result<()> {
        let sizes = ConfigCheck { file };
        sizes.positive(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("projection_dim", self.projection_dim),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
        ])?;
        sizes.divides(
            ("num_attention_heads", self.num_attention_heads),
            ("hidden_size", self.hidden_size),
        )?;
        sizes.divides(
            ("patch_size", self.patch_size),
            ("image_size", self.image_size),
        )?;
        sizes.eps(self.layer_norm_eps)
    }

    /// Number of patches of an image.
    fn n_patches(&self) -> i64 {
        (self.image_size / self.patch_size).pow(2)
    }
}

/// The image tower with its projection into the joint embedding space of images and texts.
pub struct ClipVisionModel {
    class_embedding: Tensor,
    /// A convolution whose stride is its kernel.
    patch_embedding: Tensor,
    patch_size: i64,
    image_size: i64,
    position_embedding: Embedding,
    pre_layer_norm: LayerNorm,
    layers: Vec<Block>,
    post_layer_norm: LayerNorm,
    visual_projection: Linear,
}

impl ClipVisionModel {
    /// Takes its weights from `scope`, in the names of transformers' `CLIPVisionModelWithProjection` and
    /// `CLIPModel`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for sizes out of range. Weights that are missing or misshapen are reported by
    /// the scope's [`finish`](ddpo_torch::Store::finish).
    pub fn new(scope: &Scope<'_>, config: &ClipVisionConfig) -> Result<Self> {
        config.check("image tower")?;
        let (width, patch) = (config.hidden_size, config.patch_size);
        let tower = scope / "vision_model";
        let embeddings = &tower / "embeddings";
        let blocks = &(&tower / "encoder") / "layers";
        let block = BlockConfig {
            width,
            inner: config.intermediate_size,
            n_heads: config.num_attention_heads,
            activation: config.hidden_act,
            eps: config.layer_norm_eps,
            causal: false,
        };
        let norm = |name| LayerNorm::new(&(&tower / name), width, config.layer_norm_eps);
        Ok(Self {
            class_embedding: embeddings.tensor("class_embedding", &[width], Init::Normal(0.02)),
            patch_embedding: (&embeddings / "patch_embedding").tensor(
                "weight",
                &[width, 3, patch, patch],
                Init::Normal(0.02),
            ),
            patch_size: patch,
            image_size: config.image_size,
            position_embedding: Embedding::new(
                &(&embeddings / "position_embedding"),
                config.n_patches() + 1,
                width,
            ),
            // Spelt so since OpenAI's release.
            pre_layer_norm: norm("pre_layrnorm"),
            layers: (0..config.num_hidden_layers)
                .map(|i| Block::new(&(&blocks / i), &block))
                .collect(),
            post_layer_norm: norm("post_layernorm"),
            visual_projection: Linear::without_bias(
                &(scope / "visual_projection"),
                width,
                config.projection_dim,
            ),
        })
    }

    /// Reads a folder in transformers' layout: `config.json` and `model.safetensors` (or `pytorch_model.bin`), of
    /// the image tower alone or of both towers.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Damaged`](crate::Error::Damaged), [`Error::Config`](crate::Error::Config) or [`Error::Torch`](crate::Error::Torch), each with the file.
    pub fn open(folder: &Path, device: Device, kind: Kind) -> Result<Self> {
        let config = ClipVisionConfig::from_file(&folder.join("config.json"))?;
        let store = Store::open(&weights(folder), device, kind)?.with_unneeded(|name| {
            ["text_model.", "text_projection.", "logit_scale"]
                .iter()
                .any(|part| name.starts_with(part))
        });
        let model = Self::new(&store.root(), &config)?;
        store.finish()?;
        Ok(model)
    }

    /// The projected embedding, not normalised.
    ///
    /// # Shapes
    /// - `pixels`: `[batch, 3, image_size, image_size]`, as [`ClipImages`](crate::ClipImages) gives them, any
    ///   floating kind
    /// - returns: `[batch, projection_dim]`, in the weights' kind and on their device
    ///
    /// # Panics
    /// On images of another size.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        let x = self.last_hidden_state(pixels);
        let class = self.post_layer_norm.forward(&x.select(1, 0));
        self.visual_projection.forward(&class)
    }

    /// The tokens after the last block, before the last norm: the class token first, then the patches by row.
    ///
    /// # Shapes
    /// - `pixels`: as for [`forward`](Self::forward)
    /// - returns: `[batch, 1 + patches, hidden_size]`
    pub fn last_hidden_state(&self, pixels: &Tensor) -> Tensor {
        let start = self.embed(pixels);
        self.layers.iter().fold(start, |x, layer| layer.forward(&x))
    }

    /// The tokens before the first block and after each, `1 + num_hidden_layers` in all, shapes as of
    /// [`last_hidden_state`](Self::last_hidden_state).
    pub fn states(&self, pixels: &Tensor) -> Vec<Tensor> {
        let mut states = vec![self.embed(pixels)];
        for layer in &self.layers {
            let next = layer.forward(&states[states.len() - 1]);
            states.push(next);
        }
        states
    }

    /// The class token and the patches with their position embeddings, after the first norm.
    fn embed(&self, pixels: &Tensor) -> Tensor {
        let weight = &self.patch_embedding;
        let pixels = pixels.to_device(weight.device()).to_kind(weight.kind());
        let size = pixels.size();
        assert_eq!(
            size[1..],
            [3, self.image_size, self.image_size],
            "images of another size"
        );
        let patches = pixels
            .conv2d(
                weight,
                None::<&Tensor>,
                [self.patch_size; 2],
                [0, 0],
                [1, 1],
                1,
            )
            .flatten(2, 3)
            .transpose(1, 2);
        let class = self.class_embedding.expand([size[0], 1, -1], false);
        let x = Tensor::cat(&[class, patches], 1) + &self.position_embedding.weight;
        self.pre_layer_norm.forward(&x)
    }

    /// Pixels along a side of the input.
    pub fn image_size(&self) -> i64 {
        self.image_size
    }

    /// Length of the embedding.
    pub fn projection_dim(&self) -> i64 {
        self.visual_projection.weight.size()[0]
    }

    /// Device of the weights.
    pub fn device(&self) -> Device {
        self.patch_embedding.device()
    }
}
