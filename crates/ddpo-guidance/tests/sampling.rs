//! Runs of the baseline in the tiny world: what it draws, what it leaves alone, and that it goes on where it stopped.

use std::cell::RefCell;
use std::rc::Rc;

use ddpo_guidance::{DifferentiableReward, Result, UniversalGuidance, UniversalGuide};
use ddpo_reward::Prompt;
use ddpo_sched::{
    Ddim, DenoiseInput, Denoiser, KeyedNoise, NoiseSchedule, ScheduleConfig, Seeds, Stream,
};
use ddpo_testkit::{Recorder, Service, World};
use ddpo_train::{
    Boundary, Checkpoints, Event, Images, Observer, Outcome, Retry, RewardWorker, SamplingStrategy,
    StopFlag, TrainPlan, train,
};
use tch::{Kind, Tensor};

/// The exact denoiser of standard normal latents, differentiable.
struct Exact(NoiseSchedule);

impl Denoiser for Exact {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        let timesteps = Vec::<f32>::try_from(input.t).unwrap();
        let noise = timesteps
            .iter()
            .map(|&t| (1.0 - self.0.abar()[t as usize]).sqrt() as f32);
        let noise = Tensor::from_slice(&noise.collect::<Vec<_>>());
        Ok(input.x_t * noise.view([-1, 1, 1, 1]))
    }
}

/// `AskedColour` as a function of images in [0, 1].
struct Asked;

impl DifferentiableReward for Asked {
    fn scores(&self, images: &Tensor, prompts: &[Prompt]) -> Result<Tensor> {
        let channel = |prompt: &Prompt| if prompt.text == "red" { 0 } else { 2 };
        let rows: Vec<i64> = prompts.iter().map(channel).collect();
        let means = images.flatten(2, -1).mean_dim(2, false, Kind::Float) * 255.0;
        let picked = means.gather(1, &Tensor::from_slice(&rows).unsqueeze(1), false);
        Ok(picked.squeeze_dim(1))
    }
}

fn guide(weight: f64, repeats: usize, batch: usize) -> UniversalGuide {
    let schedule = ScheduleConfig::sd_v1_4();
    UniversalGuide {
        net: Box::new(Exact(NoiseSchedule::new(&schedule).unwrap())),
        schedule: NoiseSchedule::new(&schedule).unwrap(),
        sampler: Box::new(Ddim::new(&schedule, 10, 1.0).unwrap()),
        decode: Box::new(|latents| ((latents * 40.0 + 128.0) / 255.0).clamp(0.0, 1.0)),
        reward: Box::new(Asked),
        weight,
        repeats,
        batch,
    }
}

/// A world that draws as `guide` does, and the algorithm of it.
fn guided(guide: UniversalGuide) -> (World, UniversalGuidance) {
    let algorithm = UniversalGuidance::new(&guide, 12, 1).unwrap();
    let mut world = World::new().unwrap();
    world.strategy = Some(Box::new(guide));
    (world, algorithm)
}

/// Draws the same six images at every boundary, as an evaluation does, and may ask the run to stop meanwhile.
#[derive(Default)]
struct Watch {
    drawn: Rc<RefCell<Vec<Images>>>,
    /// Asks after so many steps of images under guidance.
    stop_after: Option<(usize, StopFlag)>,
}

const IDS: [u64; 6] = [5, 3, 0, 9, 1, 2];

fn asked(ids: &[u64]) -> Vec<Prompt> {
    let prompt = |id: &u64| match id % 2 {
        0 => Prompt::new(0, "red"),
        _ => Prompt::new(1, "blue"),
    };
    ids.iter().map(prompt).collect()
}

fn noise() -> KeyedNoise {
    KeyedNoise::of_stream(Seeds::new(0), Stream::Evaluation, 7)
}

impl Observer for Watch {
    fn on(&mut self, _event: &Event<'_>) -> Result<()> {
        Ok(())
    }

    fn at_boundary(&mut self, boundary: &Boundary<'_>) -> Result<()> {
        let mut told = 0;
        let images = boundary.draw(&asked(&IDS), &IDS, &noise(), &mut |n| {
            told += n;
            if let (Some((after, stop)), Some(_)) =
                (&self.stop_after, boundary.epochs_done.checked_sub(1))
                && told >= *after
            {
                stop.request();
            }
        })?;
        assert_eq!(told, IDS.len() * boundary.n_steps());
        self.drawn.borrow_mut().push(images);
        Ok(())
    }
}

/// Mean of the colour that was asked for.
fn worth(images: &Images) -> f64 {
    let mut reward = ddpo_testkit::AskedColour;
    let scores = ddpo_reward::Reward::score(&mut reward, images, &asked(&IDS)).unwrap();
    scores.iter().map(|&s| f64::from(s)).sum::<f64>() / IDS.len() as f64
}

fn one_epoch() -> TrainPlan {
    TrainPlan {
        epochs: 1,
        ..TrainPlan::default()
    }
}

#[test]
fn a_run_draws_plainly_first_then_guided_and_changes_no_weight() {
    let (mut world, mut algorithm) = guided(guide(0.2, 2, 4));
    let before: Vec<Tensor> = weights(&world);
    let (mut watch, mut recorder) = (Watch::default(), Recorder::default());
    let drawn = Rc::clone(&watch.drawn);
    let mut context = world.context(vec![&mut watch, &mut recorder]);
    assert_eq!(
        train(&mut algorithm, &mut context, &one_epoch()).unwrap(),
        Outcome::Done
    );
    drop(context);
    let drawn = drawn.borrow();
    assert_eq!(drawn.len(), 2);
    let [plain, guided] = [0, 1].map(|i| worth(&drawn[i]));
    assert!(guided > plain + 20.0, "{plain}, guided {guided}");
    assert_eq!(weights(&world), before);
    let report = &recorder.epochs[0];
    assert_eq!(report.reward_queries, 12);
    assert_eq!(report.get("guidance/reward_gradients"), Some(240.0));
    let mean = recorder
        .samples
        .iter()
        .map(|(_, _, reward, _)| f64::from(*reward))
        .sum::<f64>()
        / 12.0;
    assert!((report.get("reward/mean").unwrap() - mean).abs() < 1e-4);
    assert!(mean > plain + 20.0);
}

