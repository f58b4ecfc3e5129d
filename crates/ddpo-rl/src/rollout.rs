//! What sampling leaves behind for training: every latent of every step, on the host, in f32.

use ddpo_sched::{DenoiseInput, Gaussian, LogProb, Sampler, StepRecord, check_shape};
use ddpo_train::{Error, HostStaging, Keep, Persist, Result, StateReader, StateWriter};
use tch::{Device, Kind, Tensor};

/// Denoising trajectories of some samples.
#[derive(Debug)]
pub struct Rollout {
    /// Keys of the samples, one per row.
    pub sample_ids: Vec<u64>,
    /// f32 `[steps + 1, samples, channels, height, width]`, noisiest first, on the host. Row `s + 1` is the
    /// very value whose log-probability is `log_probs[s]`.
    pub latents: Tensor,
    /// f32 `[steps, samples]`, on the host.
    pub log_probs: Tensor,
    /// Conditioning, `[samples, tokens, dim]`, on the device of the policy.
    pub cond: Tensor,
}

/// Keeps trajectories while they are drawn.
#[derive(Debug)]
pub(crate) struct Trajectories {
    reduce: LogProb,
    /// Latents and log-probabilities of the batch that is being drawn.
    current: Option<(HostStaging, HostStaging)>,
    parts: Vec<Rollout>,
}

impl Trajectories {
    pub(crate) fn new(reduce: LogProb) -> Self {
        Self {
            reduce,
            current: None,
            parts: Vec::new(),
        }
    }

    /// All of them, in the order in which they were drawn.
    pub(crate) fn into_rollout(self) -> Result<Rollout> {
        Rollout::concat(&self.parts)
    }
}

impl Keep for Trajectories {
    fn log_prob(&self) -> Option<LogProb> {
        Some(self.reduce)
    }

    fn step(&mut self, record: &StepRecord<'_>) -> Result<()> {
        let (step, n_steps) = (record.step as i64, record.n_steps as i64);
        let (latents, log_probs) = self.current.get_or_insert_with(|| {
            let (mut shape, device) = (record.x_t.size(), record.x_t.device());
            let n = shape[0];
            shape.insert(0, n_steps + 1);
            (
                HostStaging::new(&shape, Kind::Float, device),
                HostStaging::new(&[n_steps, n], Kind::Float, device),
            )
        });
        // Nothing here waits for the device: the next step is queued while these are under way.
        if step == 0 {
            latents.put(0, record.x_t)?;
        }
        latents.put(step + 1, record.x_prev)?;
        if let Some(log_prob) = record.log_prob {
            log_probs.put(step, log_prob)?;
        }
        Ok(())
    }

    fn drawn(&mut self, sample_ids: &[u64], cond: &Tensor, _x_0: &Tensor) -> Result<()> {
        let Some((latents, log_probs)) = self.current.take() else {
            return Err(Error::config("n_steps", 0, "must be at least 1"));
        };
        let (latents, log_probs) = (latents.finish(), log_probs.finish());
        let ids = sample_ids.to_vec();
        let rollout = Rollout::new(ids, latents, log_probs, cond.shallow_clone())?;
        rollout.require_finite()?;
        self.parts.push(rollout);
        Ok(())
    }
}

impl Persist for Trajectories {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.nested("drawn", &Rollout::concat(&self.parts)?)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        let mut drawn = Rollout::empty()?;
        from.nested("drawn", &mut drawn)?;
        self.parts = vec![drawn];
        Ok(())
    }
}

/// One pair of sample and step to train on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) row: usize,
    pub(crate) step: usize,
}

impl Rollout {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// [`Error::Sched`] with the name of a tensor that does not fit the others.
    pub fn new(
        sample_ids: Vec<u64>,
        latents: Tensor,
        log_probs: Tensor,
        cond: Tensor,
    ) -> Result<Self> {
        let (n, size) = (sample_ids.len() as i64, latents.size());
        let n_steps = size.first().map_or(0, |rows| rows - 1);
        let mut expected = size.clone();
        expected.splice(..size.len().min(2), [n_steps + 1, n]);
        check_shape(&latents, "latents", &expected)?;
        check_shape(&log_probs, "log_probs", &[n_steps, n])?;
        let mut expected = cond.size();
        expected.splice(..expected.len().min(1), [n]);
        check_shape(&cond, "cond", &expected)?;
        let on_host = |t: &Tensor| t.detach().to_device(Device::Cpu).to_kind(Kind::Float);
        Ok(Self {
            sample_ids,
            latents: on_host(&latents).contiguous(),
            log_probs: on_host(&log_probs).contiguous(),
            cond,
        })
    }

