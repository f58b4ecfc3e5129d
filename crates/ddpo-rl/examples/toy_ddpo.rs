//! DDPO of a small network on points of the plane: `cargo run -p ddpo-rl --example toy_ddpo [-- FILE.png]`.
//!
//! A diffusion model learns to fill a square, whatever it is asked for. The reward then wants points where the hand of a
//! clock is at the hour of the prompt, and DDPO moves them there. The PNG shows what the model draws before and after,
//! from the same noise. Exits with 1 unless the mean distance from where points should be halves.

use std::f64::consts::PI;
use std::{error::Error, path::PathBuf, process::ExitCode};

use ddpo_reward::{Images, Prompt, Reward, check_batch};
use ddpo_rl::{Ddpo, DdpoConfig, Estimator};
use ddpo_sched::{
    Conditioning, Ddim, DenoiseInput, Denoiser, KeyedNoise, LatentBatch, NoiseSchedule,
    ScheduleConfig, Seeds, Stream, sample,
};
use ddpo_train::{
    AdamW, AdamWConfig, Conditioner, Decoder, ImageModel, Optimizer, ParamSet, Persist, Policy,
    Retry, RewardWorker, StateReader, StateWriter, TrainContext, TrainPlan, train,
};
use image::{Rgb, RgbImage};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
/// What is asked for.
const HOURS: [&str; 6] = [
    "12 o'clock",
    "2 o'clock",
    "4 o'clock",
    "6 o'clock",
    "8 o'clock",
    "10 o'clock",
];
/// How long the clock's hand is. The square that the model learns is from −1 to 1 in both directions.
const HAND: f64 = 0.7;
/// What an image of one point shows: the plane from −1.5 to 1.5 in so many pixels.
const PIXELS: i64 = 24;
const EDGE: f64 = 1.5;
/// x to the right, y downwards.
type Point = [f64; 2];

/// Predicts ε from a point, the time and the prompt.
struct Mlp(ParamSet);

impl Mlp {
    fn new(seed: u64, hidden: i64) -> ddpo_train::Result<Self> {
        let shapes = [
            [6 + HOURS.len() as i64, hidden],
            [hidden, hidden],
            [hidden, 2],
        ];
        let named = shapes.into_iter().zip(0_u64..).map(|([from, to], i)| {
            let mut values = vec![0.0_f32; (from * to) as usize];
            let key = Seeds::new(seed).derive(Stream::Weights, 0, i);
            key.draws().fill_normal(&mut values);
            let weight = Tensor::from_slice(&values).view([from, to]) / (from as f64).sqrt();
            (i.to_string(), weight.set_requires_grad(true))
        });
        Ok(Self(ParamSet::new(named.collect())?))
    }
}

impl Denoiser for Mlp {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        let w = self.0.tensors();
        let t = input.t.unsqueeze(1) / 1000.0;
        let waves = [1.0, 2.0, 4.0].map(|n| (&t * (PI * n)).cos());
        let [a, b, c] = &waves;
        let asked = &input.cond.tokens.flatten(1, -1);
        let inputs = Tensor::cat(&[input.x_t, a, b, c, &t.ones_like(), asked], 1);
        let hidden = inputs.matmul(&w[0]).silu().matmul(&w[1]).silu();
        Ok(hidden.matmul(&w[2]))
    }
}

impl Policy for Mlp {
    fn params(&self) -> &ParamSet {
        &self.0
    }

    fn accumulate(
        &self,
        input: DenoiseInput<'_>,
        loss: &mut dyn FnMut(&Tensor) -> ddpo_train::Result<Tensor>,
    ) -> ddpo_train::Result<()> {
        loss(&self.predict(input)?)?.backward();
        Ok(())
    }
}

impl Persist for Mlp {
    fn save(&self, out: &mut StateWriter) -> ddpo_train::Result<()> {
        self.0.save(out)
    }

    fn load(&mut self, from: &StateReader) -> ddpo_train::Result<()> {
        self.0.load(from)
    }
}

/// One-hot prompts, and images of one bright spot: all that the reward gets to see of a point.
struct Plane;

impl Conditioner for Plane {
    fn embed(&self, prompts: &[Prompt]) -> ddpo_train::Result<Conditioning> {
        let ids: Vec<i64> = prompts.iter().map(|prompt| prompt.id as i64).collect();
        let one_hot = Tensor::from_slice(&ids).one_hot(HOURS.len() as i64);
        Ok(one_hot.to_kind(Kind::Float).unsqueeze(1).into())
    }
}

