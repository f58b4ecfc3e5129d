//! BERT, optionally with BLIP's cross-attention.

use ddpo_torch::nn::{Embedding, LayerNorm};
use ddpo_torch::{Init, Scope};
use tch::{Kind, Tensor};

use crate::layers::{Attention, FeedForward, LayerDims};

/// Configuration of [`Bert::new`].
pub(crate) struct BertConfig {
    pub vocab_size: i64,
    pub max_positions: i64,
    /// Rows of the segment table; none if 0.
    pub n_types: i64,
    pub n_layers: i64,
    pub sizes: LayerDims,
    /// Width of the tokens of cross-attention; `None` for BERT itself.
    pub memory_width: Option<i64>,
}

/// A transformer over token ids.
pub(crate) struct Bert {
    words: Embedding,
    positions: Embedding,
    /// `[types, width]`; every token here is of the first.
    types: Option<Tensor>,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    attention: Attention,
    cross: Option<Attention>,
    feed_forward: FeedForward,
}

impl Bert {
    pub fn new(scope: &Scope<'_>, config: &BertConfig) -> Self {
        let embeddings = scope / "embeddings";
        let layers = &(scope / "encoder") / "layer";
        let LayerDims { width, eps, .. } = config.sizes;
        let table = |name, rows| Embedding::new(&(&embeddings / name), rows, width);
        let types = (config.n_types > 0).then(|| {
            (&embeddings / "token_type_embeddings").tensor(
                "weight",
                &[config.n_types, width],
                Init::Normal(0.02),
            )
        });
        Self {
            words: table("word_embeddings", config.vocab_size),
            positions: table("position_embeddings", config.max_positions),
            types,
            norm: LayerNorm::new(&(&embeddings / "LayerNorm"), width, eps),
            layers: (0..config.n_layers)
                .map(|i| Layer::new(&(&layers / i), config))
                .collect(),
        }
    }

    /// `ids`: `[batch, tokens]`; returns the embedding and the output of each layer, `[batch, tokens, width]`.
    pub fn states(&self, ids: &Tensor, memory: Option<&Tensor>) -> Vec<Tensor> {
        let mut states = vec![self.embed(ids)];
        for layer in &self.layers {
            let next = layer.forward(&states[states.len() - 1], memory);
            states.push(next);
        }
        states
    }

    /// The last of [`states`](Self::states), without storing the others.
    pub fn forward(&self, ids: &Tensor, memory: Option<&Tensor>) -> Tensor {
        let start = self.embed(ids);
        self.layers
            .iter()
            .fold(start, |x, layer| layer.forward(&x, memory))
    }

    fn embed(&self, ids: &Tensor) -> Tensor {
        let device = self.words.weight.device();
        let positions = Tensor::arange(ids.size()[1], (Kind::Int64, device));
        let mut x = self.words.forward(&ids.to_device(device)) + self.positions.forward(&positions);
        if let Some(types) = &self.types {
            x += types.get(0);
        }
        self.norm.forward(&x)
    }
}

impl Layer {
    fn new(scope: &Scope<'_>, config: &BertConfig) -> Self {
        let sizes = config.sizes;
        Self {
            attention: Attention::new(&(scope / "attention"), sizes, sizes.width),
            cross: config
                .memory_width
                .map(|width| Attention::new(&(scope / "crossattention"), sizes, width)),
            feed_forward: FeedForward::new(scope, sizes),
        }
    }

    fn forward(&self, x: &Tensor, memory: Option<&Tensor>) -> Tensor {
        let mut x = self.attention.forward(x, x);
        if let (Some(cross), Some(memory)) = (&self.cross, memory) {
            x = cross.forward(&x, memory);
        }
        self.feed_forward.forward(&x)
    }
}
