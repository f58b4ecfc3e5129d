//! Attention over positions and over the prompt (diffusers `Transformer2DModel`), and the VAE's single-head block.

use ddpo_torch::Scope;
use ddpo_torch::nn::{Conv2d, GroupNorm, LayerNorm, Linear};
use tch::Tensor;

/// Epsilon of the group norm before a transformer (diffusers `Transformer2DModel`, `norm`).
const NORM_EPS: f64 = 1e-6;

/// The prompt, as cross-attention sees it.
#[derive(Clone, Copy)]
pub enum AttentionContext<'a> {
    /// `[batch, tokens, dim]`: keys and values are computed, and gradients flow into their projections.
    Embeddings(&'a Tensor),
    /// Computed before, one a transformer block, in the network's order; no gradients.
    Cached(&'a [BlockCache]),
}

impl<'a> AttentionContext<'a> {
    /// What `n` transformer blocks need, of which `first` is the first.
    pub(crate) fn part(self, first: usize, n: usize) -> Self {
        match self {
            Self::Embeddings(_) => self,
            Self::Cached(all) => Self::Cached(&all[first..first + n]),
        }
    }
}

/// What becomes of low-rank branches in what is computed ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraMode {
    /// They stay beside the weights.
    Separate,
    /// They are added to copies of the weights, so that a projection is one product again.
    Merged,
}

/// What a transformer block computes once for all time steps.
pub struct BlockCache {
    /// Keys and values of the prompt.
    prompt: KeyValue,
    /// Self- and cross-attention to be used instead of the block's own.
    merged: Option<[Attention; 2]>,
}

/// Keys and values of one attention.
struct KeyValue {
    /// `[batch, heads, tokens, dim / heads]`.
    key: Tensor,
    /// The same.
    value: Tensor,
}

/// Multi-head attention with diffusers' names.
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
}

impl Attention {
    /// Queries of width `dim`, keys and values from `context_dim`.
    fn new(scope: &Scope<'_>, dim: i64, context_dim: i64, heads: i64) -> Self {
        Self {
            to_q: Linear::without_bias(&(scope / "to_q"), dim, dim),
            to_k: Linear::without_bias(&(scope / "to_k"), context_dim, dim),
            to_v: Linear::without_bias(&(scope / "to_v"), context_dim, dim),
            to_out: Linear::new(&(scope / "to_out.0"), dim, dim),
            heads,
        }
    }

    /// The VAE's: one head, biases everywhere.
    fn single_head(scope: &Scope<'_>, dim: i64) -> Self {
        Self {
            to_q: Linear::new(&(scope / "to_q"), dim, dim),
            to_k: Linear::new(&(scope / "to_k"), dim, dim),
            to_v: Linear::new(&(scope / "to_v"), dim, dim),
            to_out: Linear::new(&(scope / "to_out.0"), dim, dim),
            heads: 1,
        }
    }

    /// # Shapes
    /// - `context`: `[batch, tokens, context_dim]`
    fn keys_values(&self, context: &Tensor) -> KeyValue {
        KeyValue {
            key: self.split(self.to_k.forward(context)),
            value: self.split(self.to_v.forward(context)),
        }
    }

    /// `[batch, n, dim]` to `[batch, heads, n, dim / heads]`.
    fn split(&self, t: Tensor) -> Tensor {
        let (batch, n, dim) = t.size3().expect("a projection has three dimensions");
        t.view([batch, n, self.heads, dim / self.heads])
            .transpose(1, 2)
    }

    /// # Shapes
    /// - `x`: `[batch, positions, dim]`
    /// - returns: `[batch, positions, dim]`
    fn forward(&self, x: &Tensor, of: &KeyValue) -> Tensor {
        let q = self.split(self.to_q.forward(x));
        let mixed = Tensor::scaled_dot_product_attention(
            &q,
            &of.key,
            &of.value,
            None::<&Tensor>,
            0.0,
            false,
            None,
            false,
        );
        self.to_out
            .forward(&mixed.transpose(1, 2).reshape(x.size()))
    }

