//! DeBERTa (He et al. 2021): disentangled attention to content and distance.
//!
//! The score of a query i and a key j is the sum of content to content, content to distance (`c2p`) and distance
//! to content (`p2c`), each over the square root of the head's width times the number of terms. As transformers
//! 5.23.0 computes it (`modeling_deberta.py`), where distances beyond the text's own length are cut off.

use ddpo_torch::nn::{Embedding, LayerNorm, Linear};
use ddpo_torch::{Init, Scope};
use tch::{Kind, Tensor};

use crate::TextConfig;
use crate::layers::{FeedForward, LayerDims, Output, join_heads, split_heads};

pub(crate) struct Deberta {
    words: Embedding,
    positions: Option<Embedding>,
    /// `[types, width]`; every token here is of the first.
    types: Option<Tensor>,
    norm: LayerNorm,
    /// `[2 * max_distance, width]`, from the most negative distance up.
    distances: Option<Tensor>,
    max_distance: i64,
    layers: Vec<Layer>,
}

struct Layer {
    attention: Disentangled,
    output: Output,
    feed_forward: FeedForward,
}

impl Deberta {
    /// With the first `n_layers` layers of the file.
    pub fn new(scope: &Scope<'_>, config: &TextConfig, n_layers: i64) -> Self {
        let (embeddings, encoder) = (scope / "embeddings", scope / "encoder");
        let width = config.hidden_size;
        let table = |name, rows| Embedding::new(&(&embeddings / name), rows, width);
        let max_distance = match config.max_relative_positions {
            n if n < 1 => config.max_position_embeddings,
            n => n,
        };
        let distances = config.relative_attention.then(|| {
            (&encoder / "rel_embeddings").tensor(
                "weight",
                &[2 * max_distance, width],
                Init::Normal(0.02),
            )
        });
        let types = (config.type_vocab_size > 0)
            .then(|| table("token_type_embeddings", config.type_vocab_size).weight);
        let layers = &encoder / "layer";
        Self {
            words: table("word_embeddings", config.vocab_size),
            positions: config
                .position_biased_input
                .then(|| table("position_embeddings", config.max_position_embeddings)),
            types,
            norm: LayerNorm::new(&(&embeddings / "LayerNorm"), width, config.layer_norm_eps),
            distances,
            max_distance,
            layers: (0..n_layers)
                .map(|i| Layer::new(&(&layers / i), config))
                .collect(),
        }
    }

    /// `ids`: `[batch, tokens]`; returns the embedding and the output of each layer, `[batch, tokens, width]`.
    pub fn states(&self, ids: &Tensor) -> Vec<Tensor> {
        let distances = self.near(ids.size()[1]);
        let mut states = vec![self.embed(ids)];
        for layer in &self.layers {
            let next = layer.forward(&states[states.len() - 1], distances.as_ref());
            states.push(next);
        }
        states
    }

    /// The last of [`states`](Self::states), without storing the others.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        let distances = self.near(ids.size()[1]);
        self.layers.iter().fold(self.embed(ids), |x, layer| {
            layer.forward(&x, distances.as_ref())
        })
    }

    fn embed(&self, ids: &Tensor) -> Tensor {
        let device = self.words.weight.device();
        let mut x = self.words.forward(&ids.to_device(device));
        if let Some(positions) = &self.positions {
            let places = Tensor::arange(ids.size()[1], (Kind::Int64, device));
            x += positions.forward(&places);
        }
        if let Some(types) = &self.types {
            x += types.get(0);
        }
        self.norm.forward(&x)
    }

    /// The distances that occur between `n_tokens` tokens.
    fn near(&self, n_tokens: i64) -> Option<Distances> {
        let table = self.distances.as_ref()?;
        let span = n_tokens.min(self.max_distance);
        let places = Tensor::arange(n_tokens, (Kind::Int64, table.device()));
        let distance = places.unsqueeze(1) - places.unsqueeze(0);
        let row = |distance: &Tensor| (distance + span).clamp(0, 2 * span - 1);
        Some(Distances {
            table: table
                .narrow(0, self.max_distance - span, 2 * span)
                .unsqueeze(0),
            forth: row(&distance),
            back: row(&-distance),
        })
    }
}

