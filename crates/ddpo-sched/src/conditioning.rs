//! What a network is conditioned on, as one value.

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Conditioning of a batch: the embeddings that a denoiser gets beside latents and timesteps.
///
/// Stable Diffusion v1 has `tokens` alone. Models with two text encoders add `pooled` (SDXL's `text_embeds`) and
/// `added` (SDXL's `time_ids`). All parts have the batch first and lie on one device.
#[derive(Debug)]
pub struct Conditioning {
    /// One embedding per token, `[batch, tokens, dim]`.
    pub tokens: Tensor,
    /// One embedding per prompt, `[batch, dim]`.
    pub pooled: Option<Tensor>,
    /// Whatever else the network adds to its time embedding, `[batch, …]`.
    pub added: Option<Tensor>,
}

impl Conditioning {
    /// Token embeddings alone.
    ///
    /// # Shapes
    /// - `tokens`: `[batch, tokens, dim]`
    pub fn new(tokens: Tensor) -> Self {
        Self {
            tokens,
            pooled: None,
            added: None,
        }
    }

    /// Adds one embedding per prompt, `[batch, dim]`.
    #[must_use]
    pub fn with_pooled(mut self, pooled: Tensor) -> Self {
        self.pooled = Some(pooled);
        self
    }

    /// Adds embeddings of the model's own, `[batch, …]`.
    #[must_use]
    pub fn with_added(mut self, added: Tensor) -> Self {
        self.added = Some(added);
        self
    }

    /// Nothing for each of `batch` samples: for denoisers that are not conditioned.
    pub fn none(batch: usize, device: Device) -> Self {
        Self::new(Tensor::zeros([batch as i64, 0, 0], (Kind::Float, device)))
    }

    /// How many samples.
    pub fn batch(&self) -> usize {
        self.tokens.size().first().map_or(0, |&n| n as usize)
    }

    /// Where it lies, and where samples are drawn.
    pub fn device(&self) -> Device {
        self.tokens.device()
    }

    /// The rows at `index`, in that order; a row may be named several times.
    ///
    /// # Shapes
    /// - `index`: i64 `[n]`, any device; returns a batch of n
    pub fn select(&self, index: &Tensor) -> Self {
        let index = index.to_device(self.device());
        self.map(|part| part.index_select(0, &index))
    }

    /// `n` rows from `first` on, sharing memory.
    pub fn narrow(&self, first: usize, n: usize) -> Self {
        self.map(|part| part.narrow(0, first as i64, n as i64))
    }

    /// One batch after another.
    ///
    /// # Errors
    /// [`Error::Config`] for nothing, or if only some of them have `pooled` or `added`.
    pub fn cat(all: &[&Self]) -> Result<Self> {
        let join = |name: &'static str, part: fn(&Self) -> Option<&Tensor>| {
            let parts: Vec<&Tensor> = all.iter().filter_map(|cond| part(cond)).collect();
            match parts.len() {
                0 => Ok(None),
                n if n == all.len() => Ok(Some(Tensor::cat(&parts, 0))),
                n => {
                    let expected = format!("must be there for all {} batches or none", all.len());
                    Err(Error::config(name, n, expected))
                }
            }
        };
        let tokens = join("tokens", |cond| Some(&cond.tokens))?;
        Ok(Self {
            tokens: tokens.ok_or_else(|| Error::config("conditioning", 0, "has no batch"))?,
            pooled: join("pooled", |cond| cond.pooled.as_ref())?,
            added: join("added", |cond| cond.added.as_ref())?,
        })
    }

    /// The first row for each of `batch` samples, sharing memory: the unconditional embedding.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is exactly one row.
    pub fn expand(&self, batch: usize) -> Result<Self> {
        if self.batch() != 1 {
            let mut expected = self.tokens.size();
            if let Some(first) = expected.first_mut() {
                *first = 1;
            }
            return Err(Error::Shape {
                name: "conditioning to repeat",
                expected,
                actual: self.tokens.size(),
            });
        }
        Ok(self.map(|part| {
            let mut shape = part.size();
            shape[0] = batch as i64;
            part.expand(&shape, false)
        }))
    }

    /// On another device; shares memory where it is there already.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        self.map(|part| part.to_device(device))
    }

    /// In another kind.
    #[must_use]
    pub fn to_kind(&self, kind: Kind) -> Self {
        self.map(|part| part.to_kind(kind))
    }

    /// Refuses conditioning of another number of samples than `batch`.
    ///
    /// # Errors
    /// [`Error::Shape`] with the part.
    pub fn check(&self, batch: usize) -> Result<()> {
        for (name, part) in self.parts() {
            let mut expected = part.size();
            if let Some(first) = expected.first_mut() {
                *first = batch as i64;
            }
            crate::check_shape(part, name, &expected)?;
        }
        Ok(())
    }

    /// The parts that there are, with names that state is saved under.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let optional = [("pooled", &self.pooled), ("added", &self.added)];
        let optional = optional
            .into_iter()
            .filter_map(|(name, part)| Some((name, part.as_ref()?)));
        std::iter::once(("cond", &self.tokens)).chain(optional)
    }

    /// The same of every part.
    pub fn map(&self, part: impl Fn(&Tensor) -> Tensor) -> Self {
        Self {
            tokens: part(&self.tokens),
            pooled: self.pooled.as_ref().map(&part),
            added: self.added.as_ref().map(&part),
        }
    }
}

impl Clone for Conditioning {
    /// Shares memory.
    fn clone(&self) -> Self {
        self.map(Tensor::shallow_clone)
    }
}

impl From<Tensor> for Conditioning {
    /// Token embeddings alone, `[batch, tokens, dim]`.
    fn from(tokens: Tensor) -> Self {
        Self::new(tokens)
    }
}
