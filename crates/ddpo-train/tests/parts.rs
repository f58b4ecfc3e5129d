//! The parts of a run: optimiser, ranks, rewards, parameters.
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddpo_reward::{Images, Prompt, Reward, RewardError};
use ddpo_testkit::World;
use ddpo_train::{
    AdamW, AdamWConfig, Collective, Error, Optimizer, ParamSet, Persist, Retry, RewardWorker, Solo,
    StateWriter, Threads, dev,
};
use tch::{Device, Kind, Tensor};

fn params(values: &[f32]) -> ParamSet {
    let leaf = |v: &[f32]| Tensor::from_slice(v).set_requires_grad(true);
    let (a, b) = values.split_at(1);
    ParamSet::new(vec![("b".to_owned(), leaf(b)), ("a".to_owned(), leaf(a))]).unwrap()
}

/// Gradient of `Σ scale · p²` is `2 · scale · p`.
fn backward(params: &ParamSet, scale: f64) {
    for tensor in params.tensors() {
        (tensor.square().sum(Kind::Float) * scale).backward();
    }
}

fn adamw(params: &ParamSet) -> AdamW {
    let config = AdamWConfig {
        lr: 0.01,
        ..AdamWConfig::default()
    };
    AdamW::new(config, params).unwrap()
}

fn values(params: &ParamSet) -> Vec<f32> {
    let flat: Vec<Tensor> = params.tensors().iter().map(|t| t.detach().copy()).collect();
    Vec::try_from(Tensor::cat(&flat, 0)).unwrap()
}

#[test]
fn parameters_are_sorted_and_unique() {
    let set = params(&[1.0, 2.0, 3.0]);
    assert_eq!(set.names(), ["a", "b"]);
    assert_eq!((set.len(), set.numel()), (2, 3));
    assert_eq!(set.get("b").unwrap().size(), [2]);
    let zero = || {
        (
            "x".to_owned(),
            Tensor::zeros([1], (Kind::Float, Device::Cpu)),
        )
    };
    let twice = ParamSet::new(vec![zero(), zero()]).unwrap_err();
    assert_eq!(twice.to_string(), "parameter x appears twice");
    assert!(matches!(set.grads(), Err(Error::NoGradient { name }) if name == "a"));
}

#[test]
fn frozen_parameters_record_nothing() {
    let set = params(&[1.0, 2.0]);
    set.freeze();
    assert!(!set.get("a").unwrap().square().requires_grad());
    set.thaw();
    assert!(set.get("a").unwrap().square().requires_grad());
}

/// torch.nn.utils.clip_grad_norm_: the factor is max / (norm + 1e-6), at most 1.
#[test]
fn clipping_scales_by_the_global_norm() {
    let set = params(&[3.0, 4.0]);
    backward(&set, 0.5);
    let clipped = adamw(&set).step(&set, 1.0).unwrap();
    assert!((clipped.norm - 5.0).abs() < 1e-6);
    assert!((clipped.scale - 1.0 / (5.0 + 1e-6)).abs() < 1e-9);
    backward(&set, 0.5);
    assert_eq!(adamw(&set).step(&set, 1e3).unwrap().scale, 1.0);
}

#[test]
fn a_step_leaves_zero_gradients() {
    let set = params(&[3.0, 4.0]);
    backward(&set, 0.5);
    adamw(&set).step(&set, 1.0).unwrap();
    let norms = set.grads().unwrap();
    assert!(norms.iter().all(|g| g.abs().max().double_value(&[]) == 0.0));
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let set = params(&[3.0, 4.0]);
    let mut optimizer = adamw(&set);
    backward(&set, f64::INFINITY);
    let refused = optimizer.step(&set, 1.0);
    assert!(
        matches!(refused, Err(Error::NonFinite { .. })),
        "{refused:?}"
    );
    assert_eq!(values(&set), [3.0, 4.0]);
    assert_eq!(optimizer.n_steps(), 0);
    backward(&set, 1.0);
    optimizer.step(&set, 1.0).unwrap();
    assert!(set.all_finite());
}

