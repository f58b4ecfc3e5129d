//! What is measured of evaluated images beside their reward.

use anyhow::Context;
use ddpo_eval::pixels;
use ddpo_pocket::content::PromptScorer;
use ddpo_pocket::judge::Role;
use ddpo_reward::{Colourfulness, Images, JpegIncompressibility, Prompt, Reward};
use tch::Device;

use crate::config::{EvalPlan, Measure};
use crate::failure::{Exit, OrExit, Result};
use crate::rewards::networks;

/// Measures images; on the CPU, whatever the policy runs on, but for networks that `reward.device` places.
pub struct Panel {
    measures: Vec<Measure>,
    jpeg: JpegIncompressibility,
    judge: Option<PromptScorer>,
    aesthetic: Option<Box<dyn Reward>>,
}

impl Panel {
    /// With what its measures need.
    pub fn new(plan: &EvalPlan) -> Result<Self> {
        let judged = plan.panel.iter().any(|measure| measure.is_judged());
        let judge = judged.then(|| PromptScorer::embedded(Role::HeldOut, Device::Cpu));
        let judge = judge
            .transpose()
            .or_exit(Exit::Data, "the held-out judge")?;
        let aesthetic = plan.aesthetic.as_ref();
        let aesthetic =
            aesthetic.map(|(network, rescaling)| networks::aesthetic(network, *rescaling));
        Ok(Self {
            measures: plan.panel.clone(),
            jpeg: JpegIncompressibility::new().or_exit(Exit::Other, "the JPEG encoder")?,
            judge,
            aesthetic: aesthetic.transpose()?,
        })
    }

    /// Columns of `eval.csv`, in their order.
    pub fn columns(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.measures.iter().map(|measure| measure.name())
    }

    /// `[measure][image]` for all images of an evaluation of one set.
    pub fn measure(
        &mut self,
        images: &Images,
        prompts: &[Prompt],
    ) -> anyhow::Result<Vec<Vec<f64>>> {
        let examined = match &self.judge {
            Some(judge) => Some(judge.score(images, prompts)?),
            None => None,
        };
        let examined = examined.unwrap_or_default();
        let wide = |scores: &[f32]| scores.iter().map(|&s| f64::from(s)).collect();
        let measures = self.measures.clone();
        let one = |measure| -> anyhow::Result<Vec<f64>> {
            Ok(match measure {
                Measure::JpegSize => wide(&self.jpeg.score(images, prompts)?),
                Measure::Colourfulness => wide(&Colourfulness.score(images, prompts)?),
                Measure::Aesthetic => {
                    let reward = self
                        .aesthetic
                        .as_mut()
                        .context("its weights were not read")?;
                    wide(&reward.score(images, prompts)?)
                }
                Measure::Edges => pixels::edges(images),
                Measure::Diversity => pixels::diversity(images),
                Measure::HeldOutJudge => wide(&examined.log_prob),
                Measure::HeldOutFirst => {
                    let first = examined.top1.iter();
                    first.map(|&first| f64::from(u8::from(first))).collect()
                }
            })
        };
        measures.into_iter().map(one).collect()
    }
}
