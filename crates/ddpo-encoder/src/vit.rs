//! BLIP's image tower, in the names of the published weights.

use ddpo_torch::nn::{Conv2d, LayerNorm, Linear};
use ddpo_torch::{Init, Scope};
use tch::Tensor;

use crate::layers::{attend, join_heads, split_heads};

/// ε of the layer norms (BLIP, `vit.py`).
const EPS: f64 = 1e-6;

/// Sizes of an image tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlipVisionConfig {
    /// Width of the tokens.
    pub width: i64,
    /// Width inside each MLP.
    pub inner: i64,
    /// Transformer blocks.
    pub n_layers: i64,
    /// Heads; divides [`width`](Self::width).
    pub n_heads: i64,
    /// Pixels along a side of the square input.
    pub image_size: i64,
    /// Pixels along a side of a patch.
    pub patch_size: i64,
}

/// A transformer over the patches of an image.
pub(crate) struct BlipVision {
    /// `[1, 1, width]`.
    class: Tensor,
    /// `[1, 1 + patches, width]`.
    positions: Tensor,
    patches: Conv2d,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    n_heads: i64,
}

impl BlipVision {
    pub fn new(scope: &Scope<'_>, config: &BlipVisionConfig) -> Self {
        let (width, patch) = (config.width, config.patch_size);
        let n_patches = (config.image_size / patch).pow(2);
        let blocks = scope / "blocks";
        let patches = &(scope / "patch_embed") / "proj";
        Self {
            class: scope.tensor("cls_token", &[1, 1, width], Init::Normal(0.02)),
            positions: scope.tensor("pos_embed", &[1, 1 + n_patches, width], Init::Normal(0.02)),
            patches: Conv2d::new(&patches, 3, width, patch, patch, 0),
            blocks: (0..config.n_layers)
                .map(|i| Block::new(&(&blocks / i), config))
                .collect(),
            norm: LayerNorm::new(&(scope / "norm"), width, EPS),
        }
    }

    /// `pixels`: `[batch, 3, image_size, image_size]`; returns the embedding, the output of each block and that
    /// of the last norm, `[batch, 1 + patches, width]`.
    pub fn states(&self, pixels: &Tensor) -> Vec<Tensor> {
        let mut states = vec![self.embed(pixels)];
        for block in &self.blocks {
            let next = block.forward(&states[states.len() - 1]);
            states.push(next);
        }
        states.push(self.norm.forward(&states[states.len() - 1]));
        states
    }

    /// The last of [`states`](Self::states), without storing the others.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        let start = self.embed(pixels);
        let last = self.blocks.iter().fold(start, |x, block| block.forward(&x));
        self.norm.forward(&last)
    }

    fn embed(&self, pixels: &Tensor) -> Tensor {
        let like = &self.class;
        let pixels = pixels.to_device(like.device()).to_kind(like.kind());
        let patches = self.patches.forward(&pixels).flatten(2, 3).transpose(1, 2);
        let class = self.class.expand([pixels.size()[0], 1, -1], false);
        Tensor::cat(&[class, patches], 1) + &self.positions
    }
}

impl Block {
    fn new(scope: &Scope<'_>, config: &BlipVisionConfig) -> Self {
        let &BlipVisionConfig { width, inner, .. } = config;
        let (attention, mlp) = (scope / "attn", scope / "mlp");
        Self {
            norm1: LayerNorm::new(&(scope / "norm1"), width, EPS),
            qkv: Linear::new(&(&attention / "qkv"), width, 3 * width),
            proj: Linear::new(&(&attention / "proj"), width, width),
            norm2: LayerNorm::new(&(scope / "norm2"), width, EPS),
            fc1: Linear::new(&(&mlp / "fc1"), width, inner),
            fc2: Linear::new(&(&mlp / "fc2"), inner, width),
            n_heads: config.n_heads,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let parts = self.qkv.forward(&self.norm1.forward(x)).chunk(3, -1);
        let heads = |i: usize| split_heads(&parts[i].contiguous(), self.n_heads);
        let seen = join_heads(&attend(&heads(0), &heads(1), &heads(2)));
        let x = x + self.proj.forward(&seen);
        let inner = self.fc1.forward(&self.norm2.forward(&x)).gelu("none");
        x + self.fc2.forward(&inner)
    }
}
