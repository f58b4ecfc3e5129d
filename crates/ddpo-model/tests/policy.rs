//! Ways to compute that must not change what is computed. Model: tests/golden/sd_tiny.py.

use std::path::Path;

use ddpo_model::{Files, LoraConfig, StableDiffusion, UnetPolicy};
use ddpo_sched::{Conditioning, DenoiseInput, Denoiser, Guided};
use ddpo_train::{Persist, Policy, StateWriter};
use tch::{Device, Kind, Tensor};

/// Weights from the golden model, factors at random, none zero.
fn policy(train: &str, kind: Kind) -> UnetPolicy {
    // Tests run side by side: threads of their own would only wait for each other.
    tch::set_num_threads(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sd_tiny/model");
    let model = StableDiffusion::load(&Files::Folder(folder), Device::Cpu, kind).unwrap();
    if train == "full" {
        return UnetPolicy::full(model.unet).unwrap();
    }
    let targets = match train {
        // Only on the way up: most of the network then needs no gradient at all.
        "lora of keys" => {
            vec!["up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k".to_owned()]
        }
        _ => LoraConfig::default().targets,
    };
    let config = LoraConfig {
        targets,
        ..LoraConfig::default()
    };
    let policy = UnetPolicy::lora(model.unet, &config, 3).unwrap();
    tch::no_grad(|| {
        for (i, factor) in policy.params().tensors().iter().enumerate() {
            let wave = normal(&factor.size(), 100 + i as i64) * 0.3;
            factor.shallow_clone().copy_(&wave);
        }
    });
    policy
}

/// Numbers that look random and are the same everywhere.
fn normal(shape: &[i64], seed: i64) -> Tensor {
    let n = shape.iter().product::<i64>();
    let x = Tensor::arange(n, (Kind::Double, Device::Cpu)) + seed as f64 * 0.37;
    let x = (&x * 12.9898).sin() * 43758.5453;
    ((&x - x.floor()) * 3.4 - 1.7)
        .to_kind(Kind::Float)
        .view(shape)
}

struct Input {
    x_t: Tensor,
    t: Tensor,
    cond: Conditioning,
}

impl Input {
    fn new() -> Self {
        Self {
            x_t: normal(&[3, 4, 9, 6], 1), // 9 is halved to 5: skips do not double
            t: Tensor::from_slice(&[1_i64, 501, 981]),
            cond: normal(&[3, 7, 24], 2).into(),
        }
    }

    fn get(&self) -> DenoiseInput<'_> {
        DenoiseInput {
            x_t: &self.x_t,
            t: &self.t,
            cond: &self.cond,
        }
    }
}

/// Gradients of a loss, and the prediction that it saw.
fn gradients(policy: &dyn Policy, input: &Input) -> (Vec<Tensor>, Tensor) {
    policy.params().zero_grad();
    let mut seen = None;
    // Twice, so that adding to what is there is compared too.
    for turn in 0..2 {
        policy
            .accumulate(input.get(), &mut |eps| {
                seen = Some(eps.detach().copy());
                Ok((eps * normal(&eps.size(), 5 + turn)).sum(Kind::Float) / 50.0)
            })
            .unwrap();
    }
    let grads = policy.params().grads().unwrap();
    (grads.iter().map(Tensor::copy).collect(), seen.unwrap())
}

#[track_caller]
fn equal(name: &str, a: &Tensor, b: &Tensor) {
    let worst = (a - b).abs().max().double_value(&[]);
    assert!(a.equal(b), "{name}: largest difference {worst:.2e}");
}

#[test]
fn checkpointing_gives_the_same_gradients_bit_for_bit() {
    let input = Input::new();
    for train in ["full", "lora", "lora of keys"] {
        let plain = policy(train, Kind::Float);
        let (expected, eps) = gradients(&plain, &input);
        let names = plain.params().names().to_vec();
        let nonzero = expected
            .iter()
            .filter(|g| g.abs().max().double_value(&[]) > 0.0);
        assert_eq!(nonzero.count(), names.len(), "{train}");
        let saving = policy(train, Kind::Float).with_checkpointing(true);
        let (actual, saving_eps) = gradients(&saving, &input);
        equal("prediction", &saving_eps, &eps);
        for ((name, actual), expected) in names.iter().zip(&actual).zip(&expected) {
            equal(&format!("{train}: {name}"), actual, expected);
        }
    }
}

