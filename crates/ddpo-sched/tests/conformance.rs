//! The conformance suites: what is built passes them, and what breaks a promise does not.
#![cfg(feature = "tch")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use ddpo_sched::dev::{denoiser_conforms, sampler_conforms};
use ddpo_sched::{
    Conditioned, Conditioning, Ddim, DenoiseInput, Denoiser, EulerAncestral, Gaussian, Guided,
    NoiseSchedule, Prediction, Result, Sampler, ScheduleConfig, Spacing, Universal, check_steps,
};
use proptest::prelude::*;
use tch::{Kind, Tensor};

fn configs() -> impl Iterator<Item = ScheduleConfig> {
    use Prediction::{Epsilon, Sample, VPrediction};
    use Spacing::{Leading, Linspace, Trailing};
    let predictions = [
        (Epsilon, false),
        (VPrediction, false),
        (VPrediction, true),
        (Sample, true),
    ];
    predictions
        .into_iter()
        .flat_map(|(prediction_type, rescale_betas_zero_snr)| {
            [Leading, Linspace, Trailing].map(|timestep_spacing| ScheduleConfig {
                prediction_type,
                rescale_betas_zero_snr,
                timestep_spacing,
                ..ScheduleConfig::sd_v1_4()
            })
        })
}

#[test]
fn the_samplers_conform() {
    for config in configs() {
        for n_steps in [1, 7, 50] {
            for eta in [0.0, 0.5, 1.0] {
                sampler_conforms(&Ddim::new(&config, n_steps, eta).unwrap());
            }
            sampler_conforms(&EulerAncestral::new(&config, n_steps).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn samplers_of_any_length_conform(n_steps in 1_usize..120, eta in 0.0..=1.0_f64, which in 0_usize..12) {
        let config = configs().nth(which).unwrap();
        sampler_conforms(&Ddim::new(&config, n_steps, eta).unwrap());
        sampler_conforms(&EulerAncestral::new(&config, n_steps).unwrap());
    }
}

/// Ten steps of DDIM with one thing broken.
struct Broken {
    inner: Ddim,
    what: &'static str,
}

impl Sampler for Broken {
    fn n_steps(&self) -> usize {
        if self.what == "steps" { 0 } else { 10 }
    }

    fn timestep(&self, step: usize) -> f64 {
        if self.what == "times" {
            1.0
        } else {
            Sampler::timestep(&self.inner, step)
        }
    }

    fn is_stochastic(&self, step: usize) -> bool {
        self.what == "stochastic" || self.inner.is_stochastic(step)
    }

    fn transition(&self, at: &[usize], x_t: &Tensor, model_output: &Tensor) -> Result<Gaussian> {
        let last = |&step: &usize| step.min(9);
        let inside: Vec<usize> = at.iter().map(last).collect();
        match self.what {
            "range" => self.inner.transition(&inside, x_t, model_output),
            "mixed" => {
                check_steps(at, 10)?;
                self.inner
                    .transition(&vec![at[0]; at.len()], x_t, model_output)
            }
            "gradient" => self.inner.transition(at, x_t, &model_output.detach()),
            "batch" => self.inner.transition(
                at,
                &(x_t - x_t.mean_dim(0, true, Kind::Float)),
                model_output,
            ),
            _ => self.inner.transition(at, x_t, model_output),
        }
    }

    fn renoise(&self, step: usize) -> Option<(f64, f64)> {
        let (a, b) = self.inner.renoise(step)?;
        Some(if self.what == "renoise" {
            (a, 0.0)
        } else {
            (a, b)
        })
    }
}

fn message(run: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("the suite passes");
    let text = payload.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| payload.downcast_ref::<&str>().unwrap().to_string())
}

#[test]
fn broken_samplers_do_not_conform() {
    let made = |what, eta| Broken {
        inner: Ddim::new(&ScheduleConfig::sd_v1_4(), 10, eta).unwrap(),
        what,
    };
    sampler_conforms(&made("nothing", 1.0));
    for (what, eta, expected) in [
        ("steps", 1.0, "there is a step"),
        ("times", 1.0, "is not below"),
        ("stochastic", 0.0, "is stochastic exactly if"),
        ("range", 1.0, "is refused with Error::Range"),
        ("mixed", 1.0, "alone at step"),
        ("gradient", 1.0, "a gradient of the mean in the output"),
        ("batch", 1.0, "a sample alone"),
        ("renoise", 1.0, "taken back, latents have a variance of"),
    ] {
        let said = message(|| sampler_conforms(&made(what, eta)));
        assert!(said.contains(expected), "{what}: {said}");
    }
}

/// `tanh` of latents and conditioning, with one thing broken.
struct Net(&'static str);

impl Denoiser for Net {
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        let shift = input
            .cond
            .tokens
            .mean_dim([1, 2].as_slice(), false, Kind::Float);
        let shift = (shift + input.t / 1000.0).view([-1, 1, 1, 1]);
        Ok(match self.0 {
            "shape" => input.x_t.flatten(1, -1),
            "gradient" => (input.x_t.detach() + shift).tanh(),
            "batch" => (input.x_t - input.x_t.mean(Kind::Float) + shift).tanh(),
            "grad mode" => (input.x_t + shift).tanh().set_requires_grad(true),
            "finite" => input.x_t / 0.0,
            _ => (input.x_t + shift).tanh(),
        })
    }

    fn conditioned<'a>(&'a self, cond: &Conditioning) -> Result<Conditioned<'a>> {
        let cond = match self.0 {
            "conditioned" => cond.map(|part| part * 2.0),
            _ => cond.clone(),
        };
        Ok(Box::new(move |x_t, t| {
            let cond = &cond;
            tch::no_grad(|| self.predict(DenoiseInput { x_t, t, cond }))
        }))
    }
}

