//! The estimators against what is known in closed form.
use ddpo_rl::{DdpoConfig, Estimator, Trajectories, replay_update};
use ddpo_sched::{DenoiseInput, Denoiser, Gaussian, LogProb, Sampler, Seeds, Stream};
use ddpo_train::{
    AdamW, AdamWConfig, Error, GradNorm, Optimizer, ParamSet, Persist, Policy, Result, StateReader,
    StateWriter,
};
use tch::{Kind, Tensor};

const STD: f64 = 0.8;
const N: usize = 40_000;

/// One step, `N(ε, 0.8² I)`, whatever the latent.
struct OneStep;

impl Sampler for OneStep {
    fn n_steps(&self) -> usize {
        1
    }

    fn timestep(&self, _step: usize) -> f64 {
        1.0
    }

    fn is_stochastic(&self, _step: usize) -> bool {
        true
    }

    fn transition(
        &self,
        at: &[usize],
        _x_t: &Tensor,
        eps: &Tensor,
    ) -> ddpo_sched::Result<Gaussian> {
        Ok(Gaussian {
            mean: eps.shallow_clone(),
            std: vec![STD; at.len()],
        })
    }
}

/// A policy that is its own mean.
struct Mean(ParamSet);

impl Mean {
    fn new(mean: [f32; 2]) -> Self {
        let leaf = Tensor::from_slice(&mean).set_requires_grad(true);
        Self(ParamSet::new(vec![("mean".to_owned(), leaf)]).unwrap())
    }

    fn eps(&self, input: DenoiseInput<'_>) -> Tensor {
        self.0.tensors()[0].view([1, 2, 1, 1]).expand_as(input.x_t)
    }
}

impl Denoiser for Mean {
    fn predict(&self, input: DenoiseInput<'_>) -> ddpo_sched::Result<Tensor> {
        Ok(self.eps(input))
    }
}

impl Policy for Mean {
    fn params(&self) -> &ParamSet {
        &self.0
    }

    fn accumulate(
        &self,
        input: DenoiseInput<'_>,
        loss: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        loss(&self.eps(input))?.backward();
        Ok(())
    }
}

impl Persist for Mean {
    fn save(&self, out: &mut StateWriter) -> Result<()> {
        self.0.save(out)
    }

    fn load(&mut self, from: &StateReader) -> Result<()> {
        self.0.load(from)
    }
}

/// Leaves everything as it is.
struct Keep;

impl Optimizer for Keep {
    fn step(&mut self, _: &ParamSet, _: f64) -> Result<GradNorm> {
        Ok(GradNorm {
            norm: 0.0,
            scale: 1.0,
        })
    }

    fn reset(&mut self) {}
}

impl Persist for Keep {
    fn save(&self, _: &mut StateWriter) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _: &StateReader) -> Result<()> {
        Ok(())
    }
}

/// Samples of `N(mean, 0.8² I)` and their rewards, `−|x − target|²`.
fn rollout(mean: [f32; 2], target: [f64; 2]) -> (Trajectories, Vec<f32>) {
    let mut noise = vec![0.0; 2 * N];
    let key = Seeds::new(3).derive(Stream::Noise, 0, 0);
    key.draws().fill_normal(&mut noise);
    let centre = Tensor::from_slice(&mean).view([1, 2, 1, 1]);
    let step = Gaussian {
        mean: centre.expand([N as i64, 2, 1, 1], false),
        std: vec![STD; N],
    };
    let x = step
        .at(&Tensor::from_slice(&noise).view([-1, 2, 1, 1]))
        .unwrap();
    let log_probs = step.log_prob(&x, LogProb::Sum).unwrap();
    let miss = x.view([-1, 2]).to_kind(Kind::Double) - Tensor::from_slice(&target);
    let rewards = -miss.square().sum_dim_intlist(1, false, Kind::Double);
    let rollout = Trajectories::new(
        (0..N as u64).collect(),
        Tensor::stack(&[&x.zeros_like(), &x], 0),
        log_probs.unsqueeze(0),
        Tensor::zeros([N as i64, 1, 1], (Kind::Float, tch::Device::Cpu)),
    );
    let rewards = Vec::try_from(rewards.to_kind(Kind::Float)).unwrap();
    (rollout.unwrap(), rewards)
}

fn config(estimator: Estimator) -> DdpoConfig {
    DdpoConfig {
        estimator,
        advantage_clip: 1e6,
        log_prob: LogProb::Sum,
        micro_batch: 5000,
        ..DdpoConfig::score_function()
    }
}