    /// Nothing, for state to be loaded into.
    pub(crate) fn empty() -> Result<Self> {
        let none = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        Self::new(Vec::new(), none(&[1, 0]), none(&[0, 0]), none(&[0]))
    }

    /// How many denoising steps.
    pub fn n_steps(&self) -> usize {
        self.log_probs.size()[0] as usize
    }

    /// How many samples.
    pub fn n_samples(&self) -> usize {
        self.sample_ids.len()
    }

    /// One rollout after another.
    pub(crate) fn concat(parts: &[Self]) -> Result<Self> {
        let cat = |dim, tensor: fn(&Self) -> &Tensor| {
            Tensor::cat(&parts.iter().map(tensor).collect::<Vec<_>>(), dim)
        };
        Self::new(
            parts.iter().flat_map(|p| p.sample_ids.clone()).collect(),
            cat(1, |p| &p.latents),
            cat(1, |p| &p.log_probs),
            cat(0, |p| &p.cond),
        )
    }

    /// What the policy is asked, and the latents it went to, for some pairs, on the device of `cond`.
    pub(crate) fn gather(&self, items: &[Item], sampler: &dyn Sampler) -> Result<Gathered> {
        let (n, device) = (self.n_samples(), self.cond.device());
        let index = |of: &dyn Fn(&Item) -> usize| {
            let rows: Vec<i64> = items.iter().map(|item| of(item) as i64).collect();
            Tensor::from_slice(&rows)
        };
        let flat = self.latents.flatten(0, 1);
        let at: Vec<usize> = items.iter().map(|item| item.step).collect();
        let before = index(&|item| item.step * n + item.row);
        let after = index(&|item| (item.step + 1) * n + item.row);
        let rows = index(&|item| item.row).to_device(device);
        Ok(Gathered {
            x_t: flat.index_select(0, &before).to_device(device),
            x_prev: flat.index_select(0, &after).to_device(device),
            t: sampler.timesteps(&at)?.to_device(device),
            cond: self.cond.index_select(0, &rows),
            log_probs: self.log_probs.flatten(0, 1).index_select(0, &before),
            at,
        })
    }

    fn require_finite(&self) -> Result<()> {
        let finite = |t: &Tensor| t.isfinite().all().int64_value(&[]) == 1;
        for (what, tensor) in [
            ("latent", &self.latents),
            ("log-probability", &self.log_probs),
        ] {
            if finite(tensor) {
                continue;
            }
            let step = (0..tensor.size()[0]).find(|&s| !finite(&tensor.get(s)));
            let detail = format!("step {}, samples {:?}", step.unwrap_or(0), self.sample_ids);
            return Err(Error::NonFinite { what, detail });
        }
        Ok(())
    }
}

/// A training batch of pairs of sample and step.
pub(crate) struct Gathered {
    pub(crate) x_t: Tensor,
    pub(crate) x_prev: Tensor,
    pub(crate) t: Tensor,
    pub(crate) cond: Tensor,
    /// On the host.
    pub(crate) log_probs: Tensor,
    pub(crate) at: Vec<usize>,
}

impl Gathered {
    pub(crate) fn input(&self) -> DenoiseInput<'_> {
        DenoiseInput {
            x_t: &self.x_t,
            t: &self.t,
            cond: &self.cond,
        }
    }

    /// The steps of a policy that predicted `eps`.
    pub(crate) fn steps(
        &self,
        sampler: &dyn Sampler,
        eps: &Tensor,
    ) -> ddpo_sched::Result<Gaussian> {
        sampler.transition(&self.at, &self.x_t, eps)
    }
}

impl Persist for Rollout {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        out.value("sample_ids", &self.sample_ids)?;
        out.tensor("latents", &self.latents);
        out.tensor("log_probs", &self.log_probs);
        out.tensor("cond", &self.cond);
        Ok(())
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        let cond = from.tensor("cond")?.to_device(self.cond.device());
        *self = Self::new(
            from.value("sample_ids")?,
            from.tensor("latents")?,
            from.tensor("log_probs")?,
            cond,
        )?;
        Ok(())
    }
}