#[test]
fn checkpointing_under_guidance_gives_the_same_gradients() {
    let input = Input::new();
    let guided = |on| {
        Guided::new(
            policy("lora", Kind::Float).with_checkpointing(on),
            normal(&[1, 7, 24], 9),
            5.0,
        )
    };
    let (expected, _) = gradients(&guided(false), &input);
    let (actual, _) = gradients(&guided(true), &input);
    for (actual, expected) in actual.iter().zip(&expected) {
        equal("guided", actual, expected);
    }
}

#[test]
fn checkpointing_in_half_precision_gives_the_same_gradients() {
    let input = Input::new();
    let made: [fn(bool) -> UnetPolicy; 3] = [
        |on| policy("lora", Kind::BFloat16).with_checkpointing(on),
        |on| {
            policy("full", Kind::Float)
                .with_autocast(Kind::BFloat16)
                .unwrap()
                .with_checkpointing(on)
        },
        |on| policy("lora", Kind::Half).with_checkpointing(on),
    ];
    for (i, made) in made.iter().enumerate() {
        let (expected, _) = gradients(&made(false), &input);
        let (actual, _) = gradients(&made(true), &input);
        for (actual, expected) in actual.iter().zip(&expected) {
            equal(&format!("case {i}"), actual, expected);
        }
    }
}

#[test]
fn what_is_computed_once_a_rollout_gives_the_same_numbers() {
    let input = Input::new();
    // Low-rank branches are added to f32 weights, which rounds; in half precision they stay beside them.
    for (train, kind, tolerance) in [
        ("full", Kind::Float, 0.0),
        ("lora", Kind::BFloat16, 0.0),
        ("lora", Kind::Float, 3e-5),
    ] {
        let plain = policy(train, kind);
        let guided = Guided::new(plain, normal(&[1, 7, 24], 9), 5.0);
        let predict = guided.conditioned(&input.cond).unwrap();
        for t in [981, 21] {
            let (x_t, t) = (normal(&[3, 4, 9, 6], t), Tensor::from_slice(&[t; 3]));
            let cond = &input.cond;
            let (x_t, t) = (&x_t, &t);
            let expected = tch::no_grad(|| guided.predict(DenoiseInput { x_t, t, cond }).unwrap());
            let off = distance(&[predict(x_t, t).unwrap()], &[expected]);
            println!("{train} in {kind:?}: {off:.1e}");
            assert!(off <= tolerance, "{train} in {kind:?}: {off:.1e}");
        }
        let short = normal(&[2, 7, 24], 3).into();
        assert!(predict(&input.x_t, &input.t).is_ok());
        assert!(guided.conditioned(&short).unwrap()(&input.x_t, &input.t).is_err());
    }
}

/// Largest difference of two lists, relative to the largest value.
fn distance(a: &[Tensor], b: &[Tensor]) -> f64 {
    let flat = |list: &[Tensor]| {
        Tensor::cat(
            &list.iter().map(|t| t.flatten(0, -1)).collect::<Vec<_>>(),
            0,
        )
    };
    let (a, b) = (flat(a), flat(b));
    ((a - &b).abs().max() / b.abs().max()).double_value(&[])
}

#[test]
fn half_precision_predicts_and_learns_what_f32_does_within_its_digits() {
    let input = Input::new();
    let (grads, eps) = gradients(&policy("full", Kind::Float), &input);
    let (lora_grads, lora_eps) = gradients(&policy("lora", Kind::Float), &input);
    for (kind, digits) in [
        (Kind::BFloat16, 2.0_f64.powi(-8)),
        (Kind::Half, 2.0_f64.powi(-11)),
    ] {
        let cast = policy("full", Kind::Float).with_autocast(kind).unwrap();
        assert_eq!(cast.loss_scale().is_some(), kind == Kind::Half);
        let (actual, predicted) = gradients(&cast, &input);
        assert!(actual.iter().all(|grad| grad.kind() == Kind::Float));
        assert_eq!(predicted.kind(), Kind::Float);
        let far = distance(&actual, &grads);
        let off = distance(&[predicted], std::slice::from_ref(&eps));
        println!("{kind:?} autocast: prediction {off:.1e}, gradients {far:.1e}");
        assert!(off > 0.0, "nothing was computed in {kind:?}");
        assert!(off < 8.0 * digits && far < 20.0 * digits);
        let half = policy("lora", kind);
        let (actual, predicted) = gradients(&half, &input);
        assert!(actual.iter().all(|grad| grad.kind() == Kind::Float));
        let far = distance(&actual, &lora_grads);
        let off = distance(&[predicted], std::slice::from_ref(&lora_eps));
        println!("{kind:?} LoRA: prediction {off:.1e}, gradients {far:.1e}");
        assert!(off > 0.0 && off < 8.0 * digits && far < 20.0 * digits);
    }
}

