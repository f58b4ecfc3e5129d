//! CLIP's text tower: a causal transformer over token ids.

use ddpo_torch::Scope;
use ddpo_torch::nn::{Embedding, LayerNorm, Linear};
use tch::{Kind, Tensor};

use crate::{Activation, ClipTextConfig, ClipTokenizer, Error, Result};

/// The text encoder of Stable Diffusion v1: token ids in, one vector a token out.
///
/// An ordinary differentiable function of its weights: whoever trains it marks the tensors of the
/// [`Scope`] as leaves; whoever does not calls it under `tch::no_grad`.
pub struct ClipTextModel {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
}

impl ClipTextModel {
    /// Takes its weights from `scope`, in transformers' names.
    ///
    /// transformers up to 4 wrote every name with `text_model.` in front, 5 writes it without; both
    /// versions read the former, so that is what an empty source gets. A file decides for itself.
    ///
    /// # Errors
    /// [`Error::Config`] for impossible sizes. Weights that are missing or misshapen are reported by
    /// the scope's [`finish`](ddpo_torch::Store::finish).
    pub fn new(scope: &Scope<'_>, config: &ClipTextConfig) -> Result<Self> {
        config.check("text encoder")?;
        let old = scope / "text_model";
        let has = |scope: &Scope<'_>| scope.contains("embeddings.token_embedding.weight");
        let scope = if !has(&old) && has(scope) {
            scope
        } else {
            &old
        };
        let embeddings = scope / "embeddings";
        let width = config.hidden_size;
        let blocks = &(scope / "encoder") / "layers";
        Ok(Self {
            token_embedding: Embedding::new(
                &(&embeddings / "token_embedding"),
                config.vocab_size,
                width,
            ),
            position_embedding: Embedding::new(
                &(&embeddings / "position_embedding"),
                config.max_position_embeddings,
                width,
            ),
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(&(&blocks / i), config))
                .collect(),
            final_layer_norm: LayerNorm::new(
                &(scope / "final_layer_norm"),
                width,
                config.layer_norm_eps,
            ),
        })
    }

    /// The last hidden state, after the final layer norm: what Stable Diffusion v1 attends to.
    ///
    /// # Shapes
    /// - `ids`: `[batch, tokens]`, i64, on any device; at most `max_position_embeddings` tokens
    /// - returns: `[batch, tokens, hidden]`, in the weights' kind and on their device
    ///
    /// # Panics
    /// On ids or lengths beyond the tables; [`check`](Self::check) a tokenizer once instead.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        let device = self.token_embedding.weight.device();
        let positions = Tensor::arange(ids.size()[1], (Kind::Int64, device));
        let mut x = self.token_embedding.forward(&ids.to_device(device))
            + self.position_embedding.forward(&positions);
        for layer in &self.layers {
            x = layer.forward(&x);
        }
        self.final_layer_norm.forward(&x)
    }

    /// Whether every id and every length that `tokenizer` gives has a row here.
    ///
    /// # Errors
    /// [`Error::Mismatch`] with both figures.
    pub fn check(&self, tokenizer: &ClipTokenizer) -> Result<()> {
        let (rows, n_ids) = (
            self.token_embedding.weight.size()[0],
            tokenizer.vocab_size(),
        );
        let (positions, length) = (
            self.position_embedding.weight.size()[0],
            tokenizer.max_length(),
        );
        if n_ids as i64 > rows {
            let reason = format!(
                "it gives ids up to {}, there are {rows} embeddings",
                n_ids - 1
            );
            return Err(Error::Mismatch { reason });
        }
        if length as i64 > positions {
            let reason = format!("it pads to {length} tokens, there are {positions} positions");
            return Err(Error::Mismatch { reason });
        }
        Ok(())
    }
}

/// One transformer block: attention and MLP, each after a norm and beside a shortcut.
struct Layer {
    layer_norm1: LayerNorm,
    attention: Attention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    activation: Activation,
    fc2: Linear,
}

impl Layer {
    fn new(scope: &Scope<'_>, config: &ClipTextConfig) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let norm = |name| LayerNorm::new(&(scope / name), width, config.layer_norm_eps);
        let mlp = scope / "mlp";
        Self {
            layer_norm1: norm("layer_norm1"),
            attention: Attention::new(&(scope / "self_attn"), width, config.num_attention_heads),
            layer_norm2: norm("layer_norm2"),
            fc1: Linear::new(&(&mlp / "fc1"), width, inner),
            activation: config.hidden_act,
            fc2: Linear::new(&(&mlp / "fc2"), inner, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention.forward(&self.layer_norm1.forward(x));
        let inner = self.fc1.forward(&self.layer_norm2.forward(&x));
        let inner = match self.activation {
            Activation::QuickGelu => &inner * (&inner * 1.702).sigmoid(),
            Activation::Gelu => inner.gelu("none"),
        };
        x + self.fc2.forward(&inner)
    }
}

/// Self-attention in which a token sees itself and those before it.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    n_heads: i64,
}

impl Attention {
    fn new(scope: &Scope<'_>, width: i64, n_heads: i64) -> Self {
        let linear = |name| Linear::new(&(scope / name), width, width);
        Self {
            q_proj: linear("q_proj"),
            k_proj: linear("k_proj"),
            v_proj: linear("v_proj"),
            out_proj: linear("out_proj"),
            n_heads,
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
            true,
            None,
            false,
        );
        let out = out.transpose(1, 2).reshape(size.as_slice());
        self.out_proj.forward(&out)
    }
}