    /// # Shapes
    /// - `x`: `[batch, positions, dim]`
    /// - returns: the same
    fn among(&self, x: &Tensor) -> Tensor {
        self.forward(x, &self.keys_values(x))
    }

    fn layers(&self) -> [&Linear; 4] {
        [&self.to_q, &self.to_k, &self.to_v, &self.to_out]
    }

    fn is_trained(&self) -> bool {
        self.layers().into_iter().any(Linear::is_trained)
    }

    fn is_adapted(&self) -> bool {
        self.layers().iter().any(|layer| layer.low_rank.is_some())
    }

    /// The same attention with every branch added to its weight.
    fn merged(&self) -> Self {
        Self {
            to_k: self.to_k.merged(),
            to_v: self.to_v.merged(),
            ..self.merged_outside()
        }
    }

    /// The same with the branches of queries and outputs added: keys and values are known already.
    fn merged_outside(&self) -> Self {
        Self {
            to_q: self.to_q.merged(),
            to_k: self.to_k.shared(),
            to_v: self.to_v.shared(),
            to_out: self.to_out.merged(),
            heads: self.heads,
        }
    }

    fn linears<'a>(&'a mut self, prefix: &str) -> impl Iterator<Item = (String, &'a mut Linear)> {
        let Self {
            to_q,
            to_k,
            to_v,
            to_out,
            ..
        } = self;
        let named = [
            ("to_q", to_q),
            ("to_k", to_k),
            ("to_v", to_v),
            ("to_out.0", to_out),
        ];
        named
            .map(|(name, layer)| (format!("{prefix}.{name}"), layer))
            .into_iter()
    }
}

/// Self-attention, cross-attention and a gated feed-forward, each normalised before and added after.
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
}

impl TransformerBlock {
    fn new(scope: &Scope<'_>, dim: i64, context_dim: i64, heads: i64) -> Self {
        let norm = |name: &str| LayerNorm::new(&(scope / name), dim, 1e-5);
        Self {
            norm1: norm("norm1"),
            attn1: Attention::new(&(scope / "attn1"), dim, dim, heads),
            norm2: norm("norm2"),
            attn2: Attention::new(&(scope / "attn2"), dim, context_dim, heads),
            norm3: norm("norm3"),
            ff_in: Linear::new(&(scope / "ff.net.0.proj"), dim, 8 * dim),
            ff_out: Linear::new(&(scope / "ff.net.2"), 4 * dim, dim),
        }
    }

    /// # Shapes
    /// - `context`: `[batch, tokens, context_dim]`
    fn precompute(&self, context: &Tensor, mode: LoraMode) -> BlockCache {
        let adapted = self.attn1.is_adapted() || self.attn2.is_adapted();
        let merges = mode == LoraMode::Merged && adapted;
        BlockCache {
            prompt: self.attn2.keys_values(context),
            merged: merges.then(|| [self.attn1.merged(), self.attn2.merged_outside()]),
        }
    }

    fn forward(&self, x: &Tensor, context: AttentionContext<'_>) -> Tensor {
        let merged = match context {
            AttentionContext::Cached(blocks) => blocks[0].merged.as_ref(),
            AttentionContext::Embeddings(_) => None,
        };
        let (attn1, attn2) = match merged {
            Some([attn1, attn2]) => (attn1, attn2),
            None => (&self.attn1, &self.attn2),
        };
        let x = attn1.among(&self.norm1.forward(x)) + x;
        let computed;
        let prompt = match context {
            AttentionContext::Cached(blocks) => &blocks[0].prompt,
            AttentionContext::Embeddings(embeddings) => {
                computed = self.attn2.keys_values(embeddings);
                &computed
            }
        };
        let x = attn2.forward(&self.norm2.forward(&x), prompt) + x;
        let gated = self.ff_in.forward(&self.norm3.forward(&x)).chunk(2, -1);
        self.ff_out.forward(&(&gated[0] * gated[1].gelu("none"))) + x
    }
}

