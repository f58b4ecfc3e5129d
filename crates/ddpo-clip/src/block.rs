//! The transformer block of both of CLIP's towers.

use ddpo_torch::Scope;
use ddpo_torch::nn::{LayerNorm, Linear};
use tch::Tensor;

use crate::Activation;

/// Sizes of a [`Block`].
pub(crate) struct BlockConfig {
    pub width: i64,
    /// Width inside the MLP.
    pub inner: i64,
    pub n_heads: i64,
    pub activation: Activation,
    /// ε of the layer norms.
    pub eps: f64,
    /// Whether attention is causal.
    pub causal: bool,
}

/// One transformer block: attention and MLP, each with a pre-norm and a residual connection.
pub(crate) struct Block {
    layer_norm1: LayerNorm,
    attention: Attention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    activation: Activation,
    fc2: Linear,
}

impl Block {
    pub fn new(scope: &Scope<'_>, config: &BlockConfig) -> Self {
        let &BlockConfig { width, inner, .. } = config;
        let norm = |name| LayerNorm::new(&(scope / name), width, config.eps);
        let mlp = scope / "mlp";
        Self {
            layer_norm1: norm("layer_norm1"),
            attention: Attention::new(&(scope / "self_attn"), config),
            layer_norm2: norm("layer_norm2"),
            fc1: Linear::new(&(&mlp / "fc1"), width, inner),
            activation: config.activation,
            fc2: Linear::new(&(&mlp / "fc2"), inner, width),
        }
    }

    /// `[batch, tokens, width]` in and out.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention.forward(&self.layer_norm1.forward(x));
        let inner = self.fc1.forward(&self.layer_norm2.forward(&x));
        let inner = match self.activation {
            Activation::QuickGelu => &inner * (&inner * 1.702).sigmoid(),
            Activation::Gelu => inner.gelu("none"),
        };
        x + self.fc2.forward(&inner)
    }
}

/// Self-attention, causal or over all tokens.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    n_heads: i64,
    causal: bool,
}

impl Attention {
    fn new(scope: &Scope<'_>, config: &BlockConfig) -> Self {
        let linear = |name| Linear::new(&(scope / name), config.width, config.width);
        Self {
            q_proj: linear("q_proj"),
            k_proj: linear("k_proj"),
            v_proj: linear("v_proj"),
            out_proj: linear("out_proj"),
            n_heads: config.n_heads,
            causal: config.causal,
        }
    }

    /// `[batch, tokens, width]` in and out.
    fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let heads = |layer: &Linear| {
            layer
                .forward(x)
                .view([size[0], size[1], self.n_heads, -1])
                .transpose(1, 2)
        };
        let out = Tensor::scaled_dot_product_attention(
            &heads(&self.q_proj),
            &heads(&self.k_proj),
            &heads(&self.v_proj),
            None::<&Tensor>,
            0.0,
            self.causal,
            None,
            false,
        );
        let out = out.transpose(1, 2).reshape(size.as_slice());
        self.out_proj.forward(&out)
    }
}
