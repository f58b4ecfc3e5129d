//! Low-rank adaptation: by itself, and against peft and diffusers. Files: tests/golden/sd_tiny.py.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ddpo_model::lora::merge;
use ddpo_model::{Error, LORA_FILE, Lora, LoraConfig, Unet, UnetConfig};
use ddpo_torch::Store;
use ddpo_torch::weights::{read_all, save};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sd_tiny")
}

/// The golden UNet with its tensors.
fn unet(kind: Kind) -> (Unet, Tensors) {
    // Tests run side by side: threads of their own would only wait for each other.
    tch::set_num_threads(1);
    let folder = golden().join("model/unet");
    let json = std::fs::read(folder.join("config.json")).unwrap();
    let config: UnetConfig = serde_json::from_slice(&json).unwrap();
    let file = folder.join("diffusion_pytorch_model.safetensors");
    let store = Store::open(&file, Device::Cpu, kind).unwrap();
    let unet = Unet::new(&store.root(), &config).unwrap();
    (unet, store.finish().unwrap())
}

fn forwards() -> Tensors {
    read_all(&golden().join("forward.safetensors")).unwrap()
}

fn forward(unet: &Unet, golden: &Tensors) -> Tensor {
    unet.forward(
        &golden["unet.even.x_t"],
        &golden["unet.t"],
        &golden["unet.cond"],
    )
}

#[track_caller]
fn check(name: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size(), "{name}");
    let difference = (actual.detach() - expected.detach()).abs();
    let relative = (difference.max() / expected.abs().max()).double_value(&[]);
    println!("{name}: relative difference {relative:.2e}");
    assert!(
        relative <= tolerance,
        "{name}: relative difference {relative:.2e}, allowed {tolerance:.0e}"
    );
}

/// Factors that do something.
fn stir(lora: &Lora) {
    tch::no_grad(|| {
        for (i, factor) in lora.params().tensors().iter().enumerate() {
            let n = factor.numel() as i64;
            let wave = (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 1.7 + i as f64).sin() * 0.3;
            factor.shallow_clone().copy_(&wave.view_as(factor));
        }
    });
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    let (golden, (mut unet, _)) = (forwards(), unet(Kind::Float));
    let before = forward(&unet, &golden);
    let lora = Lora::attach(&mut unet, &LoraConfig::default(), 1).unwrap();
    assert_eq!(forward(&unet, &golden).detach(), before);
    // Six transformers, two attentions, four projections, two factors.
    assert_eq!(lora.params().len(), 6 * 2 * 4 * 2);
    for (name, factor) in lora.params().iter() {
        assert_eq!(factor.kind(), Kind::Float);
        let zero = factor.abs().max().double_value(&[]) == 0.0;
        assert_eq!(zero, name.ends_with("lora_B.weight"), "{name}");
    }
}

#[test]
fn down_factors_have_the_spread_of_the_reference() {
    let (mut unet, _) = unet(Kind::Float);
    let lora = Lora::attach(&mut unet, &LoraConfig::default(), 1).unwrap();
    let down = lora.params().iter().filter(|(n, _)| n.contains("lora_A"));
    let all = Tensor::cat(&down.map(|(_, t)| t.flatten(0, -1)).collect::<Vec<_>>(), 0);
    // Standard deviation 1 / 4, 2,496 draws: three standard errors are 0.0106, of the mean 0.015.
    assert!((all.std(true).double_value(&[]) - 0.25).abs() < 0.011);
    assert!(all.mean(Kind::Float).double_value(&[]).abs() < 0.015);
}

#[test]
fn gradients_flow_into_the_factors_alone() {
    let (golden, (mut unet, weights)) = (forwards(), unet(Kind::Float));
    let lora = Lora::attach(&mut unet, &LoraConfig::default(), 1).unwrap();
    let loss = |unet: &Unet| forward(unet, &golden).square().sum(Kind::Float);
    loss(&unet).backward();
    let is_zero = |t: &Tensor| t.abs().max().double_value(&[]) == 0.0;
    for (name, grad) in lora
        .params()
        .names()
        .iter()
        .zip(lora.params().grads().unwrap())
    {
        // While up is zero, nothing reaches down.
        assert_eq!(is_zero(&grad), name.ends_with("lora_A.weight"), "{name}");
    }
    stir(&lora);
    lora.params().zero_grad();
    loss(&unet).backward();
    assert!(
        lora.params()
            .grads()
            .unwrap()
            .iter()
            .all(|grad| !is_zero(grad))
    );
    assert!(weights.values().all(|weight| !weight.grad().defined()));
}

