//! The UNet as a policy: it predicts, and it learns.

use ddpo_sched::{Conditioned, Conditioning, DenoiseInput, Denoiser};
use ddpo_torch::{Autocast, HeldCasts};
use ddpo_train::{LossScale, ParamSet, Persist, Policy, StateReader, StateWriter};
use tch::{Device, Kind, Tensor};

use crate::attention::{AttentionContext, BlockCache, LoraMode};
use crate::pipeline::Named;
use crate::{Error, Lora, LoraConfig, Result, Unet};

/// A UNet of which some parameters are trained.
pub struct UnetPolicy {
    unet: Named<Unet>,
    trained: Trained,
    /// Of the weights; predictions are f32 whatever it is.
    kind: Kind,
    /// Of compute, where that is not the weights'.
    autocast: Option<Kind>,
    checkpointing: bool,
    /// Where gradients are f16.
    loss_scale: Option<LossScale>,
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
    /// Compute in half precision is [`with_autocast`](Self::with_autocast).
    pub fn full(unet: Named<Unet>) -> Result<Self> {
        let shared = unet
            .tensors
            .iter()
            .map(|(n, t)| (n.clone(), t.shallow_clone()));
        let params = ParamSet::new(shared.collect())?;
        if params.kind() != Kind::Float {
            let reason = format!(
                "policy.train = \"full\" needs weights in f32, not {:?}; half precision is for compute",
                params.kind()
            );
            return Err(Error::Config {
                file: "model.dtype".into(),
                reason,
            });
        }
        params.thaw();
        Ok(Self::new(unet, Trained::All(params)))
    }

    /// Trains nothing: for sampling, in any precision.
    ///
    /// # Errors
    /// None that a loaded network has.
    pub fn frozen(unet: Named<Unet>) -> Result<Self> {
        let none = ParamSet::new(Vec::new())?;
        Ok(Self::new(unet, Trained::All(none)))
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
        Self::new(unet, Trained::Lora(lora))
    }

    fn new(unet: Named<Unet>, trained: Trained) -> Self {
        let kind = unet.tensors.values().next();
        let kind = kind.map_or(Kind::Float, Tensor::kind);
        Self {
            unet,
            trained,
            kind,
            autocast: None,
            checkpointing: false,
            loss_scale: (kind == Kind::Half).then(LossScale::default),
        }
    }

    /// Computes in half precision with the weights as they are: f32 master weights get f32 gradients.
    ///
    /// In f16 the loss is scaled, as it is for f16 weights.
    ///
    /// # Errors
    /// [`Error::Config`] unless `kind` is `Float` (nothing changes), `BFloat16` or `Half`, beside f32 weights.
    pub fn with_autocast(mut self, kind: Kind) -> Result<Self> {
        let reason = match (kind, self.kind) {
            (Kind::Float | Kind::BFloat16 | Kind::Half, Kind::Float) => None,
            (_, Kind::Float) => Some(format!("{kind:?} is no kind to compute in")),
            (_, weights) => Some(format!("autocast is for f32 weights, not {weights:?}")),
        };
        if let Some(reason) = reason {
            let file = "model.dtype".into();
            return Err(Error::Config { file, reason });
        }
        self.autocast = (kind != Kind::Float).then_some(kind);
        self.loss_scale = (kind == Kind::Half).then(LossScale::default);
        Ok(self)
    }

    /// Whether training computes what a forward pass would keep again, segment by segment: the same gradients
    /// for less memory and the time of another forward pass.
    #[must_use]
    pub fn with_checkpointing(mut self, on: bool) -> Self {
        self.checkpointing = on;
        self
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

    fn forward(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        context: AttentionContext<'_>,
    ) -> ddpo_sched::Result<Tensor> {
        let _cast = Autocast::enter(x_t.device(), self.autocast).map_err(denoiser)?;
        let eps = self
            .unet
            .net
            .forward_with(&x_t.to_kind(self.kind), t, context);
        Ok(eps.to_kind(Kind::Float))
    }

    /// Whether sampling adds low-rank branches to copies of the weights, which saves two products and a sum a
    /// projection and step.
    ///
    /// Only where products are of f32: `W + scale · up down` in bf16, f16 or TF32 loses what is small beside W.
    /// Training keeps that, and the ratio of the two would not be 1 before the first update.
    fn lora_mode(&self, device: Device) -> Result<LoraMode> {
        let f32 = self.kind == Kind::Float && self.autocast.is_none();
        let exact = f32 && !(device.is_cuda() && ddpo_torch::tf32()?.products);
        Ok(match exact {
            true => LoraMode::Merged,
            false => LoraMode::Separate,
        })
    }

    /// Backward from a loss, scaled where gradients are f16.
    fn backward(
        &self,
        loss: &Tensor,
        run: impl FnOnce(&Tensor) -> ddpo_train::Result<()>,
    ) -> ddpo_train::Result<()> {
        match &self.loss_scale {
            Some(scale) => scale.backward(self.params(), loss, run),
            None => run(loss),
        }
    }

    fn check(&self, x_t: &Tensor, t: &Tensor, cond: &Conditioning) -> ddpo_sched::Result<()> {
        let channels = self.unet.net.config().in_channels;
        let (x, t) = (x_t.size(), t.size());
        if x.len() != 4 || x[1] != channels {
            return shape("x_t", format!("[batch, {channels}, h, w]"), x);
        }
        if t != [x[0]] {
            return shape("t", format!("[{}]", x[0]), t);
        }
        self.check_cond(cond, Some(x[0]))
    }

    fn check_cond(&self, cond: &Conditioning, batch: Option<i64>) -> ddpo_sched::Result<()> {
        if let Some(extra) = cond.pooled.as_ref().or(cond.added.as_ref()) {
            let expected = "no pooled or added embeddings: this UNet has no place for them";
            return shape("cond", expected.to_owned(), extra.size());
        }
        let size = cond.tokens.size();
        let dim = self.unet.net.config().cross_attention_dim;
        let fits = size.len() == 3 && size[2] == dim && batch.is_none_or(|n| size[0] == n);
        if fits {
            return Ok(());
        }
        let batch = batch.map_or("batch".to_owned(), |n| n.to_string());
        shape("cond", format!("[{batch}, tokens, {dim}]"), size)
    }
}

fn shape(name: &'static str, expected: String, actual: Vec<i64>) -> ddpo_sched::Result<()> {
    Err(denoiser(Error::Shape {
        name,
        expected,
        actual,
    }))
}

fn denoiser(error: impl Into<Error>) -> ddpo_sched::Error {
    ddpo_sched::Error::Denoiser(Box::new(error.into()))
}

impl Denoiser for UnetPolicy {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        self.check(input.x_t, input.t, input.cond)?;
        let cond = input.cond.tokens.to_kind(self.kind);
        self.forward(input.x_t, input.t, AttentionContext::Embeddings(&cond))
    }