/// Of a text's own length.
struct Distances {
    /// `[1, 2 * span, width]`.
    table: Tensor,
    /// `[tokens, tokens]`: the row of i - j.
    forth: Tensor,
    /// `[tokens, tokens]`: the row of j - i.
    back: Tensor,
}

impl Layer {
    fn new(scope: &Scope<'_>, config: &TextConfig) -> Self {
        let sizes = LayerDims {
            width: config.hidden_size,
            inner: config.intermediate_size,
            n_heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
        };
        let attention = scope / "attention";
        Self {
            attention: Disentangled::new(&(&attention / "self"), config),
            output: Output::new(
                &(&attention / "output"),
                sizes.width,
                sizes.width,
                sizes.eps,
            ),
            feed_forward: FeedForward::new(scope, sizes),
        }
    }

    fn forward(&self, x: &Tensor, distances: Option<&Distances>) -> Tensor {
        let x = self
            .output
            .forward(&self.attention.forward(x, distances), x);
        self.feed_forward.forward(&x)
    }
}

struct Disentangled {
    /// Query, key and value of the first head, then of the second, and so on.
    in_proj: Linear,
    /// `[width]`.
    q_bias: Tensor,
    /// `[width]`.
    v_bias: Tensor,
    /// Content to distance.
    pos_proj: Option<Linear>,
    /// Distance to content.
    pos_q_proj: Option<Linear>,
    n_heads: i64,
    /// Of every term.
    scale: f64,
}

impl Disentangled {
    fn new(scope: &Scope<'_>, config: &TextConfig) -> Self {
        let width = config.hidden_size;
        let has = |term: &str| {
            let listed = config.pos_att_type.0.iter().any(|t| t == term);
            config.relative_attention && listed
        };
        let n_terms = 1 + config.pos_att_type.0.len() as i64;
        let head = width / config.num_attention_heads;
        Self {
            in_proj: Linear::without_bias(&(scope / "in_proj"), width, 3 * width),
            q_bias: scope.tensor("q_bias", &[width], Init::Zeros),
            v_bias: scope.tensor("v_bias", &[width], Init::Zeros),
            pos_proj: has("c2p").then(|| Linear::without_bias(&(scope / "pos_proj"), width, width)),
            pos_q_proj: has("p2c").then(|| Linear::new(&(scope / "pos_q_proj"), width, width)),
            n_heads: config.num_attention_heads,
            scale: 1.0 / ((head * n_terms) as f64).sqrt(),
        }
    }

    /// `[batch, tokens, width]` in and out.
    fn forward(&self, x: &Tensor, distances: Option<&Distances>) -> Tensor {
        let all = split_heads(&self.in_proj.forward(x), self.n_heads).chunk(3, -1);
        let bias = |bias: &Tensor| bias.view([1, self.n_heads, 1, -1]);
        let query = (&all[0] + bias(&self.q_bias)) * self.scale;
        let (key, value) = (&all[1], &all[2] + bias(&self.v_bias));
        let mut scores = query.matmul(&key.transpose(-1, -2));
        if let Some(distances) = distances {
            let size = scores.size();
            let of = |layer: &Linear| {
                split_heads(&layer.forward(&distances.table), self.n_heads).transpose(-1, -2)
            };
            let pick = |all: Tensor, rows: &Tensor| {
                all.gather(-1, &rows.expand(size.as_slice(), false), false)
            };
            if let Some(layer) = &self.pos_proj {
                scores += pick(query.matmul(&of(layer)), &distances.forth);
            }
            if let Some(layer) = &self.pos_q_proj {
                let scaled = of(layer) * self.scale;
                scores += pick(key.matmul(&scaled), &distances.back).transpose(-1, -2);
            }
        }
        let kind = scores.kind();
        join_heads(&scores.softmax(-1, kind).matmul(&value))
    }
}
