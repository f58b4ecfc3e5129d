//! The UNet as a policy: it predicts, and it learns.

use ddpo_sched::{DenoiseInput, Denoiser};
use ddpo_train::{ParamSet, Persist, Policy, StateReader, StateWriter};
use tch::{Kind, Tensor};

use crate::pipeline::Named;
use crate::{Error, Lora, LoraConfig, Result, Unet};

/// A UNet of which some parameters are trained.
pub struct UnetPolicy {
    unet: Named<Unet>,
    trained: Trained,
    /// Of weights and compute; predictions are f32 whatever it is.
    kind: Kind,
}

enum Trained {
    All(ParamSet),
    Lora(Lora),
}

impl UnetPolicy {
    /// Trains every weight ("full"), as the paper does.
    ///
    /// # Errors
    /// [`Error::Config`] unless the weights are f32: AdamW would lose most of its updates in half precision.
    pub fn full(unet: Named<Unet>) -> Result<Self> {
        let shared = unet
            .tensors
            .iter()
            .map(|(n, t)| (n.clone(), t.shallow_clone()));
        let params = ParamSet::new(shared.collect())?;
        if params.kind() != Kind::Float {
            let reason = format!(
                "policy.train = \"full\" needs model.dtype = \"f32\", not {:?}; half precision goes with \"lora\"",
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
            trained: Trained::All(params),
            kind: Kind::Float,
        })
    }

    /// Trains nothing: for sampling, in any precision.
    ///
    /// # Errors
    /// None that a loaded network has.
    pub fn frozen(unet: Named<Unet>) -> Result<Self> {
        let kind = kind_of(&unet);
        let trained = Trained::All(ParamSet::new(Vec::new())?);
        Ok(Self {
            unet,
            trained,
            kind,
        })
    }

    /// Trains low-rank factors beside frozen weights, as ddpo-pytorch does; they start without effect.
    ///
    /// # Errors
    /// [`Error::Config`] for a rank, scale or targets that cannot be.
    pub fn lora(mut unet: Named<Unet>, config: &LoraConfig, seed: u64) -> Result<Self> {
        let lora = Lora::attach(&mut unet.net, config, seed)?;
        Ok(Self::with_lora(unet, lora))
    }

    /// Trains the factors of an adapter that is attached to `unet` already.
    pub fn with_lora(unet: Named<Unet>, lora: Lora) -> Self {
        let kind = kind_of(&unet);
        Self {
            unet,
            trained: Trained::Lora(lora),
            kind,
        }
    }

    /// The network with its tensors.
    pub fn unet(&self) -> &Named<Unet> {
        &self.unet
    }

    /// The adapter, if low-rank factors are what is trained.
    pub fn adapter(&self) -> Option<&Lora> {
        match &self.trained {
            Trained::All(_) => None,
            Trained::Lora(lora) => Some(lora),
        }
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

fn kind_of(unet: &Named<Unet>) -> Kind {
    unet.tensors
        .values()
        .next()
        .map_or(Kind::Float, Tensor::kind)
}

impl Denoiser for UnetPolicy {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        self.check(input)?;
        Ok(self.forward(input))
    }
}

impl Policy for UnetPolicy {
    fn params(&self) -> &ParamSet {
        match &self.trained {
            Trained::All(params) => params,
            Trained::Lora(lora) => lora.params(),
        }
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
        self.params().save(out)
    }

    fn load(&mut self, from: &StateReader) -> ddpo_train::Result<()> {
        match &mut self.trained {
            Trained::All(params) => params.load(from),
            Trained::Lora(lora) => lora.load(from),
        }
    }
}
