//! A model and everything around it that training and sampling need.

use ddpo_sched::ScheduleConfig;
use ddpo_train::{Conditioner, Decoder, Policy};

use crate::config::{ModelPlan, PolicyPlan, SamplerPlan};
use crate::failure::{Exit, Failure, Result};

/// A loaded model.
pub struct Model {
    /// What is trained.
    pub policy: Box<dyn Policy>,
    /// Prompts to conditioning.
    pub conditioner: Box<dyn Conditioner>,
    /// Latents to pictures.
    pub decoder: Box<dyn Decoder>,
    /// Shape of one latent.
    pub latent_shape: Vec<i64>,
    /// The noise schedule it was trained with.
    pub schedule: ScheduleConfig,
}

impl Model {
    /// Reads the weights.
    pub fn load(
        model: &ModelPlan,
        _policy: &PolicyPlan,
        _sampler: &SamplerPlan,
        _train_guidance: bool,
    ) -> Result<Self> {
        let message = format!("model `{}` cannot be loaded yet", model.path);
        Err(Failure::new(Exit::Data, message))
    }
}
