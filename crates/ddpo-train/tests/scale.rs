//! The loss scale counts what `torch.amp.GradScaler` counts: steps of the optimiser.

use ddpo_sched::{DenoiseInput, Denoiser};
use ddpo_testkit::{TinyPolicy, World};
use ddpo_train::{
    Error, Fault, LossScale, Meter, Metrics, ParamSet, Persist, Policy, Result, StateReader,
    StateWriter, UpdateIndex, Updater,
};
use tch::{Device, Kind, Tensor};

/// A scale that so many steps have been taken with.
fn scale_after(scale: f64, steps: u64) -> LossScale {
    let mut state = StateWriter::new();
    state.value("state", &(scale, steps, 1_u64)).unwrap();
    let mut loaded = LossScale::default();
    loaded.load(&state.into_reader()).unwrap();
    assert_eq!((loaded.get(), loaded.overflows()), (scale, 1));
    loaded
}

fn params() -> ParamSet {
    let leaf = Tensor::from_slice(&[3.0_f32, 4.0]).set_requires_grad(true);
    ParamSet::new(vec![("w".to_owned(), leaf)]).unwrap()
}

/// A backward pass whose gradients are 2 · `factor` · w.
fn pass(scale: &LossScale, params: &ParamSet, factor: f64) -> Result<()> {
    let loss = params.tensors()[0].square().sum(Kind::Float) * factor;
    scale.backward(params, &loss, |loss| {
        loss.f_backward().map_err(Error::model)
    })
}

#[test]
fn backward_passes_alone_do_not_make_it_grow() {
    let (scale, params) = (scale_after(1024.0, 1999), params());
    for _ in 0..2001 {
        pass(&scale, &params, 1e-3).unwrap();
        params.zero_grad();
    }
    assert_eq!(scale.get(), 1024.0);
    scale.stepped();
    assert_eq!(scale.get(), 2048.0);
}

#[test]
fn it_doubles_after_two_thousand_steps_in_a_row_and_ends_where_it_began() {
    let (scale, params) = (scale_after(16384.0, 0), params());
    let steps = |n: u64| (0..n).for_each(|_| scale.stepped());
    steps(1999);
    assert_eq!(scale.get(), 16384.0);
    steps(1);
    assert_eq!(scale.get(), 32768.0);
    // An overflow begins the row anew.
    steps(1999);
    let refused = pass(&scale, &params, 1e34);
    assert!(
        matches!(refused, Err(Error::Overflow { scale, next }) if scale == 32768.0 && next == 16384.0),
        "{refused:?}"
    );
    steps(1999);
    assert_eq!(scale.get(), 16384.0);
    steps(1 + 2000);
    assert_eq!(scale.get(), 65536.0);
    steps(2000);
    assert_eq!(scale.get(), 65536.0, "`GradScaler` would go on");
}

/// A policy that has a scale.
struct Scaled {
    inner: TinyPolicy,
    scale: LossScale,
}

impl Denoiser for Scaled {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        self.inner.predict(input)
    }
}

impl Policy for Scaled {
    fn params(&self) -> &ParamSet {
        self.inner.params()
    }

    fn accumulate(
        &self,
        input: DenoiseInput<'_>,
        loss: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        self.inner.accumulate(input, loss)
    }

    fn loss_scale(&self) -> Option<&LossScale> {
        Some(&self.scale)
    }
}

impl Persist for Scaled {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.inner.save(out)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.inner.load(from)
    }
}

#[test]
fn a_step_counts_once_and_one_that_is_skipped_does_not() {
    let mut world = World::new().unwrap();
    world.policy = Box::new(Scaled {
        inner: TinyPolicy::new(1).unwrap(),
        scale: scale_after(1024.0, 1998),
    });
    let mut ctx = world.context(Vec::new());
    let mut updater = Updater::new(1.0, 3);
    let at = UpdateIndex {
        epoch: 0,
        update: 0,
        n_updates: 1,
    };
    let mut step = |fault: Option<Fault>| {
        // Several passes a step, as with micro-batches.
        for _ in 0..3 {
            let x_t = Tensor::ones([1, 3, 2, 2], (Kind::Float, Device::Cpu));
            let cond = Tensor::ones([1, 1, 4], (Kind::Float, Device::Cpu)).into();
            let (x_t, t, cond) = (&x_t, &Tensor::from_slice(&[1_f32]), &cond);
            let input = DenoiseInput { x_t, t, cond };
            ctx.policy
                .accumulate(input, &mut |eps| Ok(eps.square().sum(Kind::Float)))
                .unwrap();
        }
        let mut epoch = Meter::of_updates(&[]);
        let stats = Meter::of_updates(&[]);
        updater
            .apply(&mut ctx, at, fault, stats, &mut epoch)
            .unwrap();
        let mut metrics = Metrics::default();
        epoch.report(&mut metrics);
        let taken = metrics.get("policy/updates") == Some(1.0);
        (taken, ctx.policy.loss_scale().unwrap().get())
    };
    assert_eq!(step(None), (true, 1024.0));
    let overflow = Fault::Overflow("as if".to_owned());
    assert_eq!(step(Some(overflow)), (false, 1024.0));
    let fault = Fault::NotFinite("as if".to_owned());
    assert_eq!(step(Some(fault)), (false, 1024.0));
    assert_eq!(step(None), (true, 2048.0));
}
