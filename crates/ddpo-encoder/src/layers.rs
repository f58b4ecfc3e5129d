//! Layers that BERT, DeBERTa and BLIP's text encoder share, in their names.

use ddpo_torch::Scope;
use ddpo_torch::nn::{LayerNorm, Linear};
use tch::Tensor;

/// Sizes of a layer.
#[derive(Clone, Copy)]
pub(crate) struct LayerDims {
    pub width: i64,
    /// Width inside the MLP.
    pub inner: i64,
    pub n_heads: i64,
    /// ε of the layer norms.
    pub eps: f64,
}

/// A linear layer, residual connection and norm: the output of attention and of the MLP.
pub(crate) struct Output {
    dense: Linear,
    norm: LayerNorm,
}

impl Output {
    pub fn new(scope: &Scope<'_>, n_in: i64, n_out: i64, eps: f64) -> Self {
        Self {
            dense: Linear::new(&(scope / "dense"), n_in, n_out),
            norm: LayerNorm::new(&(scope / "LayerNorm"), n_out, eps),
        }
    }

    pub fn forward(&self, x: &Tensor, shortcut: &Tensor) -> Tensor {
        self.norm.forward(&(self.dense.forward(x) + shortcut))
    }
}

/// The MLP of a layer.
pub(crate) struct FeedForward {
    intermediate: Linear,
    output: Output,
}

impl FeedForward {
    /// `scope` is the layer's.
    pub fn new(scope: &Scope<'_>, sizes: LayerDims) -> Self {
        let intermediate = &(scope / "intermediate") / "dense";
        Self {
            intermediate: Linear::new(&intermediate, sizes.width, sizes.inner),
            output: Output::new(&(scope / "output"), sizes.inner, sizes.width, sizes.eps),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let inner = self.intermediate.forward(x).gelu("none");
        self.output.forward(&inner, x)
    }
}

/// Attention to the same tokens, or to those of another network.
pub(crate) struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Output,
    n_heads: i64,
}

impl Attention {
    /// `memory_width` is the width of the tokens attended to.
    pub fn new(scope: &Scope<'_>, sizes: LayerDims, memory_width: i64) -> Self {
        let own = scope / "self";
        let linear = |name, n_in| Linear::new(&(&own / name), n_in, sizes.width);
        Self {
            query: linear("query", sizes.width),
            key: linear("key", memory_width),
            value: linear("value", memory_width),
            output: Output::new(&(scope / "output"), sizes.width, sizes.width, sizes.eps),
            n_heads: sizes.n_heads,
        }
    }

    /// `x`: `[batch, tokens, width]`, `memory`: `[batch, others, memory_width]`.
    pub fn forward(&self, x: &Tensor, memory: &Tensor) -> Tensor {
        let heads = |layer: &Linear, x: &Tensor| split_heads(&layer.forward(x), self.n_heads);
        let seen = attend(
            &heads(&self.query, x),
            &heads(&self.key, memory),
            &heads(&self.value, memory),
        );
        self.output.forward(&join_heads(&seen), x)
    }
}

/// `[batch, tokens, heads * n]` to `[batch, heads, tokens, n]`.
pub(crate) fn split_heads(x: &Tensor, n_heads: i64) -> Tensor {
    let size = x.size();
    x.view([size[0], size[1], n_heads, -1]).transpose(1, 2)
}

/// The inverse of splitting heads.
pub(crate) fn join_heads(x: &Tensor) -> Tensor {
    let size = x.size();
    x.transpose(1, 2)
        .reshape([size[0], size[2], size[1] * size[3]])
}

/// Softmax attention of every query to every key.
pub(crate) fn attend(query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
    Tensor::scaled_dot_product_attention(
        query,
        key,
        value,
        None::<&Tensor>,
        0.0,
        false,
        None,
        false,
    )
}
