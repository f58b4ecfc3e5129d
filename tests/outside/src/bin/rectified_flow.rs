//! DDPO of a flow model, with a sampler, a network, a decoder and a reward that ddpo does not have.
//!
//! A rectified flow starts as that of standard normal points of the plane; training moves them to where one pixel of
//! their image is bright. Exits with 1 unless the reward doubles.

use std::{error::Error, f64::consts::PI, process::ExitCode, sync::mpsc};

use ddpo_reward::{Images, Prompt, Reward};
use ddpo_rl::{Ddpo, DdpoConfig};
use ddpo_sched::{Conditioning, DenoiseInput, Denoiser, Gaussian, Result, Sampler, check_steps};
use ddpo_train as core;
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
type Loss<'a> = dyn FnMut(&Tensor) -> core::Result<Tensor> + 'a;

/// `x_t = (1 − t) x₀ + t z`, walked back from t = 1 in `steps` (at least two) of Flow-GRPO's SDE (Liu et al. 2025,
/// formula 9) with `σ_t = a √(t / (1 − t))`; at t = 1, where that is infinite, σ is that of the next time.
struct FlowSde {
    steps: usize,
    a: f64,
}

impl FlowSde {
    /// `x_t + [v + σ²/2t (x_t + (1 − t) v)] dt + σ √|dt| z`: the weights of x_t, v and z.
    fn coefficients(&self, step: usize) -> (f64, f64, f64) {
        let (t, dt) = (self.timestep(step), -1.0 / self.steps as f64);
        let finite = self.timestep(step.max(1));
        let sigma = self.a * (finite / (1.0 - finite)).sqrt();
        let pull = sigma * sigma / (2.0 * t) * dt;
        (1.0 + pull, dt + pull * (1.0 - t), sigma * (-dt).sqrt())
    }
}

impl Sampler for FlowSde {
    fn n_steps(&self) -> usize {
        self.steps
    }
    fn timestep(&self, step: usize) -> f64 {
        1.0 - step as f64 / self.steps as f64
    }
    fn is_stochastic(&self, _: usize) -> bool {
        true
    }
    fn transition(&self, at: &[usize], x_t: &Tensor, velocity: &Tensor) -> Result<Gaussian> {
        check_steps(at, self.steps)?;
        let all: Vec<_> = at.iter().map(|&step| self.coefficients(step)).collect();
        let (a, b): (Vec<_>, Vec<_>) = all.iter().map(|&(a, b, _)| (a, b)).unzip();
        let std = all.iter().map(|&(_, _, std)| std).collect();
        Gaussian::affine(x_t, &a, velocity, &b, std)
    }
    fn renoise(&self, step: usize) -> Option<(f64, f64)> {
        let (t, to) = (self.timestep(step), self.timestep(step + 1));
        let kept = (1.0 - t) / (1.0 - to);
        Some((kept, (t * t - (kept * to).powi(2)).sqrt()))
    }
}

/// The velocity of standard normal points, and a network beside it.
struct Mlp(core::ParamSet);

impl Denoiser for Mlp {
    fn predict(&self, input: DenoiseInput<'_>) -> Result<Tensor> {
        let (x, t, w) = (input.x_t, input.t.unsqueeze(1), self.0.tensors());
        let exact = x * (&t * 2.0 - 1.0) / ((&t - 1.0).square() + t.square());
        let inputs = Tensor::cat(&[x, &t, &(&t * PI).cos(), &t.ones_like()], 1);
        Ok(exact + inputs.matmul(&w[0]).tanh().matmul(&w[1]))
    }
}

impl core::Policy for Mlp {
    fn params(&self) -> &core::ParamSet {
        &self.0
    }
    fn accumulate(&self, input: DenoiseInput<'_>, loss: &mut Loss<'_>) -> core::Result<()> {
        loss(&self.predict(input)?)?.backward();
        Ok(())
    }
}

impl core::Persist for Mlp {
    fn save(&self, out: &mut core::StateWriter) -> core::Result<()> {
        self.0.save(out)
    }
    fn load(&mut self, from: &core::StateReader) -> core::Result<()> {
        self.0.load(from)
    }
}

/// The plane from −4 to 4 in 16 × 16 pixels, where a point is a bright spot.
struct Plane;

impl core::Conditioner for Plane {
    fn embed(&self, prompts: &[Prompt]) -> core::Result<Conditioning> {
        Ok(Conditioning::none(prompts.len(), CPU.1))
    }
}

impl core::Decoder for Plane {
    fn decode(&self, points: &Tensor) -> core::Result<Images> {
        let pixels = Tensor::linspace(-4.0, 4.0, 16, CPU);
        let axis = |i| ((&pixels - points.narrow(1, i, 1)).square() * -0.5).exp();
        let spots = axis(1).unsqueeze(2) * axis(0).unsqueeze(1) * 255.0;
        let rgb = spots.to_kind(Kind::Uint8).unsqueeze(3).repeat([1, 1, 1, 3]);
        let bytes = Vec::<u8>::try_from(rgb.flatten(0, -1)).map_err(core::Error::model)?;
        Ok(Images::from_bytes(bytes.len() / (3 * 256), 16, 16, bytes)?)
    }
}

/// The brightness of the pixel in row 5 and column 11; the channel gets a copy of it.
struct Spot(mpsc::Sender<f32>);

impl Reward for Spot {
    fn name(&self) -> &str {
        "spot"
    }
    fn score(&mut self, images: &Images, _: &[Prompt]) -> ddpo_reward::Result<Vec<f32>> {
        let score = |rgb: &[u8]| f32::from(rgb[3 * (5 * 16 + 11)]);
        let scores = images.iter_bytes().map(score);
        Ok(scores.inspect(|&score| _ = self.0.send(score)).collect())
    }
}

fn main() -> std::result::Result<ExitCode, Box<dyn Error>> {
    let flow = FlowSde { steps: 10, a: 0.7 };
    ddpo_sched::dev::sampler_conforms(&flow);
    tch::manual_seed(0);
    let random = |shape: [i64; 2]| (Tensor::randn(shape, CPU) * 0.1).set_requires_grad(true);
    let weights = vec![("1".into(), random([5, 64])), ("2".into(), random([64, 2]))];
    let mut policy = Mlp(core::ParamSet::new(weights)?);
    let config = core::AdamWConfig {
        lr: 3e-3,
        ..Default::default()
    };
    let mut adamw = core::AdamW::new(config, &policy.0)?;
    let mut ddpo = Ddpo::new(DdpoConfig::score_function(), &flow, 1)?;
    let (told, scores) = mpsc::channel();
    let rewards = core::RewardWorker::new(vec![Box::new(Spot(told))], core::Retry::never())?;
    let prompts = [Prompt::new(0, "")];
    let model = core::ImageModel::new(&Plane, &Plane, &[2]);
    let mut ctx =
        core::TrainContext::new(&mut policy, &mut adamw, &flow, &rewards, &prompts, model);
    core::train(&mut ddpo, &mut ctx, &core::TrainPlan::epochs(40))?;
    let scores: Vec<f32> = scores.try_iter().collect();
    let mean = |scores: &[f32]| scores.iter().sum::<f32>() / scores.len() as f32;
    let (first, last) = (mean(&scores[..1024]), mean(&scores[scores.len() - 1024..]));
    println!("mean reward of the first 1,024 images {first:.1}, of the last {last:.1}");
    Ok(ExitCode::from(u8::from(last < 2.0 * first)))
}
