//! BERTScore (Zhang et al. 2020) of one pair of texts, as in bert-score 0.3.13.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::{Error, Result, TextEncoder, TextTokenizer};

/// Similarity of two texts by the cosines of their token embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Mean over the candidate's tokens of the best match in the reference.
    pub precision: f32,
    /// Mean over the reference's tokens of the best match in the candidate: the paper's reward.
    pub recall: f32,
    /// Their harmonic mean.
    pub f1: f32,
}

/// BERTScore with an encoder, without inverse document frequencies and without rescaling.
///
/// `[CLS]` and `[SEP]` have weight 0 in the means but may be matched, as in the reference. Pairs are compared
/// one at a time: in a batch, the reference pads the cosines of shorter texts with zeros, which raises negative maxima
/// to 0, so that its scores depend on the other pairs of the batch.
pub struct BertScore {
    tokenizer: TextTokenizer,
    encoder: TextEncoder,
}

impl BertScore {
    /// Layer of `microsoft/deberta-xlarge-mnli` that agrees best with people (bert-score 0.3.13, `model2layers`);
    /// the paper's reward uses model and layer (jannerm/ddpo `llava_server/bertscore.py`).
    pub const DEBERTA_XLARGE_MNLI_LAYER: i64 = 40;

    /// Reads the encoder up to layer `n_layers` and its tokenizer from a folder in transformers' layout.
    ///
    /// # Errors
    /// Same as [`TextEncoder::open`] and [`TextTokenizer::open`]; [`Error::Mismatch`] if they do not fit together.
    pub fn open(folder: &Path, n_layers: i64, device: Device, kind: Kind) -> Result<Self> {
        let encoder = TextEncoder::open(folder, n_layers, device, kind)?;
        let tokenizer = TextTokenizer::open(folder, encoder.max_tokens())?;
        let (ids, rows) = (tokenizer.vocab_size() as i64, encoder.vocab_size());
        if ids > rows {
            let reason = format!(
                "{}: its tokenizer gives {ids} ids, there are {rows} embeddings",
                folder.display()
            );
            return Err(Error::Mismatch { reason });
        }
        Ok(Self { tokenizer, encoder })
    }

    /// The scores of one pair. Spaces around a text are ignored; all three are 0 if either text is empty.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Text`] if the tokenizer fails on a text.
    pub fn compare(&self, candidate: &str, reference: &str) -> Result<Agreement> {
        let (candidate, reference) = (self.tokens(candidate)?, self.tokens(reference)?);
        let is_empty = |tokens: &Tokens| tokens.weights.numel() == 2;
        if is_empty(&candidate) || is_empty(&reference) {
            return Ok(Agreement {
                precision: 0.0,
                recall: 0.0,
                f1: 0.0,
            });
        }
        let cosines = candidate.unit.matmul(&reference.unit.transpose(0, 1));
        let mean = |tokens: &Tokens, dim: i64| {
            let best = cosines.max_dim(dim, false).0;
            ((best * &tokens.weights).sum(Kind::Float) / tokens.weights.sum(Kind::Float))
                .double_value(&[])
        };
        let (precision, recall) = (mean(&candidate, 1), mean(&reference, 0));
        Ok(Agreement {
            precision: precision as f32,
            recall: recall as f32,
            f1: (2.0 * precision * recall / (precision + recall)) as f32,
        })
    }

    fn tokens(&self, text: &str) -> Result<Tokens> {
        let ids = self.tokenizer.encode(text.trim())?;
        let special = [self.tokenizer.cls(), self.tokenizer.sep()];
        let weights: Vec<f32> = ids
            .iter()
            .map(|id| if special.contains(id) { 0.0 } else { 1.0 })
            .collect();
        let states = tch::no_grad(|| self.encoder.forward(&Tensor::from_slice(&ids).unsqueeze(0)));
        // Cosines are f32 whatever the encoder's dtype.
        let states = states
            .squeeze_dim(0)
            .to_device(Device::Cpu)
            .to_kind(Kind::Float);
        let lengths = states.norm_scalaropt_dim(2.0, [-1_i64].as_slice(), true);
        Ok(Tokens {
            unit: states / lengths,
            weights: Tensor::from_slice(&weights),
        })
    }
}

/// The token embeddings of a text.
struct Tokens {
    /// `[tokens, width]`, each of length one.
    unit: Tensor,
    /// `[tokens]`.
    weights: Tensor,
}