/// Attention among the positions of a feature map, and from them to the prompt.
pub struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Conv2d,
    blocks: Vec<TransformerBlock>,
    proj_out: Conv2d,
}

impl SpatialTransformer {
    /// `depth` transformer blocks; `heads` is what SD v1's config calls `attention_head_dim`.
    pub fn new(
        scope: &Scope<'_>,
        channels: i64,
        context_dim: i64,
        heads: i64,
        groups: i64,
        depth: i64,
    ) -> Self {
        let block = |i| {
            TransformerBlock::new(
                &(scope / format!("transformer_blocks.{i}")),
                channels,
                context_dim,
                heads,
            )
        };
        Self {
            norm: GroupNorm::new(&(scope / "norm"), groups, channels, NORM_EPS),
            proj_in: Conv2d::new(&(scope / "proj_in"), channels, channels, 1, 1, 0),
            blocks: (0..depth).map(block).collect(),
            proj_out: Conv2d::new(&(scope / "proj_out"), channels, channels, 1, 1, 0),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`
    /// - returns: as `x`
    pub fn forward(&self, x: &Tensor, context: AttentionContext<'_>) -> Tensor {
        let (batch, channels, height, width) = x.size4().expect("feature map has four dimensions");
        let h = self.proj_in.forward(&self.norm.forward(x));
        // On channels-last maps, which the UNet keeps on the CPU, neither change of layout copies anything.
        let mut h = h
            .permute([0, 2, 3, 1])
            .reshape([batch, height * width, channels]);
        for (i, block) in self.blocks.iter().enumerate() {
            h = block.forward(&h, context.part(i, 1));
        }
        let h = h
            .view([batch, height, width, channels])
            .permute([0, 3, 1, 2]);
        self.proj_out.forward(&h) + x
    }

    /// How many transformer blocks it has.
    pub(crate) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// What is the same at every time step, one a transformer block.
    pub(crate) fn precompute(&self, context: &Tensor, mode: LoraMode) -> Vec<BlockCache> {
        let blocks = self.blocks.iter();
        blocks.map(|b| b.precompute(context, mode)).collect()
    }

    /// Whether a weight or factor of it records gradients.
    pub(crate) fn is_trained(&self) -> bool {
        let attentions = |b: &TransformerBlock| b.attn1.is_trained() || b.attn2.is_trained();
        self.blocks.iter().any(attentions)
    }

    /// The attention projections, by name below `prefix`.
    pub(crate) fn linears(&mut self, prefix: &str) -> Vec<(String, &mut Linear)> {
        let mut all = Vec::new();
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let block_name = format!("{prefix}.transformer_blocks.{i}");
            all.extend(block.attn1.linears(&format!("{block_name}.attn1")));
            all.extend(block.attn2.linears(&format!("{block_name}.attn2")));
        }
        all
    }
}

/// The VAE's attention block.
pub struct VaeAttention {
    norm: GroupNorm,
    attention: Attention,
}

impl VaeAttention {
    /// One head over all channels.
    pub fn new(scope: &Scope<'_>, channels: i64, groups: i64) -> Self {
        Self {
            norm: GroupNorm::new(&(scope / "group_norm"), groups, channels, NORM_EPS),
            attention: Attention::single_head(scope, channels),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`
    /// - returns: as `x`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (batch, channels, height, width) = x.size4().expect("feature map has four dimensions");
        let h = self
            .norm
            .forward(x)
            .view([batch, channels, height * width])
            .transpose(1, 2)
            .contiguous();
        let h = self
            .attention
            .among(&h)
            .transpose(1, 2)
            .reshape([batch, channels, height, width]);
        h + x
    }
}