#[test]
fn a_merged_adapter_gives_the_same_as_one_beside() {
    let (golden, (mut unet, weights)) = (forwards(), unet(Kind::Float));
    let config = LoraConfig {
        rank: 3,
        alpha: 2.0,
        ..LoraConfig::default()
    };
    let plain = forward(&unet, &golden);
    let before = weights["conv_in.weight"].copy();
    let lora = Lora::attach(&mut unet, &config, 1).unwrap();
    stir(&lora);
    let beside = forward(&unet, &golden).detach();
    assert!((&beside - plain).abs().max().double_value(&[]) > 0.01);
    merge(&mut unet);
    check("merged", &forward(&unet, &golden), &beside, 1e-6);
    assert_eq!(weights["conv_in.weight"], before);
}

#[test]
fn an_adapter_replaces_all_of_the_one_before() {
    let (golden, (mut unet, _)) = (forwards(), unet(Kind::Float));
    let plain = forward(&unet, &golden);
    let config = |targets: &[&str]| LoraConfig {
        targets: targets.iter().map(|&t| t.to_owned()).collect(),
        ..LoraConfig::default()
    };
    let first = Lora::attach(&mut unet, &config(&["to_q", "to_v"]), 1).unwrap();
    stir(&first);
    let changed = forward(&unet, &golden).detach();
    assert_ne!(changed, plain);
    // One that is refused replaces nothing.
    Lora::attach(&mut unet, &config(&["proj_in"]), 1).unwrap_err();
    assert_eq!(forward(&unet, &golden).detach(), changed);
    // Fresh factors of other projections do nothing yet, and those before do nothing any more.
    let second = Lora::attach(&mut unet, &config(&["to_k"]), 1).unwrap();
    assert_eq!(forward(&unet, &golden).detach(), plain);
    stir(&second);
    forward(&unet, &golden).sum(Kind::Float).backward();
    let grad = |lora: &Lora| lora.params().tensors().iter().any(|t| t.grad().defined());
    assert!(grad(&second) && !grad(&first));
}

#[test]
fn targets_choose_projections_by_the_end_of_their_names() {
    let (mut unet, _) = unet(Kind::Float);
    let mut attach = |targets: &[&str]| {
        let targets = targets.iter().map(|&t| t.to_owned()).collect();
        let config = LoraConfig {
            targets,
            ..LoraConfig::default()
        };
        Lora::attach(&mut unet, &config, 1)
    };
    assert_eq!(attach(&["attn2.to_k"]).unwrap().params().len(), 6 * 2);
    assert_eq!(attach(&["to_q", "to_v"]).unwrap().params().len(), 6 * 8);
    let error = attach(&["o_q", "proj_in"]).unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    assert!(error.to_string().contains("o_q or proj_in"), "{error}");
}

#[test]
fn an_impossible_shape_is_refused_by_its_key() {
    let (mut unet, _) = unet(Kind::Float);
    for (rank, alpha, needle) in [
        (0, 4.0, "policy.lora.rank: is 0"),
        (4, -1.0, "policy.lora.alpha: is -1"),
        (4, f64::NAN, "policy.lora.alpha: is NaN"),
    ] {
        let config = LoraConfig {
            rank,
            alpha,
            ..LoraConfig::default()
        };
        let error = Lora::attach(&mut unet, &config, 1).unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
    }
}

