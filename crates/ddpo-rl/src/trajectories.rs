//! What sampling leaves behind for training: every latent of every step, on the host, in f32.

use ddpo_sched::{Conditioning, DenoiseInput, Gaussian, Sampler, StepRecord, check_shape};
use ddpo_train::{Error, HostStaging, Persist, Result, RolloutSink, StateReader, StateWriter};
use tch::{Device, Kind, Tensor};

/// Denoising trajectories of some samples.
#[derive(Debug)]
pub struct Trajectories {
    /// Keys of the samples, one per row.
    pub sample_ids: Vec<u64>,
    /// f32 `[steps + 1, samples, channels, height, width]`, noisiest first, on the host. Row `s + 1` is the
    /// very value whose log-probability is `log_probs[s]`.
    pub latents: Tensor,
    /// f32 `[steps, samples]`, on the host.
    pub log_probs: Tensor,
    /// Conditioning of each sample.
    pub cond: Conditioning,
}

/// One transition to train on: a sample's step from x_t to x_prev.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransitionIndex {
    /// Row of the trajectories.
    pub row: usize,
    /// Denoising step, noisiest first.
    pub step: usize,
}

impl Trajectories {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// [`Error::Sched`] with the name of a tensor that does not fit the others.
    pub fn new(
        sample_ids: Vec<u64>,
        latents: Tensor,
        log_probs: Tensor,
        cond: impl Into<Conditioning>,
    ) -> Result<Self> {
        let cond = cond.into();
        let (n, size) = (sample_ids.len() as i64, latents.size());
        let n_steps = size.first().map_or(0, |rows| rows - 1);
        let mut expected = size.clone();
        expected.splice(..size.len().min(2), [n_steps + 1, n]);
        check_shape(&latents, "latents", &expected)?;
        check_shape(&log_probs, "log_probs", &[n_steps, n])?;
        cond.check(sample_ids.len())?;
        let on_host = |t: &Tensor| t.detach().to_device(Device::Cpu).to_kind(Kind::Float);
        Ok(Self {
            sample_ids,
            latents: on_host(&latents).contiguous(),
            log_probs: on_host(&log_probs).contiguous(),
            cond,
        })
    }

    /// How many denoising steps.
    pub fn n_steps(&self) -> usize {
        self.log_probs.size()[0] as usize
    }

    /// How many samples.
    pub fn n_samples(&self) -> usize {
        self.sample_ids.len()
    }

    /// One batch of samples after another.
    fn cat(parts: &[Self]) -> Result<Self> {
        let cat = |dim, tensor: fn(&Self) -> &Tensor| {
            Tensor::cat(&parts.iter().map(tensor).collect::<Vec<_>>(), dim)
        };
        let conds: Vec<&Conditioning> = parts.iter().map(|p| &p.cond).collect();
        Self::new(
            parts.iter().flat_map(|p| p.sample_ids.clone()).collect(),
            cat(1, |p| &p.latents),
            cat(1, |p| &p.log_probs),
            Conditioning::cat(&conds)?,
        )
    }

    /// Some transitions as one batch on `device`.
    pub(crate) fn gather(
        &self,
        transitions: &[TransitionIndex],
        sampler: &dyn Sampler,
        device: Device,
    ) -> Result<TransitionBatch> {
        let n = self.n_samples();
        let index = |of: &dyn Fn(&TransitionIndex) -> usize| {
            let rows: Vec<i64> = transitions.iter().map(|it| of(it) as i64).collect();
            Tensor::from_slice(&rows)
        };
        let flat = self.latents.flatten(0, 1);
        let at: Vec<usize> = transitions.iter().map(|it| it.step).collect();
        let before = index(&|it| it.step * n + it.row);
        let after = index(&|it| (it.step + 1) * n + it.row);
        let x_t = flat.index_select(0, &before).to_device(device);
        Ok(TransitionBatch {
            input: sampler.scale_model_input(&at, &x_t),
            x_t,
            x_prev: flat.index_select(0, &after).to_device(device),
            t: sampler.timesteps(&at)?.to_device(device),
            cond: self.cond.select(&index(&|it| it.row)).to_device(device),
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

/// Transitions to train on, of samples and steps as they come.
pub(crate) struct TransitionBatch {
    x_t: Tensor,
    /// x_t as the network is to see it.
    input: Tensor,
    pub(crate) x_prev: Tensor,
    t: Tensor,
    cond: Conditioning,
    /// Of the policy that sampled, on the host.
    pub(crate) log_probs: Tensor,
    at: Vec<usize>,
}

impl TransitionBatch {
    pub(crate) fn input(&self) -> DenoiseInput<'_> {
        DenoiseInput {
            x_t: &self.input,
            t: &self.t,
            cond: &self.cond,
        }
    }

    /// The steps of a policy whose network said `model_output`.
    pub(crate) fn steps(
        &self,
        sampler: &dyn Sampler,
        model_output: &Tensor,
    ) -> ddpo_sched::Result<Gaussian> {
        sampler.transition(&self.at, &self.x_t, model_output)
    }
}

/// Takes trajectories while they are drawn, and holds them until the epoch is done.
#[derive(Debug, Default)]
pub struct TrajectoryStore {
    /// Latents and log-probabilities of the batch that is being drawn.
    current: Option<(HostStaging, HostStaging)>,
    parts: Vec<Trajectories>,
}

impl TrajectoryStore {
    /// All trajectories, in the order in which they were drawn.
    ///
    /// # Errors
    /// [`Error::Config`] if there are none.
    pub fn all(&mut self) -> Result<&Trajectories> {
        if self.parts.len() > 1 {
            self.parts = vec![Trajectories::cat(&self.parts)?];
        }
        let none = || Error::config("trajectories", 0, "none were drawn");
        self.parts.first().ok_or_else(none)
    }
}

impl RolloutSink for TrajectoryStore {
    fn clear(&mut self) {
        *self = Self::default();
    }

    fn on_step(&mut self, record: &StepRecord<'_>) -> Result<()> {
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

    fn on_latents(&mut self, sample_ids: &[u64], cond: &Conditioning, _x_0: &Tensor) -> Result<()> {
        let Some((latents, log_probs)) = self.current.take() else {
            return Err(Error::config("n_steps", 0, "must be at least 1"));
        };
        let (latents, log_probs) = (latents.finish(), log_probs.finish());
        let drawn = Trajectories::new(sample_ids.to_vec(), latents, log_probs, cond.clone())?;
        drawn.require_finite()?;
        self.parts.push(drawn);
        Ok(())
    }
}

impl Persist for TrajectoryStore {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let all = Trajectories::cat(&self.parts)?;
        out.value("sample_ids", &all.sample_ids)?;
        out.tensor("latents", &all.latents);
        out.tensor("log_probs", &all.log_probs);
        for (name, part) in all.cond.parts() {
            out.tensor(name, part);
        }
        Ok(())
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.clear();
        if !from.contains("sample_ids") {
            return Ok(());
        }
        let optional = |name: &str| from.contains(name).then(|| from.tensor(name)).transpose();
        let cond = Conditioning {
            tokens: from.tensor("cond")?,
            pooled: optional("pooled")?,
            added: optional("added")?,
        };
        self.parts = vec![Trajectories::new(
            from.value("sample_ids")?,
            from.tensor("latents")?,
            from.tensor("log_probs")?,
            cond,
        )?];
        Ok(())
    }
}