    fn conditioned<'a>(&'a self, cond: &Conditioning) -> ddpo_sched::Result<Conditioned<'a>> {
        self.check_cond(cond, None)?;
        let mode = self.lora_mode(cond.device()).map_err(denoiser)?;
        // Else autocast would cast every weight at every step.
        let held = self.autocast.map(|_| HeldCasts::begin()).transpose();
        let held = held.map_err(denoiser)?;
        let blocks = tch::no_grad(|| {
            let _cast = Autocast::enter(cond.device(), self.autocast)?;
            Ok(self
                .unet
                .net
                .precompute(&cond.tokens.to_kind(self.kind), mode))
        });
        let blocks = blocks.map_err(|e: ddpo_torch::Error| denoiser(e))?;
        let cached = CachedDenoiser {
            policy: self,
            cond: cond.clone(),
            blocks,
            _held: held,
        };
        Ok(Box::new(move |x_t, t| cached.predict(x_t, t)))
    }
}

/// The policy with everything that is the same at all steps of a rollout; the policy itself stays as it is.
struct CachedDenoiser<'a> {
    policy: &'a UnetPolicy,
    cond: Conditioning,
    blocks: Vec<BlockCache>,
    /// Weights that autocast cast.
    _held: Option<HeldCasts>,
}

impl CachedDenoiser<'_> {
    fn predict(&self, x_t: &Tensor, t: &Tensor) -> ddpo_sched::Result<Tensor> {
        self.policy.check(x_t, t, &self.cond)?;
        let context = AttentionContext::Cached(&self.blocks);
        tch::no_grad(|| self.policy.forward(x_t, t, context))
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
        self.check(input.x_t, input.t, input.cond)?;
        let cond = input.cond.tokens.to_kind(self.kind);
        if !self.checkpointing {
            let eps = self.forward(input.x_t, input.t, AttentionContext::Embeddings(&cond))?;
            let backward = |loss: &Tensor| loss.f_backward().map_err(ddpo_train::Error::model);
            return self.backward(&loss(&eps)?, backward);
        }
        let x_t = input.x_t.to_kind(self.kind);
        let (eps, record) = self
            .unet
            .net
            .record(&x_t, input.t, &cond, self.autocast)
            .map_err(ddpo_train::Error::model)?;
        let leaf = eps.to_kind(Kind::Float).set_requires_grad(true);
        self.backward(&loss(&leaf)?, |loss| {
            loss.f_backward().map_err(ddpo_train::Error::model)?;
            let grad = leaf.grad().to_kind(eps.kind());
            record.backward(grad).map_err(ddpo_train::Error::model)
        })
    }

    fn loss_scale(&self) -> Option<&LossScale> {
        self.loss_scale.as_ref()
    }
}

impl Persist for UnetPolicy {
    fn save(&self, out: &mut StateWriter) -> ddpo_train::Result<()> {
        self.params().save(out)?;
        match &self.loss_scale {
            Some(scale) => out.nested("loss_scale", scale),
            None => Ok(()),
        }
    }

    fn load(&mut self, from: &StateReader) -> ddpo_train::Result<()> {
        match &mut self.trained {
            Trained::All(params) => params.load(from),
            Trained::Lora(lora) => lora.load(from),
        }?;
        match &mut self.loss_scale {
            Some(scale) if from.contains("loss_scale") => from.nested("loss_scale", scale),
            Some(_) => Err(from.refuse(
                "loss_scale",
                "is missing: the run was in another model.dtype, or of a version without loss scaling",
            )),
            None => Ok(()),
        }
    }
}