impl Decoder for Plane {
    fn decode(&self, points: &Tensor) -> ddpo_train::Result<Images> {
        let pixels = Tensor::linspace(-EDGE, EDGE, PIXELS, CPU);
        let points = points.clamp(-EDGE, EDGE);
        let axis = |i| ((&pixels - points.narrow(1, i, 1)).square() * -20.0).exp();
        let spots = axis(1).unsqueeze(2) * axis(0).unsqueeze(1) * 255.0;
        let rgb = spots.to_kind(Kind::Uint8).unsqueeze(3).repeat([1, 1, 1, 3]);
        let bytes = Vec::<u8>::try_from(rgb.flatten(0, -1)).map_err(ddpo_train::Error::model)?;
        let (n, side) = (points.size()[0] as usize, PIXELS as usize);
        Ok(Images::from_bytes(n, side, side, bytes)?)
    }
}

/// Where the hand of a clock ends.
fn hand(prompt: &str) -> Point {
    let hour = prompt
        .split(' ')
        .next()
        .and_then(|hour| hour.parse::<f64>().ok());
    let (sin, cos) = (hour.unwrap_or(12.0) * PI / 6.0).sin_cos();
    [HAND * sin, -HAND * cos]
}

/// Minus the distance of the bright spot from where it should be; at most 0.
struct Clock;

