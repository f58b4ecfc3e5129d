//! A round's samples on their way from the denoising loop to the loss, on the host.

use ddpo_reward::Images;
use ddpo_sched::Conditioning;
use ddpo_train::{
    Error, LatentPosterior, Persist, Result, RolloutSink, StateReader, StateWriter, TrainContext,
};
use tch::{Device, Kind, Tensor};

use crate::Latents;

/// Takes x₀, or where the encoder puts it, while samples are drawn.
#[derive(Debug)]
pub struct SampleCollector {
    latents: Latents,
    means: Vec<Tensor>,
    stds: Vec<Tensor>,
}

impl SampleCollector {
    /// Nothing yet.
    pub fn new(latents: Latents) -> Self {
        Self {
            latents,
            means: Vec::new(),
            stds: Vec::new(),
        }
    }
}

impl RolloutSink for SampleCollector {
    fn clear(&mut self) {
        *self = Self::new(self.latents);
    }

    fn on_latents(&mut self, sample_ids: &[u64], _cond: &Conditioning, x_0: &Tensor) -> Result<()> {
        if x_0.isfinite().all().int64_value(&[]) == 0 {
            let detail = format!("x_0, samples {sample_ids:?}");
            let what = "latent";
            return Err(Error::NonFinite { what, detail });
        }
        if self.latents == Latents::Sampled {
            self.means.push(on_host(x_0));
        }
        Ok(())
    }

    fn on_images(&mut self, ctx: &TrainContext<'_>, images: &Images) -> Result<()> {
        if self.latents == Latents::Reencoded {
            let encoder = ctx.model.encoder.ok_or_else(no_encoder)?;
            let LatentPosterior { mean, std } = encoder.encode(images)?;
            self.means.push(on_host(&mean));
            self.stds.push(on_host(&std));
        }
        Ok(())
    }
}

/// Training on images needs one.
pub(crate) fn no_encoder() -> Error {
    Error::config(
        "latents",
        "re-encoded",
        "needs an encoder, and the model has none",
    )
}

impl Persist for SampleCollector {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        for (name, parts) in [("means", &self.means), ("stds", &self.stds)] {
            out.value(&format!("n_{name}"), &parts.len())?;
            for (i, part) in parts.iter().enumerate() {
                out.tensor(&format!("{name}.{i}"), part);
            }
        }
        Ok(())
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        for (name, parts) in [("means", &mut self.means), ("stds", &mut self.stds)] {
            let n: usize = from.value(&format!("n_{name}"))?;
            let read = (0..n).map(|i| from.tensor(&format!("{name}.{i}")));
            *parts = read.collect::<Result<_>>()?;
        }
        Ok(())
    }
}

fn on_host(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float)
}

/// The samples of a round that have a weight, of all ranks, in the order of their ids.
#[derive(Debug)]
pub struct Pool {
    /// Their keys.
    pub sample_ids: Vec<u64>,
    /// Their weights in the loss; none is 0.
    pub weights: Vec<f32>,
    /// x₀, or the mean of the encoder's posterior, f32 `[samples, channels, height, width]`, on the host.
    pub(crate) means: Tensor,
    /// Standard deviation of that posterior; none where it is the sampled latents.
    pub(crate) stds: Option<Tensor>,
}

impl Pool {
    /// How many samples.
    pub fn len(&self) -> usize {
        self.sample_ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sample_ids.is_empty()
    }

    /// Exchanges what the ranks have collected; samples without a weight are dropped.
    ///
    /// Rank r has drawn the r-th of equal parts of ids 0, 1, …; `weights` has one entry per id.
    pub(crate) fn gather(
        ctx: &TrainContext<'_>,
        collected: &SampleCollector,
        weights: &[f64],
    ) -> Result<Self> {
        let kept = |id: &usize| weights[*id] > 0.0;
        let sample_ids: Vec<usize> = (0..weights.len()).filter(kept).collect();
        let mut row_of = vec![None; weights.len()];
        for (row, &id) in sample_ids.iter().enumerate() {
            row_of[id] = Some(row as i64);
        }
        let gather = |parts: &[Tensor]| exchange(ctx, parts, &row_of, sample_ids.len());
        let means = gather(&collected.means)?;
        let stds = match collected.stds.as_slice() {
            [] => None,
            parts => Some(gather(parts)?),
        };
        Ok(Self {
            weights: sample_ids.iter().map(|&id| weights[id] as f32).collect(),
            sample_ids: sample_ids.into_iter().map(|id| id as u64).collect(),
            means,
            stds,
        })
    }

    /// Nothing, for state to be loaded into.
    pub(crate) fn empty() -> Self {
        Self {
            sample_ids: Vec::new(),
            weights: Vec::new(),
            means: Tensor::zeros([0], (Kind::Float, Device::Cpu)),
            stds: None,
        }
    }
}

/// The rows of all ranks that have a weight, in their places, on the host; batch by batch, so that the device never
/// holds more than one batch of each rank.
fn exchange(
    ctx: &TrainContext<'_>,
    parts: &[Tensor],
    row_of: &[Option<i64>],
    n_weighted: usize,
) -> Result<Tensor> {
    let world = ctx.collective.world();
    let per_rank = row_of.len() / world;
    let mut shape = parts.first().map(Tensor::size).unwrap_or_default();
    if let Some(batch) = shape.first_mut() {
        *batch = n_weighted as i64;
    }
    let kept = Tensor::zeros(&shape, (Kind::Float, Device::Cpu));
    let mut first = 0;
    for part in parts {
        let n = part.size()[0] as usize;
        let all = ctx.collective.all_gather(&part.to_device(ctx.device))?;
        let all = all.to_device(Device::Cpu);
        let ids = (0..world).flat_map(|rank| (0..n).map(move |i| rank * per_rank + first + i));
        let (from, to): (Vec<i64>, Vec<i64>) = ids
            .enumerate()
            .filter_map(|(from, id)| Some((from as i64, row_of[id]?)))
            .unzip();
        let rows = all.index_select(0, &Tensor::from_slice(&from));
        let _same = kept
            .shallow_clone()
            .index_copy_(0, &Tensor::from_slice(&to), &rows);
        first += n;
    }
    Ok(kept)
}

impl Persist for Pool {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("sample_ids", &self.sample_ids)?;
        out.value("weights", &self.weights)?;
        out.tensor("means", &self.means);
        if let Some(stds) = &self.stds {
            out.tensor("stds", stds);
        }
        Ok(())
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.sample_ids = from.value("sample_ids")?;
        self.weights = from.value("weights")?;
        self.means = from.tensor("means")?;
        self.stds = match from.contains("stds") {
            true => Some(from.tensor("stds")?),
            false => None,
        };
        let n = self.means.size()[0] as usize;
        if [self.sample_ids.len(), self.weights.len()] != [n, n] {
            return Err(from.refuse("means", &format!("has {n} samples, others differ")));
        }
        Ok(())
    }
}