fn gradient(
    policy: &Mean,
    rollout: &Trajectories,
    rewards: &[f32],
    estimator: Estimator,
) -> [f64; 2] {
    let replayed = replay_update(
        policy,
        None,
        &mut Keep,
        &OneStep,
        rollout,
        rewards,
        &config(estimator),
    )
    .unwrap();
    let (name, grad) = &replayed.grads[0];
    assert_eq!(name, "mean");
    [grad.double_value(&[0]), grad.double_value(&[1])]
}

/// Standard error of the mean of `−r (x − θ) / σ² · weight` over the samples.
fn standard_error(rollout: &Trajectories, rewards: &[f32], theta: [f64; 2], axis: usize) -> f64 {
    let x = rollout.latents.get(1).view([-1, 2]).select(1, axis as i64);
    let score = (x.to_kind(Kind::Double) - theta[axis]) / (STD * STD);
    let terms = score * Tensor::from_slice(rewards).to_kind(Kind::Double);
    terms.std(true).double_value(&[]) / (N as f64).sqrt()
}

const THETA: [f32; 2] = [0.5, -1.0];
const TARGET: [f64; 2] = [1.0, 0.25];
const NO_CLIP: Estimator = Estimator::ImportanceSampling { clip_range: 1e9 };

/// E r = −|θ − target|² − 2σ², so the loss has gradient 2 (θ − target).
fn analytic(theta: [f32; 2]) -> [f64; 2] {
    [0, 1].map(|axis| 2.0 * (f64::from(theta[axis]) - TARGET[axis]))
}

#[test]
fn both_estimators_give_the_analytic_gradient() {
    let (rollout, rewards) = rollout(THETA, TARGET);
    let policy = Mean::new(THETA);
    let by_score = gradient(&policy, &rollout, &rewards, Estimator::ScoreFunction);
    let by_ratio = gradient(&policy, &rollout, &rewards, NO_CLIP);
    for axis in 0..2 {
        let se = standard_error(&rollout, &rewards, THETA.map(f64::from), axis);
        let error = by_score[axis] - analytic(THETA)[axis];
        assert!(se < 0.04, "standard error {se}");
        assert!(
            error.abs() < 4.0 * se,
            "axis {axis}: error {error}, standard error {se}"
        );
        // At ratio 1 the two are the same sum.
        let apart = (by_score[axis] - by_ratio[axis]).abs();
        assert!(apart < 1e-5, "axis {axis}: estimators differ by {apart}");
    }
}

#[test]
fn importance_sampling_corrects_for_an_old_policy() {
    let (rollout, rewards) = rollout(THETA, TARGET);
    let moved = [0.65, -0.9];
    let policy = Mean::new(moved);
    let by_ratio = gradient(&policy, &rollout, &rewards, NO_CLIP);
    let by_score = gradient(&policy, &rollout, &rewards, Estimator::ScoreFunction);
    let (mut ratio_misses, mut score_misses) = (0.0_f64, 0.0_f64);
    for axis in 0..2 {
        // The weights vary little this close, so the on-policy standard error is nearly theirs.
        let se = standard_error(&rollout, &rewards, moved.map(f64::from), axis);
        ratio_misses = ratio_misses.max((by_ratio[axis] - analytic(moved)[axis]).abs() / se);
        score_misses = score_misses.max((by_score[axis] - analytic(moved)[axis]).abs() / se);
    }
    assert!(ratio_misses < 5.0, "{ratio_misses} standard errors");
    assert!(
        score_misses > 10.0,
        "the score function alone is biased off-policy: {score_misses}"
    );
}

#[test]
fn descending_the_gradient_reaches_the_target() {
    let policy = Mean::new([0.0, 0.0]);
    let config = AdamWConfig {
        lr: 0.05,
        ..AdamWConfig::default()
    };
    let mut adamw = AdamW::new(config, policy.params()).unwrap();
    for _ in 0..60 {
        let mean = &policy.params().tensors()[0];
        let mean = [
            mean.double_value(&[0]) as f32,
            mean.double_value(&[1]) as f32,
        ];
        let (rollout, rewards) = rollout(mean, TARGET);
        let estimator = self::config(Estimator::ScoreFunction);
        let sampler = OneStep;
        replay_update(
            &policy, None, &mut adamw, &sampler, &rollout, &rewards, &estimator,
        )
        .unwrap();
    }
    for (axis, target) in TARGET.into_iter().enumerate() {
        let mean = policy.params().tensors()[0].double_value(&[axis as i64]);
        assert!(
            (mean - target).abs() < 0.1,
            "axis {axis}: {mean}, target {target}"
        );
    }
}

