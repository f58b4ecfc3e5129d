//! The numbers of DDPO, each with its source, and what must hold between them.

use ddpo_sched::{LogProb, Sampler};
use ddpo_train::{Error, Meter, Result};

use crate::{Baseline, Estimator};

/// The numbers of DDPO. Totals are over all ranks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DdpoConfig {
    /// DDPO-SF or DDPO-IS.
    pub estimator: Estimator,
    /// Samples per epoch: 256 (paper, table D.5).
    pub samples_per_epoch: usize,
    /// Updates per epoch: 4 for IS, 1 for SF (paper, table D.5; ddpo-pytorch takes 2 on the
    /// aesthetic and alignment rewards).
    pub updates_per_epoch: usize,
    /// How many samples of neighbouring ids share one prompt: 1 in both codebases, the group of a group baseline.
    pub samples_per_prompt: usize,
    /// Whether these start from one initial latent too, so that rewards differ by the noise of the steps alone.
    pub shared_noise: bool,
    /// Samples in one denoising batch of one rank. Changes memory and speed only.
    pub sample_batch: usize,
    /// Transitions in one training pass of one rank. Changes memory and speed only.
    pub micro_batch: usize,
    /// What rewards are compared with: JAX 32 / 16.
    pub baseline: Baseline,
    /// Advantages are clipped to ± this: 10 in JAX (`ADV_CLIP_MAX`), 5 in ddpo-pytorch (`adv_clip_max`);
    /// not in the paper's table.
    pub advantage_clip: f64,
    /// Global norm that gradients are clipped to: 1.0 (paper, table D.5).
    pub max_grad_norm: f64,
    /// Mean over dimensions in both codebases; the paper's formula is a sum.
    pub log_prob: LogProb,
    /// Weight of the KL divergence to the reference policy, `KL(p_θ ‖ p_ref)` of each step, in the loss:
    /// DPOK's regulariser (Fan et al. 2023). 0 is DDPO, which has none.
    pub kl_weight: f64,
    /// Largest |ratio − 1| before the first update of a run: a tenth of the clip range. `None` only reports
    /// it, for training that is not meant to replay what was sampled (such as without guidance).
    pub ratio_bound: Option<f64>,
    /// After how many skipped updates in a row the run ends.
    pub max_skipped: u32,
}

impl DdpoConfig {
    /// DDPO-IS as in the paper's table D.5, with the JAX code's numbers where the table has none.
    pub fn importance_sampling() -> Self {
        Self {
            estimator: Estimator::ImportanceSampling { clip_range: 1e-4 },
            samples_per_epoch: 256,
            updates_per_epoch: 4,
            samples_per_prompt: 1,
            shared_noise: false,
            sample_batch: 8,
            micro_batch: 8,
            baseline: Baseline::PerPrompt {
                buffer_size: 32,
                min_count: 16,
            },
            advantage_clip: 10.0,
            max_grad_norm: 1.0,
            log_prob: LogProb::Mean,
            kl_weight: 0.0,
            ratio_bound: Some(1e-5),
            max_skipped: 3,
        }
    }

    /// DDPO-SF as in the paper's table D.5: one update with all samples.
    pub fn score_function() -> Self {
        Self {
            estimator: Estimator::ScoreFunction,
            updates_per_epoch: 1,
            ..Self::importance_sampling()
        }
    }

    /// Samples in one update, over all ranks.
    pub fn minibatch(&self) -> usize {
        self.samples_per_epoch / self.updates_per_epoch.max(1)
    }

    /// Samples in one update of one rank.
    pub fn minibatch_per_rank(&self, world: usize) -> usize {
        self.minibatch() / world.max(1)
    }

    /// The metrics that [`PolicyGradient`](crate::PolicyGradient) measures in an update, none of them measured yet.
    pub fn stats(&self) -> Meter {
        let names = [
            "policy/kl_pretrained",
            "policy/ratio_mean",
            "policy/clip_fraction",
            "policy/approx_kl",
            "policy/loss",
        ];
        match self.kl_weight > 0.0 {
            true => Meter::of_updates(&names),
            false => Meter::of_updates(&names[1..]),
        }
    }

    /// Refuses numbers that do not fit together, with the arithmetic.
    ///
    /// # Errors
    /// [`Error::Config`] with the key; [`Error::Sched`] if a step of the sampler has no log-probability.
    pub fn check(&self, sampler: &dyn Sampler, world: usize) -> Result<()> {
        self.check_numbers()?;
        let (samples, updates) = (self.samples_per_epoch, self.updates_per_epoch);
        let whole = ("samples_per_epoch", samples);
        Error::unless_divides(("updates_per_epoch", updates), whole)?;
        let minibatch = self.minibatch();
        if world == 0 || !minibatch.is_multiple_of(world) {
            let expected = format!(
                "{samples} samples / {updates} updates = {minibatch} samples per update, which {world} ranks \
                 cannot share equally"
            );
            return Err(Error::config("samples_per_epoch", samples, expected));
        }
        if self.estimator == Estimator::ScoreFunction && updates != 1 {
            let expected = "must be 1: the score function is the gradient only for samples of the policy itself";
            return Err(Error::config("updates_per_epoch", updates, expected));
        }
        self.check_groups()?;
        Ok(sampler.require_stochastic()?)
    }

    fn check_groups(&self) -> Result<()> {
        let group = self.samples_per_prompt;
        let whole = ("samples_per_epoch", self.samples_per_epoch);
        Error::unless_divides(("samples_per_prompt", group), whole)?;
        if self.shared_noise && group < 2 {
            let expected =
                "needs samples_per_prompt of at least 2: one sample shares its noise with nobody";
            return Err(Error::config("shared_noise", true, expected));
        }
        match self.baseline {
            Baseline::Group { size } if size < 2 || size != group => {
                let expected = format!(
                    "must be at least 2 and the size of the baseline's groups, which is {size}"
                );
                Err(Error::config("samples_per_prompt", group, expected))
            }
            _ => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<()> {
        for (key, count) in [
            ("samples_per_epoch", self.samples_per_epoch),
            ("updates_per_epoch", self.updates_per_epoch),
            ("samples_per_prompt", self.samples_per_prompt),
            ("sample_batch", self.sample_batch),
            ("micro_batch", self.micro_batch),
        ] {
            if count == 0 {
                return Err(Error::config(key, count, "must be at least 1"));
            }
        }
        let mut numbers = vec![
            ("advantage_clip", self.advantage_clip),
            ("max_grad_norm", self.max_grad_norm),
        ];
        if let Estimator::ImportanceSampling { clip_range } = self.estimator {
            numbers.push(("clip_range", clip_range));
        }
        numbers.extend(self.ratio_bound.map(|bound| ("ratio_bound", bound)));
        for (key, value) in numbers {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::config(key, value, "must be positive"));
            }
        }
        if !(self.kl_weight >= 0.0 && self.kl_weight.is_finite()) {
            let expected = "must not be negative";
            return Err(Error::config("kl_weight", self.kl_weight, expected));
        }
        match self.baseline {
            Baseline::PerPrompt {
                buffer_size,
                min_count,
            } if min_count == 0 || buffer_size < min_count => {
                let expected = format!("must be between 1 and buffer_size = {buffer_size}");
                Err(Error::config("min_count", min_count, expected))
            }
            _ => Ok(()),
        }
    }
}