#[test]
fn adapters_of_peft_and_of_old_diffusers_act_as_they_do_there() {
    let golden_ = forwards();
    for (folder, alpha) in [("lora", 3.0), ("lora_old", 2.0)] {
        let (mut unet, _) = unet(Kind::Float);
        let lora = Lora::open(&mut unet, &golden().join(folder).join(LORA_FILE)).unwrap();
        assert_eq!((lora.config().rank, lora.config().alpha), (2, alpha));
        check(
            folder,
            &forward(&unet, &golden_),
            &golden_["lora.output"],
            1e-5,
        );
        merge(&mut unet);
        check(
            "merged",
            &forward(&unet, &golden_),
            &golden_["lora.output"],
            1e-5,
        );
    }
}

#[test]
fn what_is_saved_is_read_back_to_the_bit() {
    let (golden, folder) = (forwards(), tempfile::tempdir().unwrap());
    let path = folder.path().join(LORA_FILE);
    let (mut first, _) = unet(Kind::Float);
    let config = LoraConfig {
        rank: 3,
        alpha: 4.5,
        targets: vec!["to_k".into(), "to_out.0".into()],
    };
    let lora = Lora::attach(&mut first, &config, 1).unwrap();
    stir(&lora);
    lora.save(&path).unwrap();
    let (mut second, _) = unet(Kind::Float);
    let again = Lora::open(&mut second, &path).unwrap();
    assert_eq!(again.config(), &config);
    assert_eq!(again.params().names(), lora.params().names());
    let pairs = lora.params().tensors().iter().zip(again.params().tensors());
    assert!(pairs.into_iter().all(|(a, b)| a.detach() == b.detach()));
    assert_eq!(
        forward(&first, &golden).detach(),
        forward(&second, &golden).detach()
    );
}

#[test]
fn factors_stay_f32_beside_half_precision_weights() {
    let (golden, (mut unet, weights)) = (forwards(), unet(Kind::BFloat16));
    let path = self::golden().join("lora").join(LORA_FILE);
    let lora = Lora::open(&mut unet, &path).unwrap();
    assert_eq!(lora.params().kind(), Kind::Float);
    let half = |name: &str| golden[name].to_kind(Kind::BFloat16);
    let output = unet.forward(
        &half("unet.even.x_t"),
        &golden["unet.t"],
        &half("unet.cond"),
    );
    assert_eq!(output.kind(), Kind::BFloat16);
    // Eight bits a number through some sixty layers.
    check(
        "bf16",
        &output.to_kind(Kind::Float),
        &golden["lora.output"],
        0.1,
    );
    output
        .to_kind(Kind::Float)
        .square()
        .sum(Kind::Float)
        .backward();
    let grads = lora.params().grads().unwrap();
    assert!(grads.iter().all(|grad| grad.kind() == Kind::Float));
    merge(&mut unet);
    assert!(weights.values().all(|w| w.kind() == Kind::BFloat16));
}

#[test]
fn every_factor_that_does_not_fit_is_named_and_nothing_is_attached() {
    let (golden_, (mut unet, _)) = (forwards(), unet(Kind::Float));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LORA_FILE);
    let mut factors = read_all(&golden().join("lora").join(LORA_FILE)).unwrap();
    let block = "unet.mid_block.attentions.0.transformer_blocks.0";
    let removed = factors.remove(&format!("{block}.attn1.to_q.lora_B.weight"));
    assert!(removed.is_some());
    let wrong = format!("{block}.attn2.to_k.lora_A.weight");
    let cut = factors[&wrong].narrow(1, 0, 23);
    factors.insert(wrong, cut);
    let foreign = "text_encoder.layers.0.q_proj.lora_A.weight".to_owned();
    factors.insert(foreign, Tensor::zeros([2, 24], (Kind::Float, Device::Cpu)));
    save(&path, factors.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    let error = Lora::open(&mut unet, &path).unwrap_err().to_string();
    for needle in [
        LORA_FILE,
        "attn1.to_q` has no up factor (lora_B)",
        "attn2.to_k` has factors of shapes [2, 23] and [16, 2], expected [rank, 24] and [16, rank]",
        "`text_encoder.layers.0.q_proj.lora_A.weight` is in the file",
    ] {
        assert!(error.contains(needle), "{needle} is not in: {error}");
    }
    check(
        "still plain",
        &forward(&unet, &golden_),
        &golden_["unet.even.output"],
        1e-5,
    );
}