#[test]
fn autocast_casts_weights_once_a_rollout_and_anew_for_training() {
    let input = Input::new();
    let policy = policy("full", Kind::Float);
    let policy = policy.with_autocast(Kind::BFloat16).unwrap();
    let (alone, _) = gradients(&policy, &input);
    let predicted = || tch::no_grad(|| policy.predict(input.get()).unwrap());
    let expected = predicted();
    let rollout = policy.conditioned(&input.cond).unwrap();
    let rolled = || rollout(&input.x_t, &input.t).unwrap();
    equal("prediction", &rolled(), &expected);
    let (beside, _) = gradients(&policy, &input);
    let pairs = policy
        .params()
        .names()
        .iter()
        .zip(beside.iter().zip(&alone));
    for (name, (beside, alone)) in pairs {
        equal(
            &format!("gradient of {name} beside a rollout"),
            beside,
            alone,
        );
    }
    // A weight that changes while its cast is held is not looked at again; after the rollout it is.
    equal("cast once more", &rolled(), &expected);
    let weight = policy.params().get("conv_in.weight").unwrap();
    tch::no_grad(|| _ = weight.shallow_clone().zero_());
    equal("cast before", &rolled(), &expected);
    drop(rollout);
    assert!(distance(&[predicted()], &[expected]) > 1e-2);
}

#[test]
fn f32_master_weights_are_what_autocast_is_for() {
    let half = policy("lora", Kind::BFloat16);
    let error = half.with_autocast(Kind::Half).err().unwrap().to_string();
    assert!(error.contains("autocast is for f32 weights"), "{error}");
    let full = policy("full", Kind::Float);
    assert!(full.with_autocast(Kind::Int64).is_err());
}

#[test]
fn an_overflow_halves_the_scale_and_survives_a_restart() {
    let input = Input::new();
    let policy_in_f16 = policy("lora", Kind::Half);
    let accumulate = |factor: f64| {
        policy_in_f16.params().zero_grad();
        policy_in_f16.accumulate(input.get(), &mut |eps| Ok(eps.sum(Kind::Float) * factor))
    };
    accumulate(1e-3).unwrap();
    assert_eq!(policy_in_f16.loss_scale().unwrap().get(), 65536.0);
    // A gradient of 4 at every place of ε, times 65,536, is no f16.
    let error = accumulate(4.0).unwrap_err();
    assert!(
        matches!(error, ddpo_train::Error::Overflow { scale, next } if scale == 65536.0 && next == 32768.0)
    );
    let mut out = StateWriter::new();
    policy_in_f16.save(&mut out).unwrap();
    let mut again = policy("lora", Kind::Half);
    again.load(&out.into_reader()).unwrap();
    let scale = again.loss_scale().unwrap();
    assert_eq!((scale.get(), scale.overflows()), (32768.0, 1));
    // It ends somewhere: not by halving for ever.
    let mut last = Ok(());
    for _ in 0..40 {
        last = accumulate(1e9);
    }
    assert!(matches!(last, Err(ddpo_train::Error::NonFinite { .. })));
    assert_eq!(policy_in_f16.loss_scale().unwrap().get(), 1.0);
}

#[test]
fn the_policies_conform_as_denoisers() {
    let input = Input::new();
    for train in ["full", "lora"] {
        let plain = policy(train, Kind::Float);
        ddpo_sched::dev::denoiser_conforms(&plain, input.get());
        let guided = Guided::new(plain, normal(&[1, 7, 24], 9), 5.0);
        ddpo_sched::dev::denoiser_conforms(&guided, input.get());
    }
}

#[test]
fn embeddings_that_this_unet_has_no_place_for_are_refused() {
    let mut input = Input::new();
    input.cond = input.cond.with_pooled(normal(&[3, 24], 4));
    let refused = policy("full", Kind::Float).predict(input.get());
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("no pooled or added embeddings"),
        "{message}"
    );
}