#[test]
fn the_step_after_a_restart_is_the_step_without_one() {
    let set = params(&[1.0, -2.0, 3.0]);
    let mut optimizer = adamw(&set);
    for scale in [1.0, 0.3, 2.0] {
        backward(&set, scale);
        optimizer.step(&set, 1.0).unwrap();
    }
    let mut state = StateWriter::new();
    state.nested("policy", &set).unwrap();
    state.nested("optimizer", &optimizer).unwrap();
    let state = state.into_reader();
    let mut restarted = params(&[0.0, 0.0, 0.0]);
    state.nested("policy", &mut restarted).unwrap();
    let mut resumed = adamw(&restarted);
    state.nested("optimizer", &mut resumed).unwrap();
    let weights_only = params(&values(&set));
    let mut fresh = adamw(&weights_only);

    for (set, optimizer) in [
        (&set, &mut optimizer),
        (&restarted, &mut resumed),
        (&weights_only, &mut fresh),
    ] {
        backward(set, 0.7);
        optimizer.step(set, 1.0).unwrap();
    }
    assert_eq!(resumed.n_steps(), 4);
    assert_eq!(values(&set), values(&restarted));
    assert_ne!(values(&set), values(&weights_only));
}

#[test]
fn state_that_does_not_fit_is_named() {
    let mut state = StateWriter::new();
    params(&[1.0, 2.0]).save(&mut state).unwrap();
    let state = state.into_reader();
    let misshapen = params(&[1.0, 2.0, 3.0]).load(&state).unwrap_err();
    assert_eq!(
        misshapen.to_string(),
        "b in memory: is Float [1], expected Float [2]"
    );
    let one = |name: &str| {
        let tensor = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        ParamSet::new(vec![(name.to_owned(), tensor)]).unwrap()
    };
    let extra = one("a").load(&state).unwrap_err();
    assert_eq!(
        extra.to_string(),
        "b in memory: is not part of what is loaded"
    );
    let mut more = StateWriter::new();
    one("c").save(&mut more).unwrap();
    let missing = params(&[1.0, 2.0]).load(&more.into_reader()).unwrap_err();
    assert!(missing.to_string().starts_with("c in memory"), "{missing}");
    assert!(
        state
            .value::<u64>("epoch")
            .unwrap_err()
            .to_string()
            .contains("is missing")
    );
}

#[test]
fn bad_hyperparameters_are_refused_by_name() {
    let set = params(&[1.0, 2.0]);
    let base = AdamWConfig::default();
    let cases = [
        ("lr", AdamWConfig { lr: 0.0, ..base }),
        (
            "lr",
            AdamWConfig {
                lr: f64::NAN,
                ..base
            },
        ),
        ("beta1", AdamWConfig { beta1: 1.0, ..base }),
        (
            "weight_decay",
            AdamWConfig {
                weight_decay: -1.0,
                ..base
            },
        ),
    ];
    for (expected, config) in cases {
        match AdamW::new(config, &set) {
            Err(Error::Config { key, .. }) => assert_eq!(key, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn collectives_conform() {
    dev::collective_conforms(vec![Solo]);
    dev::collective_conforms(Threads::group(1));
    dev::collective_conforms(Threads::group(2));
    dev::collective_conforms(Threads::group(5));
}

#[test]
fn a_rank_that_leaves_is_noticed() {
    let mut group = Threads::group(2);
    let left = group.pop();
    let waiting = group.pop().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || waiting.all_gather(&Tensor::from_slice(&[1.0])));
        drop(left);
        let error = waits.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Collective { rank: 0 }), "{error}");
    });
}

/// Does what it is told, a call at a time.
struct Scripted(Vec<Result<Vec<f32>, RewardError>>);

impl Reward for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn score(&mut self, _: &Images, _: &[Prompt]) -> Result<Vec<f32>, RewardError> {
        assert!(!self.0.is_empty(), "the script is over");
        self.0.remove(0)
    }
}

fn ask(script: Vec<Result<Vec<f32>, RewardError>>, retry: Retry) -> Result<Vec<f32>, Error> {
    let worker = RewardWorker::new(vec![Box::new(Scripted(script))], retry).unwrap();
    assert_eq!(worker.name(), "scripted");
    let images = Images::from_bytes(2, 1, 1, vec![0; 6]).unwrap();
    let prompts = vec![Prompt::new(0, "a"), Prompt::new(1, "b")];
    worker.submit(Arc::new(images), prompts).wait()
}