/// The loss and its gradient in log p, by hand.
#[test]
fn the_surrogate_is_the_closed_form_on_every_side_of_the_clip() {
    let estimator = Estimator::ImportanceSampling { clip_range: 0.1 };
    // (log ratio, advantage, loss / −A, gradient / −A)
    let (up, down) = (0.5_f64, -0.5_f64);
    let cases = [
        (0.0, 2.0, 1.0, 1.0),
        (up, 2.0, 1.1, 0.0),
        (down, 2.0, down.exp(), down.exp()),
        (up, -2.0, up.exp(), up.exp()),
        (down, -2.0, 0.9, 0.0),
        (0.05, 2.0, 0.05_f64.exp(), 0.05_f64.exp()),
    ];
    for (log_ratio, advantage, loss, gradient) in cases {
        let new = Tensor::from_slice(&[(log_ratio - 3.0) as f32]).set_requires_grad(true);
        let old = Tensor::from_slice(&[-3.0_f32]);
        let made = estimator.surrogate(&new, &old, &Tensor::from_slice(&[advantage as f32]));
        made.loss.sum(Kind::Float).backward();
        let case = format!("log ratio {log_ratio}, advantage {advantage}");
        let check = |what: &str, actual: f64, expected: f64| {
            assert!(
                (actual - expected).abs() < 1e-5,
                "{case}: {what} {actual}, expected {expected}"
            );
        };
        check("loss", made.loss.double_value(&[0]), -advantage * loss);
        check(
            "gradient",
            new.grad().double_value(&[0]),
            -advantage * gradient,
        );
        check("ratio", made.ratio.double_value(&[0]), log_ratio.exp());
        assert_eq!(estimator.clips(log_ratio.exp()), log_ratio.abs() > 0.1);
    }
}

#[test]
fn a_replay_that_does_not_fit_is_refused() {
    let (rollout, rewards) = rollout(THETA, TARGET);
    let policy = Mean::new(THETA);
    let config = config(Estimator::ScoreFunction);
    let sampler = OneStep;
    let short = replay_update(
        &policy,
        None,
        &mut Keep,
        &sampler,
        &rollout,
        &rewards[1..],
        &config,
    );
    assert!(matches!(
        short,
        Err(Error::Config {
            key: "advantages",
            ..
        })
    ));
    let two = ddpo_sched::Ddim::new(&ddpo_sched::ScheduleConfig::sd_v1_4(), 2, 1.0).unwrap();
    let steps = replay_update(&policy, None, &mut Keep, &two, &rollout, &rewards, &config);
    assert!(matches!(steps, Err(Error::Config { key: "n_steps", .. })));
    let mut infinite = rewards;
    infinite[7] = f32::NAN;
    let refused = replay_update(
        &policy, None, &mut Keep, &sampler, &rollout, &infinite, &config,
    );
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("step 0 of sample 7"), "{message}");
    let misfit = Trajectories::new(
        vec![0],
        rollout.latents.shallow_clone(),
        rollout.log_probs.shallow_clone(),
        rollout.cond.clone(),
    );
    assert!(
        misfit
            .unwrap_err()
            .to_string()
            .starts_with("latents: expected shape [2, 1, 2")
    );
}

/// The divergence from a policy with mean μ' is |θ − μ'|² / (2 σ²), so the loss gains β (θ − μ') / σ².
#[test]
fn staying_near_the_pretrained_policy_pulls_towards_it() {
    let (rollout, rewards) = rollout(THETA, TARGET);
    let (policy, pretrained, beta) = (Mean::new(THETA), Mean::new([0.1, 0.4]), 3.0);
    let plain = config(Estimator::ScoreFunction);
    let near = DdpoConfig {
        kl_weight: beta,
        ..plain
    };
    let sampler = OneStep;
    let replay = |config: &DdpoConfig, reference| {
        let optimizer = &mut Keep;
        replay_update(
            &policy, reference, optimizer, &sampler, &rollout, &rewards, config,
        )
    };
    let without = replay(&plain, None).unwrap();
    let with = replay(&near, Some(&pretrained as &dyn Denoiser)).unwrap();
    let kl = with.report.get("policy/kl_pretrained").unwrap();
    let distance = [0.4_f64, -1.4];
    let expected = (0.4_f64.powi(2) + 1.4_f64.powi(2)) / (2.0 * STD * STD);
    assert!((kl - expected).abs() < 1e-5, "{kl}, expected {expected}");
    assert_eq!(without.report.get("policy/kl_pretrained"), None);
    for (axis, distance) in (0..).zip(distance) {
        let [with, without] = [&with, &without].map(|r| r.grads[0].1.double_value(&[axis]));
        let expected = beta * distance / (STD * STD);
        let pull = with - without;
        assert!(
            (pull - expected).abs() < 1e-4,
            "axis {axis}: {pull}, expected {expected}"
        );
    }
    let refused = replay(&near, None).unwrap_err().to_string();
    assert!(
        refused.starts_with("kl_weight = 3: needs a reference policy"),
        "{refused}"
    );
}