fn weights(world: &World) -> Vec<Tensor> {
    let params = world.policy.params().iter();
    params.map(|(_, tensor)| tensor.detach().copy()).collect()
}

#[test]
fn a_run_that_is_stopped_while_guided_images_are_looked_at_looks_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = |stop_after: Option<usize>, resume: bool| {
        let checkpoints = Checkpoints::open(folder.path().to_owned(), 2).unwrap();
        let latest = checkpoints.latest().unwrap();
        assert_eq!(latest.is_some(), resume);
        let plan = TrainPlan {
            checkpoints: Some(checkpoints),
            resume: latest,
            ..one_epoch()
        };
        let (mut world, mut algorithm) = guided(guide(0.2, 2, 4));
        let mut watch = Watch {
            stop_after: stop_after.map(|n| (n, world.stop.clone())),
            ..Watch::default()
        };
        let (mut recorder, drawn) = (Recorder::default(), Rc::clone(&watch.drawn));
        let mut context = world.context(vec![&mut watch, &mut recorder]);
        let outcome = train(&mut algorithm, &mut context, &plan).unwrap();
        drop(context);
        let drawn = drawn.borrow().clone();
        (outcome, drawn, recorder.samples.len())
    };
    let (outcome, drawn, _) = run(Some(13), false);
    assert!(matches!(
        outcome,
        Outcome::Interrupted {
            checkpoint: Some(_)
        }
    ));
    assert_eq!(drawn.len(), 1, "the second time was stopped");
    let (outcome, drawn, samples) = run(Some(30), true);
    assert_eq!(outcome, Outcome::Interrupted { checkpoint: None });
    assert_eq!((drawn.len(), samples), (0, 0), "nothing is sampled again");
    let (outcome, resumed, _) = run(None, true);
    assert_eq!(outcome, Outcome::Done);
    std::fs::remove_dir_all(folder.path()).unwrap();
    let (_, whole, _) = run(None, false);
    assert_eq!(resumed[0], whole[1]);
}

#[test]
fn what_a_sample_looks_like_does_not_depend_on_its_batch() {
    let draw = |ids: &[u64], batch: usize| {
        let guide = guide(0.05, 3, batch);
        let policy = ddpo_testkit::TinyPolicy::new(1).unwrap();
        let sampler = Ddim::new(&ScheduleConfig::sd_v1_4(), 10, 1.0).unwrap();
        let cond = ddpo_train::Conditioner::embed(&ddpo_testkit::Pixels, &asked(ids)).unwrap();
        let batch = ddpo_sched::LatentBatch {
            shape: &ddpo_testkit::LATENT,
            cond: &cond,
            sample_ids: ids,
            log_prob: None,
        };
        guide
            .sample(
                &policy,
                &sampler,
                &asked(ids),
                &batch,
                &noise(),
                &mut |_| Ok(()),
            )
            .unwrap()
    };
    let whole = draw(&IDS, 6);
    for (row, id) in (0..).zip(IDS) {
        assert_eq!(draw(&[id], 1).get(0), whole.get(row), "sample {id}");
    }
}

#[test]
fn an_epoch_whose_reward_fails_goes_on_without_drawing_again() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |resume: bool| {
        let checkpoints = Checkpoints::open(folder.path().to_owned(), 2).unwrap();
        let latest = checkpoints.latest().unwrap();
        assert_eq!(latest.is_some(), resume);
        TrainPlan {
            checkpoints: Some(checkpoints),
            resume: latest,
            ..one_epoch()
        }
    };
    let scored = |left: usize, resume: bool| {
        let (mut world, mut algorithm) = guided(guide(0.05, 2, 4));
        let service = Service {
            left,
            asked: Default::default(),
        };
        let images = service.asked.clone();
        world.rewards = RewardWorker::new(vec![Box::new(service)], Retry::never()).unwrap();
        let mut recorder = Recorder::default();
        let mut context = world.context(vec![&mut recorder]);
        let outcome = train(&mut algorithm, &mut context, &plan(resume));
        drop(context);
        let images = images.lock().unwrap().clone();
        (
            outcome.is_ok(),
            images,
            recorder.samples,
            recorder.images.len(),
        )
    };
    let (done, first, _, _) = scored(5, false);
    assert!(!done && first.len() == 5);
    let (done, rest, samples, drawn) = scored(100, true);
    assert!(done && drawn == 0, "nothing is drawn again");
    assert_eq!(rest.len(), 7);
    let (mut world, mut algorithm) = guided(guide(0.05, 2, 4));
    let mut recorder = Recorder::default();
    let mut context = world.context(vec![&mut recorder]);
    train(&mut algorithm, &mut context, &one_epoch()).unwrap();
    drop(context);
    assert_eq!(
        samples, recorder.samples,
        "as the run that was not interrupted"
    );
}

#[test]
fn numbers_that_draw_nothing_are_refused() {
    for (guide, samples, world) in [
        (guide(1.0, 0, 1), 4, 1),
        (guide(1.0, 1, 0), 4, 1),
        (guide(1.0, 1, 1), 0, 1),
        (guide(1.0, 1, 1), 3, 2),
    ] {
        assert!(UniversalGuidance::new(&guide, samples, world).is_err());
    }
}
