//! CLIP's text tower: a causal transformer over token ids.

use ddpo_torch::Scope;
use ddpo_torch::nn::{Embedding, LayerNorm};
use tch::{Kind, Tensor};

use crate::block::{Block, BlockConfig};
use crate::{ClipTextConfig, ClipTokenizer, Error, Result};

/// The text encoder of Stable Diffusion v1: token ids in, one vector per token out.
///
/// Differentiable in its weights: to train it, make the tensors of the [`Scope`] require gradients; otherwise
/// call it under `tch::no_grad`.
pub struct ClipTextModel {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<Block>,
    final_layer_norm: LayerNorm,
}

impl ClipTextModel {
    /// Takes its weights from `scope`, in transformers' names.
    ///
    /// transformers up to 4 wrote every name with the prefix `text_model.`, 5 writes it without; both
    /// versions read the former, so that new weights have the prefix. Files may have either.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes out of range. Weights that are missing or misshapen are reported by
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
        let block = BlockConfig {
            width,
            inner: config.intermediate_size,
            n_heads: config.num_attention_heads,
            activation: config.hidden_act,
            eps: config.layer_norm_eps,
            causal: true,
        };
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
                .map(|i| Block::new(&(&blocks / i), &block))
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
    /// If ids or lengths are out of range; [`check`](Self::check) the tokenizer once instead.
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

    /// Checks that every id and every length of `tokenizer` has an embedding.
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