#[test]
fn the_denoisers_conform_and_broken_ones_do_not() {
    tch::manual_seed(0);
    let on_cpu = (Kind::Float, tch::Device::Cpu);
    let (x_t, t) = (
        Tensor::randn([3, 2, 4, 4], on_cpu),
        Tensor::from_slice(&[1_f32, 500.5, 999.0]),
    );
    let cond = Conditioning::new(Tensor::randn([3, 2, 4], on_cpu));
    let input = DenoiseInput {
        x_t: &x_t,
        t: &t,
        cond: &cond,
    };
    let uncond = cond.narrow(0, 1).map(|part| part * 0.0);
    denoiser_conforms(&Net("nothing"), input);
    denoiser_conforms(&Guided::new(Net("nothing"), uncond, 5.0), input);
    let schedule = NoiseSchedule::new(&ScheduleConfig::sd_v1_4()).unwrap();
    let score = |x_0: &Tensor| Ok(x_0.flatten(1, -1).mean_dim(1, false, Kind::Float));
    denoiser_conforms(
        &Universal::new(Net("nothing"), schedule, 0.5, Box::new(score)),
        input,
    );
    let blind = |x_0: &Tensor| Ok(x_0.detach().flatten(1, -1).mean_dim(1, false, Kind::Float));
    let schedule = NoiseSchedule::new(&ScheduleConfig::sd_v1_4()).unwrap();
    let blind = Universal::new(Net("nothing"), schedule, 0.5, Box::new(blind));
    let refused = blind.predict(input).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the denoiser failed: the objective has no gradient in x₀"
    );
    for (what, expected) in [
        ("shape", "shape of the output"),
        ("gradient", "a gradient in grad mode"),
        ("batch", "has no gradient in another sample"),
        ("grad mode", "no gradient under no_grad"),
        ("finite", "the output is finite"),
        ("conditioned", "conditioned: differs"),
    ] {
        let said = message(|| denoiser_conforms(&Net(what), input));
        assert!(said.contains(expected), "{what}: {said}");
    }
}