impl Reward for Clock {
    fn name(&self) -> &str {
        "clock"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> ddpo_reward::Result<Vec<f32>> {
        check_batch(images, prompts)?;
        let width = images.width();
        let place = |pixel: usize| EDGE * (2.0 * pixel as f64 / (width - 1) as f64 - 1.0);
        let score = |(rgb, prompt): (&[u8], &Prompt)| {
            let (mut x, mut y, mut sum) = (0.0, 0.0, 0.0);
            for (i, pixel) in rgb.chunks_exact(3).enumerate() {
                let light = f64::from(pixel[0]);
                x += light * place(i % width);
                y += light * place(i / width);
                sum += light;
            }
            let wanted = hand(&prompt.text);
            -(x / sum - wanted[0]).hypot(y / sum - wanted[1]) as f32
        };
        Ok(images.iter_bytes().zip(prompts).map(score).collect())
    }
}

/// Ordinary diffusion training on points of the square: the model that DDPO starts from.
fn pretrain(policy: &Mlp, schedule: &NoiseSchedule, steps: u64) -> Result<f64, Box<dyn Error>> {
    const BATCH: usize = 256;
    let config = AdamWConfig {
        lr: 3e-3,
        ..AdamWConfig::default()
    };
    let mut adamw = AdamW::new(config, policy.params())?;
    let cond = Plane.embed(&prompts(BATCH))?;
    let mut last = 0.0;
    for step in 0..steps {
        adamw.set_lr(3e-3 * (1.0 - step as f64 / steps as f64));
        let data = Seeds::new(1).derive(Stream::Data, step, 0);
        let (mut draws, mut noise) = (data.sub(0), vec![0.0_f32; 2 * BATCH]);
        data.sub(1).fill_normal(&mut noise);
        let points: Vec<f64> = (0..2 * BATCH).map(|_| 2.0 * draws.unit() - 1.0).collect();
        let times = (0..BATCH).map(|_| draws.below(schedule.len() as u64) as usize);
        let times: Vec<usize> = times.collect();
        let square = |tensor: Tensor| tensor.to_kind(Kind::Float).view([-1, 2]);
        let (x_0, noise) = (
            square(Tensor::from_slice(&points)),
            square(Tensor::from_slice(&noise)),
        );
        let x_t = &schedule.q_sample(&x_0, &noise, &times)?;
        let target = schedule.target(&x_0, &noise, &times)?;
        let t: Vec<f32> = times.iter().map(|&t| t as f32).collect();
        let (t, cond) = (&Tensor::from_slice(&t), &cond);
        policy.accumulate(DenoiseInput { x_t, t, cond }, &mut |eps| {
            let loss = eps.mse_loss(&target, tch::Reduction::Mean);
            last = loss.double_value(&[]);
            Ok(loss)
        })?;
        adamw.step(policy.params(), 1.0)?;
    }
    Ok(last)
}

/// So many prompts, hour after hour.
fn prompts(n: usize) -> Vec<Prompt> {
    let hours = HOURS.iter().zip(0..).cycle();
    hours
        .map(|(hour, id)| Prompt::new(id, *hour))
        .take(n)
        .collect()
}

/// What the policy draws from noise that training never sees, and how far that is from where it should be.
fn draw(policy: &Mlp, sampler: &Ddim) -> Result<(Vec<Point>, f64), Box<dyn Error>> {
    let (ids, prompts): (Vec<u64>, _) = ((0..900).collect(), prompts(900));
    let batch = LatentBatch {
        shape: &[2],
        cond: &Plane.embed(&prompts)?,
        sample_ids: &ids,
        log_prob: None,
    };
    let noise = KeyedNoise::of_stream(Seeds::new(0), Stream::Evaluation, 0);
    let points = sample(policy, sampler, &batch, &noise, &mut |_| Ok(()))?;
    let rewards = Clock.score(&Plane.decode(&points)?, &prompts)?;
    let distance = rewards.iter().map(|&r| -f64::from(r)).sum::<f64>() / ids.len() as f64;
    let flat = Vec::<f64>::try_from(points.to_kind(Kind::Double).flatten(0, -1))?;
    Ok((flat.chunks(2).map(|p| [p[0], p[1]]).collect(), distance))
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let file = std::env::args().nth(1).map(PathBuf::from);
    let file = file.unwrap_or_else(|| std::env::temp_dir().join("toy_ddpo.png"));
    let config = ScheduleConfig {
        // As in Stable Diffusion: the last step ends at timestep 0 and not without any noise, so that it has a density.
        steps_offset: 1,
        set_alpha_to_one: false,
        ..ScheduleConfig::default()
    };
    let sampler = Ddim::new(&config, 10, 1.0)?;
    let mut policy = Mlp::new(0, 96)?;
    let loss = pretrain(&policy, &NoiseSchedule::new(&config)?, 3000)?;
    println!("pretrained: denoising loss {loss:.3}");
    let (before, far) = draw(&policy, &sampler)?;

    let adamw = AdamWConfig {
        lr: 1e-3,
        ..AdamWConfig::default()
    };
    let mut adamw = AdamW::new(adamw, policy.params())?;
    let config = DdpoConfig {
        // Two dimensions instead of thousands: a log-probability says less, and the ratio may go further.
        estimator: Estimator::ImportanceSampling { clip_range: 0.1 },
        samples_per_epoch: 256,
        updates_per_epoch: 4,
        sample_batch: 256,
        micro_batch: 640,
        ..DdpoConfig::importance_sampling()
    };
    let mut ddpo = Ddpo::new(config, &sampler, 1)?;
    let rewards = RewardWorker::new(vec![Box::new(Clock)], Retry::never())?;
    let prompts = prompts(HOURS.len());
    let model = ImageModel::new(&Plane, &Plane, &[2]);
    let mut ctx = TrainContext::new(&mut policy, &mut adamw, &sampler, &rewards, &prompts, model);
    train(&mut ddpo, &mut ctx, &TrainPlan::epochs(200))?;
    drop(ctx);

    let (after, near) = draw(&policy, &sampler)?;
    println!("mean distance from what was asked for: {far:.3} before, {near:.3} after");
    side_by_side(&before, &after).save(&file)?;
    println!("before | after: {}", file.display());
    Ok(ExitCode::from(u8::from(near > 0.5 * far)))
}

/// Two panels of the plane: a colour for each hour, a circle where its points should be.
fn side_by_side(before: &[Point], after: &[Point]) -> RgbImage {
    const PANEL: u32 = 360;
    const GAP: u32 = 6;
    const COLOURS: [[f32; 3]; 6] = [
        [214.0, 39.0, 40.0],
        [255.0, 127.0, 14.0],
        [44.0, 160.0, 44.0],
        [23.0, 170.0, 190.0],
        [31.0, 90.0, 200.0],
        [148.0, 80.0, 189.0],
    ];
    let mut image = RgbImage::from_pixel(2 * PANEL + GAP, PANEL, Rgb([255; 3]));
    let separator = (0..PANEL).flat_map(|y| (PANEL..PANEL + GAP).map(move |x| (x, y)));
    separator.for_each(|(x, y)| image.put_pixel(x, y, Rgb([150; 3])));
    for (left, points) in [(0, before), (PANEL + GAP, after)] {
        let pixel = |at: Point| at.map(|v| ((v / EDGE + 1.0) * f64::from(PANEL) / 2.0) as f32);
        // A disc, or the outline of one, over what is there.
        let mut disc = |at: Point, outer: f32, inner: f32, colour: [f32; 3], opacity: f32| {
            let [x, y] = pixel(at);
            let near =
                |v: f32| (v - outer - 1.0).max(0.0) as u32..((v + outer + 2.0) as u32).min(PANEL);
            for (px, py) in near(y).flat_map(|py| near(x).map(move |px| (px, py))) {
                let away = (px as f32 - x).hypot(py as f32 - y);
                let share = (outer - away).min(away - inner).clamp(-0.5, 0.5) + 0.5;
                let old = image.get_pixel_mut(left + px, py);
                for (old, new) in old.0.iter_mut().zip(colour) {
                    *old = (f32::from(*old) + (new - f32::from(*old)) * share * opacity) as u8;
                }
            }
        };
        for (point, colour) in points.iter().zip(COLOURS.iter().cycle()) {
            disc(*point, 2.5, -1.0, *colour, 0.7);
        }
        for (hour, colour) in HOURS.iter().zip(COLOURS) {
            disc(hand(hour), 20.0, 17.0, colour, 1.0);
        }
    }
    image
}
