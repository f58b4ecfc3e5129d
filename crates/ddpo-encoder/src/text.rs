//! Text encoders from folders: BERT or DeBERTa.

use std::path::Path;

use ddpo_clip::files::weights;
use ddpo_torch::{Scope, Store};
use tch::{Device, Kind, Tensor};

use crate::bert::{Bert, BertConfig};
use crate::deberta::Deberta;
use crate::layers::LayerDims;
use crate::{Error, Result, TextConfig};

/// BERT (including MiniLM) or DeBERTa, up to a given layer.
pub struct TextEncoder {
    net: Net,
    device: Device,
    max_tokens: i64,
    vocab_size: i64,
}

enum Net {
    Bert(Bert),
    Deberta(Deberta),
}

impl TextEncoder {
    /// Takes the weights of the first `n_layers` from `scope`, in transformers' names.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Config`] for impossible sizes, [`Error::Mismatch`] for more layers than there are. Weights that are
    /// missing or misshapen are reported by the scope's [`finish`](ddpo_torch::Store::finish).
    pub fn new(
        scope: &Scope<'_>,
        config: &TextConfig,
        n_layers: i64,
        device: Device,
    ) -> Result<Self> {
        config.check("text encoder")?;
        if !(1..=config.num_hidden_layers).contains(&n_layers) {
            let reason = format!(
                "layer {n_layers} does not exist: the encoder has layers 1 to {}",
                config.num_hidden_layers
            );
            return Err(Error::Mismatch { reason });
        }
        let net = if config.model_type == "deberta" {
            Net::Deberta(Deberta::new(scope, config, n_layers))
        } else {
            let sizes = LayerDims {
                width: config.hidden_size,
                inner: config.intermediate_size,
                n_heads: config.num_attention_heads,
                eps: config.layer_norm_eps,
            };
            Net::Bert(Bert::new(
                scope,
                &BertConfig {
                    vocab_size: config.vocab_size,
                    max_positions: config.max_position_embeddings,
                    n_types: config.type_vocab_size,
                    n_layers,
                    sizes,
                    memory_width: None,
                },
            ))
        };
        Ok(Self {
            net,
            device,
            max_tokens: config.max_position_embeddings,
            vocab_size: config.vocab_size,
        })
    }

    /// Reads the first `n_layers` from a folder in transformers' layout: `config.json` and `model.safetensors` (or
    /// `pytorch_model.bin`). Heads for other purposes and later layers may be in the file too.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Io`], [`ddpo_clip::Error::Damaged`], [`ddpo_clip::Error::Config`], [`Error::Mismatch`] or [`Error::Torch`], each with the
    /// file.
    pub fn open(folder: &Path, n_layers: i64, device: Device, kind: Kind) -> Result<Self> {
        let config = TextConfig::from_file(&folder.join("config.json"))?;
        let prefix = format!("{}.", config.model_type);
        let store = Store::open(&weights(folder), device, kind)?
            .with_aliases(older_names)
            .with_unneeded(move |name| {
                let name = name.strip_prefix(&prefix).unwrap_or(name);
                is_other(name, n_layers)
            });
        let root = store.root();
        let inner = &root / &config.model_type;
        let first = "embeddings.word_embeddings.weight";
        let scope = if inner.contains(first) { &inner } else { &root };
        let encoder = Self::new(scope, &config, n_layers, device)?;
        store.finish()?;
        Ok(encoder)
    }

    /// The tokens after the last of the layers.
    ///
    /// # Shapes
    /// - `ids`: `[batch, tokens]`, i64, on any device, without padding
    /// - returns: `[batch, tokens, hidden_size]`, in the weights' kind and on their device
    ///
    /// # Panics
    /// If ids are out of range or there are more than [`max_tokens`](Self::max_tokens).
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        match &self.net {
            Net::Bert(net) => net.forward(ids, None),
            Net::Deberta(net) => net.forward(ids),
        }
    }

    /// The embedding and the tokens after each layer, `1 + n_layers` in all, shapes as of
    /// [`forward`](Self::forward).
    pub fn states(&self, ids: &Tensor) -> Vec<Tensor> {
        match &self.net {
            Net::Bert(net) => net.states(ids, None),
            Net::Deberta(net) => net.states(ids),
        }
    }

    /// Maximum number of tokens of a text.
    pub fn max_tokens(&self) -> i64 {
        self.max_tokens
    }

    /// Rows of the token table.
    pub fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    /// Device of the weights.
    pub fn device(&self) -> Device {
        self.device
    }
}

/// What published files hold besides the encoder: heads, and later layers.
fn is_other(name: &str, n_layers: i64) -> bool {
    let layer = name
        .strip_prefix("encoder.layer.")
        .and_then(|rest| rest.split('.').next()?.parse::<i64>().ok());
    let heads = ["pooler.", "classifier.", "cls.", "lm_predictions."];
    layer.is_some_and(|layer| layer >= n_layers) || heads.iter().any(|head| name.starts_with(head))
}

/// Files of 2019 name the weights of norms by Greek letters.
fn older_names(name: &str) -> Vec<String> {
    let greek = [(".weight", ".gamma"), (".bias", ".beta")];
    greek
        .into_iter()
        .filter_map(|(new, old)| {
            let stem = name.strip_suffix(new)?;
            stem.ends_with("LayerNorm").then(|| format!("{stem}{old}"))
        })
        .collect()
}
