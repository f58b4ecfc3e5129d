//! The UNet as a policy: it predicts, and it learns.

use ddpo_sched::{DenoiseInput, Denoiser};
use ddpo_train::{ParamSet, Persist, Policy, StateReader, StateWriter};
use tch::{Kind, Tensor};

use crate::pipeline::Named;
use crate::{Error, Result, Unet};

/// A UNet of which some parameters are trained.
pub struct UnetPolicy {
    unet: Named<Unet>,
    params: ParamSet,
    kind: Kind,
}

impl UnetPolicy {
    /// Trains every weight ("full"), as the paper does.
    ///
    /// # Errors
    /// [`Error::Config`] unless the weights are f32: AdamW would lose most of its updates in half precision.
    pub fn full(unet: Named<Unet>) -> Result<Self> {
        let params = ParamSet::new(
            unet.tensors
                .iter()
                .map(|(n, t)| (n.clone(), t.shallow_clone()))
                .collect(),
        )?;
        if params.kind() != Kind::Float {
            let reason = format!(
                "policy.train = \"full\" needs dtype f32, not {:?}; use \"lora\" with it",
                params.kind()
            );
            return Err(Error::Config {
                file: "model.dtype".into(),
                reason,
            });
        }
        params.thaw();
        Ok(Self {
            unet,
            params,
            kind: Kind::Float,
        })
    }

    /// The network with its tensors.
    pub fn unet(&self) -> &Named<Unet> {
        &self.unet
    }

    fn forward(&self, input: DenoiseInput<'_>) -> Tensor {
        let cond = input.cond.to_kind(self.kind);
        self.unet
            .net
            .forward(&input.x_t.to_kind(self.kind), input.t, &cond)
            .to_kind(Kind::Float)
    }

    fn check(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<()> {
        let config = self.unet.net.config();
        let (x, cond) = (input.x_t.size(), input.cond.size());
        let shape = |name: &'static str, expected: String, actual: Vec<i64>| {
            Err(ddpo_sched::Error::Denoiser(Box::new(Error::Shape {
                name,
                expected,
                actual,
            })))
        };
        if x.len() != 4 || x[1] != config.in_channels {
            return shape("x_t", format!("[batch, {}, h, w]", config.in_channels), x);
        }
        if cond.len() != 3 || cond[0] != x[0] || cond[2] != config.cross_attention_dim {
            return shape(
                "cond",
                format!("[{}, tokens, {}]", x[0], config.cross_attention_dim),
                cond,
            );
        }
        if input.t.size() != [x[0]] {
            return shape("t", format!("[{}]", x[0]), input.t.size());
        }
        Ok(())
    }
}

impl Denoiser for UnetPolicy {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        self.check(input)?;
        Ok(self.forward(input))
    }
}

impl Policy for UnetPolicy {
    fn params(&self) -> &ParamSet {
        &self.params
    }

    fn accumulate(
        &self,
        input: DenoiseInput<'_>,
        loss: &mut dyn FnMut(&Tensor) -> ddpo_train::Result<Tensor>,
    ) -> ddpo_train::Result<()> {
        self.check(input)?;
        loss(&self.forward(input))?
            .f_backward()
            .map_err(ddpo_train::Error::model)
    }
}

impl Persist for UnetPolicy {
    fn save(&self, out: &mut StateWriter) -> ddpo_train::Result<()> {
        self.params.save(out)
    }

    fn load(&mut self, from: &StateReader) -> ddpo_train::Result<()> {
        self.params.load(from)
    }
}
