//! Gradients segment by segment: what a forward pass would keep is computed again, one segment at a time.
//!
//! The forward pass runs without gradients and keeps what each segment starts from. Backwards, the last segment
//! first, a segment runs again with gradients, from a copy of its start that is a leaf; the gradient of its
//! output is seeded, and the gradient of its start is the seed of the segment before it. At no time is there
//! more than one segment's graph. Compared with torch's `checkpoint` nothing has to be restored: there is no
//! dropout here, and the precision is an argument.

use ddpo_torch::{Autocast, backward};
use tch::{Kind, Tensor};

use super::walk::{Given, Skip};
use super::{Unet, channels_last};
use crate::Result;
use crate::attention::AttentionContext;

/// A forward pass that can be gone back through.
pub(crate) struct Record<'a> {
    unet: &'a Unet,
    t: &'a Tensor,
    time: Tensor,
    cond: &'a Tensor,
    kind: Kind,
    autocast: Option<Kind>,
    /// What each segment started from.
    starts: Vec<Given>,
}

impl Unet {
    /// A forward pass without gradients that [`Record::backward`] can go back through.
    ///
    /// # Shapes
    /// As [`forward`](Unet::forward); `autocast` is the kind that it computes in, if that is not the weights'.
    pub(crate) fn record<'a>(
        &'a self,
        x_t: &Tensor,
        t: &'a Tensor,
        cond: &'a Tensor,
        autocast: Option<Kind>,
    ) -> Result<(Tensor, Record<'a>)> {
        let _no_grad = tch::no_grad_guard();
        let _cast = Autocast::enter(x_t.device(), autocast)?;
        let kind = x_t.kind();
        let mut starts = Vec::new();
        let time = self.time(t, kind);
        let context = AttentionContext::Embeddings(cond);
        let note = &mut |given: &Given| starts.push(given.shallow_clone());
        let eps = self.walk(channels_last(x_t), &time, context, note);
        let record = Record {
            unet: self,
            t,
            time,
            cond,
            kind,
            autocast,
            starts,
        };
        Ok((eps, record))
    }

    fn time_is_trained(&self) -> bool {
        self.time1.weight.requires_grad()
    }
}

impl Record<'_> {
    /// Adds the gradient to every parameter that records one, given the gradient of the predicted noise.
    ///
    /// The numbers are those of a plain backward pass, bit for bit where its kernels are deterministic.
    ///
    /// # Shapes
    /// - `grad`: that of the prediction, in its kind
    ///
    /// # Errors
    /// [`Error::Torch`] with what autograd reports; gradients are then incomplete.
    pub(crate) fn backward(self, grad: Tensor) -> Result<()> {
        let segments = self.unet.segments();
        let time_trained = self.unet.time_is_trained();
        // Whether what a segment starts from, or what it takes, depends on a parameter.
        let (mut reached, mut left) = (false, Vec::new());
        let mut depends = Vec::with_capacity(segments.len());
        for segment in &segments {
            let skip = segment.skip == Skip::Takes && left.pop().unwrap_or(false);
            depends.push((reached, skip));
            reached |= skip || time_trained || segment.is_trained();
            if segment.skip == Skip::Leaves {
                left.push(reached);
            }
        }
        let time = leaf(&self.time, time_trained);
        let (mut grad, mut skip_grads) = (Some(grad), Vec::new());
        let rows = segments.iter().zip(self.starts).zip(depends).rev();
        for ((segment, start), (needs, skip_needs)) in rows {
            if segment.skip == Skip::Leaves {
                grad = sum(grad, skip_grads.pop().flatten());
            }
            let Some(seed) = grad.take() else { continue };
            let given = Given {
                h: leaf(&start.h, needs),
                skip: start.skip.as_ref().map(|skip| leaf(skip, skip_needs)),
                size: start.size,
            };
            drop(start);
            let out = {
                let _cast = Autocast::enter(seed.device(), self.autocast)?;
                segment.forward(&given, &time, AttentionContext::Embeddings(self.cond))
            };
            if out.requires_grad() {
                backward(&out, &seed)?;
            }
            grad = needs.then(|| given.h.grad());
            if let Some(skip) = &given.skip {
                skip_grads.push(skip_needs.then(|| skip.grad()));
            }
        }
        if time_trained {
            let seed = time.grad();
            let out = {
                let _cast = Autocast::enter(seed.device(), self.autocast)?;
                self.unet.time(self.t, self.kind)
            };
            backward(&out, &seed)?;
        }
        Ok(())
    }
}

/// The same numbers at the beginning of a graph.
fn leaf(of: &Tensor, records: bool) -> Tensor {
    of.detach().set_requires_grad(records)
}

fn sum(a: Option<Tensor>, b: Option<Tensor>) -> Option<Tensor> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}