#[test]
fn a_failed_reward_is_an_error_of_its_own_kind() {
    let once = Retry::never();
    assert_eq!(ask(vec![Ok(vec![1.0, 2.0])], once).unwrap(), [1.0, 2.0]);
    let busy = || Err(RewardError::transient("scripted", "busy"));
    assert!(matches!(ask(vec![busy()], once), Err(Error::Reward(e)) if e.is_transient()));
    let broken = Err(RewardError::permanent("scripted", "broken"));
    assert!(matches!(ask(vec![broken], once), Err(Error::Reward(e)) if !e.is_transient()));
    let nan = ask(vec![Ok(vec![1.0, f32::NAN])], once).unwrap_err();
    assert_eq!(
        nan.to_string(),
        "reward scripted gave NaN for sample 1 of its batch"
    );
    let short = ask(vec![Ok(vec![1.0])], once).unwrap_err();
    assert_eq!(
        short.to_string(),
        "reward scripted failed: 1 scores for 2 images"
    );
    assert!(matches!(ask(vec![], once), Err(Error::RewardGone { .. })));
}

#[test]
fn a_reward_that_fails_for_now_is_asked_again() {
    let busy = || Err(RewardError::transient("scripted", "busy"));
    let patient = Retry {
        deadline: Duration::from_secs(5),
        pause: Duration::from_millis(1),
    };
    let scores = ask(vec![busy(), busy(), Ok(vec![1.0, 2.0])], patient);
    assert_eq!(scores.unwrap(), [1.0, 2.0]);
    let broken = Err(RewardError::permanent("scripted", "broken"));
    let refused = ask(vec![busy(), broken, Ok(vec![1.0, 2.0])], patient);
    assert!(matches!(refused, Err(Error::Reward(e)) if !e.is_transient()));
}

#[test]
fn rewards_are_computed_while_the_caller_goes_on() {
    struct Slow;
    impl Reward for Slow {
        fn name(&self) -> &str {
            "slow"
        }
        fn score(&mut self, images: &Images, _: &[Prompt]) -> Result<Vec<f32>, RewardError> {
            std::thread::sleep(Duration::from_millis(200));
            Ok(vec![0.0; images.len()])
        }
    }
    let worker = RewardWorker::new(vec![Box::new(Slow), Box::new(Slow)], Retry::never()).unwrap();
    let images = Arc::new(Images::from_bytes(1, 1, 1, vec![0; 3]).unwrap());
    let begin = Instant::now();
    let submit = || worker.submit(Arc::clone(&images), vec![Prompt::new(0, "a")]);
    let tickets = [submit(), submit()];
    assert!(
        begin.elapsed() < Duration::from_millis(150),
        "submitting waits"
    );
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert!(
        begin.elapsed() < Duration::from_millis(390),
        "threads take turns"
    );
}

#[test]
fn prompts_are_drawn_as_often_as_their_weights_say() {
    let mut world = World::new().unwrap();
    let weights = [1.0, 3.0, 0.5];
    world.prompts = weights
        .iter()
        .zip(0..)
        .map(|(&weight, id)| Prompt::new(id, format!("{id}")).with_weight(weight))
        .collect();
    let ctx = world.context(Vec::new());
    let n = 9000_u64;
    let mut drawn = [0.0; 3];
    for id in 0..n {
        drawn[ctx.prompt_of(0, 1, id).id as usize] += 1.0;
    }
    let total: f64 = weights.iter().sum();
    for (drawn, weight) in drawn.iter().zip(weights) {
        let p = weight / total;
        let se = (p * (1.0 - p) / n as f64).sqrt();
        let share = drawn / n as f64;
        assert!((share - p).abs() < 4.0 * se, "{share}, expected {p}");
    }
    for id in 0..40 {
        let first = ctx.prompt_of(2, 4, id - id % 4).id;
        assert_eq!(ctx.prompt_of(2, 4, id).id, first, "neighbours share one");
    }
}

#[test]
fn the_toy_policy_conforms_as_a_denoiser() {
    let policy = ddpo_testkit::TinyPolicy::new(1).unwrap();
    let x_t = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 2, 2]) / 10.0;
    let prompts = ["red", "blue"].map(|text| Prompt::new(u64::from(text == "blue"), text));
    let cond = ddpo_train::Conditioner::embed(&ddpo_testkit::Pixels, &prompts).unwrap();
    let input = ddpo_sched::DenoiseInput {
        x_t: &x_t,
        t: &Tensor::from_slice(&[981_f32, 1.0]),
        cond: &cond,
    };
    ddpo_sched::dev::denoiser_conforms(&policy, input);
}
