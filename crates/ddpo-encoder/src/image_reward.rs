//! ImageReward (Xu et al. 2023): human preference for an image, given a prompt.

use std::num::NonZero;
use std::path::Path;

use ddpo_clip::{ClipImages, Crop};
use ddpo_torch::{Scope, Store};
use tch::{Device, Kind, Tensor};

use crate::bert::{Bert, BertConfig};
use crate::layers::LayerDims;
use crate::vit::BlipVision;
use crate::{AffineHead, Error, ImageRewardConfig, Result, TextTokenizer};

/// Mean and standard deviation of the head's output over the training set (THUDM/ImageReward, `ImageReward.py`).
const MEAN: f64 = 0.167_173_628_300_524_26;
const STD: f64 = 1.033_339_496_605_407_2;
/// Tokens of a prompt, `[CLS]` and `[SEP]` included; longer ones are truncated (the same file).
const MAX_TOKENS: usize = 35;

/// BLIP's image tower, its text encoder that attends to the image in every layer, and a linear head on `[CLS]`:
/// about -2.3 to 2, mean 0 and standard deviation 1 over the images it was trained on, higher is better.
pub struct ImageReward {
    vision: BlipVision,
    text: Bert,
    head: AffineHead,
    tokenizer: TextTokenizer,
    images: ClipImages,
}

impl ImageReward {
    /// Takes its weights from `scope`, in the names of `ImageReward.pt`.
    ///
    /// Weights that are missing or misshapen are reported by the scope's [`finish`](ddpo_torch::Store::finish).
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the tokenizer gives ids that the text encoder has no rows for, or sizes are
    /// impossible.
    pub fn new(
        scope: &Scope<'_>,
        config: &ImageRewardConfig,
        tokenizer: TextTokenizer,
    ) -> Result<Self> {
        let mismatch = |reason: String| Error::Mismatch { reason };
        let (ids, rows) = (tokenizer.vocab_size() as i64, config.vocab_size);
        if ids > rows {
            return Err(mismatch(format!(
                "the tokenizer gives {ids} ids, there are {rows} embeddings"
            )));
        }
        let size = u32::try_from(config.vision.image_size).ok();
        let size = size
            .and_then(NonZero::new)
            .ok_or_else(|| mismatch(format!("images of {} pixels", config.vision.image_size)))?;
        let blip = scope / "blip";
        let text = BertConfig {
            vocab_size: config.vocab_size,
            max_positions: config.max_positions,
            n_types: 0,
            n_layers: config.n_layers,
            sizes: LayerDims {
                width: config.width,
                inner: config.inner,
                n_heads: config.n_heads,
                eps: 1e-12,
            },
            memory_width: Some(config.vision.width),
        };
        Ok(Self {
            vision: BlipVision::new(&(&blip / "visual_encoder"), &config.vision),
            text: Bert::new(&(&blip / "text_encoder"), &text),
            head: AffineHead::new(&(scope / "mlp"), config.width),
            tokenizer,
            images: ClipImages {
                size,
                crop: Crop::HalfEven,
            },
        })
    }

    /// Reads `weights` (`ImageReward.pt`, or the same tensors as safetensors) and, from a folder, the tokenizer of
    /// `bert-base-uncased` (`vocab.txt` or `tokenizer.json`).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::Clip`] or [`Error::Torch`], each with the file.
    pub fn open(
        weights: &Path,
        tokenizer: &Path,
        config: &ImageRewardConfig,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        let tokenizer = TextTokenizer::open(tokenizer, config.max_positions)?;
        let store = Store::open(weights, device, kind)?.with_unneeded(|name| {
            // BLIP's own heads, which the file has and ImageReward does not use.
            ["blip.vision_proj.", "blip.text_proj."]
                .iter()
                .any(|head| name.starts_with(head))
        });
        let model = Self::new(&store.root(), config, tokenizer)?;
        store.finish()?;
        Ok(model)
    }

    /// The score of one image, `height` rows of `width` pixels, RGB.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Text`] if the tokenizer fails on the prompt; [`ddpo_clip::Error::Image`] unless there are
    /// `height * width * 3` bytes and at least one pixel.
    pub fn score(&self, prompt: &str, rgb: &[u8], height: usize, width: usize) -> Result<f32> {
        let pixels = self.images.pixels(rgb, height, width)?;
        if pixels.size()[0] != 1 {
            let reason = format!("{} bytes are not one image of {width}x{height}", rgb.len());
            return Err(ddpo_clip::Error::Image { reason }.into());
        }
        let ids = self.tokens(prompt)?;
        let score = tch::no_grad(|| self.of_pixels(&ids, &pixels));
        Ok(score.double_value(&[0]) as f32)
    }

    /// Differentiable scores of images, for guidance. They differ from [`score`](Self::score) by the rounding to
    /// bytes.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]` in [0, 1], any device
    /// - returns: `[batch]`, f32, on the weights' device
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Text`] if the tokenizer fails on the prompt.
    pub fn differentiable(&self, prompt: &str, images: &Tensor) -> Result<Tensor> {
        let ids = self.tokens(prompt)?;
        let ids = ids.expand([images.size()[0], -1], false);
        Ok(self.of_pixels(&ids, &self.images.differentiable(images)))
    }

    /// Hidden states: the image tower's embedding, the output of each block and of the last norm; and the text encoder's
    /// embedding and the output of each layer.
    ///
    /// # Shapes
    /// - `ids`: `[batch, tokens]`, i64
    /// - `pixels`: `[batch, 3, image_size, image_size]`, as [`ClipImages`] gives them
    /// - returns: `[batch, 1 + patches, vision width]` each, and `[batch, tokens, width]` each
    pub fn states(&self, ids: &Tensor, pixels: &Tensor) -> (Vec<Tensor>, Vec<Tensor>) {
        let vision = self.vision.states(pixels);
        let text = self.text.states(ids, vision.last());
        (vision, text)
    }

    /// Without padding: the reference pads to 35 tokens and masks the padding, which gives the same result.
    fn tokens(&self, prompt: &str) -> Result<Tensor> {
        let ids = self.tokenizer.encode_up_to(prompt, MAX_TOKENS)?;
        Ok(Tensor::from_slice(&ids).unsqueeze(0))
    }

    fn of_pixels(&self, ids: &Tensor, pixels: &Tensor) -> Tensor {
        let seen = self.vision.forward(pixels);
        let text = self.text.forward(ids, Some(&seen));
        (self.head.forward(&text.select(1, 0)) - MEAN) / STD
    }
}
