//! Low-rank training, half precision and unguided training from the command line.

use std::fs;
use std::path::Path;

use ddpo_tests::{Ended, ddpo, root, text, tiny_model};

fn run(out: &Path, set: &[&str]) -> Ended {
    let model = format!("model.path={}", tiny_model().display());
    let short = [
        "run.epochs=1",
        "rl.samples_per_epoch=8",
        "eval.samples=4",
        "sampler.n_steps=3",
    ];
    let mut args = vec!["run", "configs/incompressibility.toml", "--out", text(out)];
    args.extend(
        [model.as_str()]
            .iter()
            .chain(&short)
            .chain(set)
            .flat_map(|pair| ["--set", pair]),
    );
    ddpo(args)
}

#[test]
fn low_rank_factors_train_beside_frozen_weights_of_either_precision() {
    let folder = tempfile::tempdir().expect("a folder");
    for dtype in ["f32", "bf16"] {
        let out = folder.path().join(dtype);
        let dtype = format!("model.dtype={dtype}");
        // In bf16 log-probabilities are rounded: a wider bound on the first ratio is an explicit choice.
        run(
            &out,
            &[
                "policy.train=lora",
                "policy.lora.rank=2",
                &dtype,
                "rl.ratio_bound=100",
            ],
        )
        .expect(0, &["epoch 1/1"]);
        let manifest = fs::read_to_string(out.join("manifest.json")).expect("a manifest");
        assert!(manifest.contains("\"trained_parameters\""), "{manifest}");
    }
}

#[test]
fn full_training_in_half_precision_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    run(&out, &["model.dtype=f16"]).expect(2, &["model.dtype", "f32", "lora"]);
    assert!(!out.exists());
}

#[test]
fn training_without_guidance_samples_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    run(&folder.path().join("run"), &["rl.train_guidance=false"]).expect(0, &["allowed inf"]);
}

#[test]
fn an_adapter_of_diffusers_changes_the_pictures_and_a_foreign_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = tiny_model();
    let sample = |out: &Path, lora: &[&str]| {
        let mut args = vec![
            "sample",
            "--model",
            text(&model),
            "--prompt",
            "a cat",
            "--steps",
            "4",
        ];
        args.extend(["--dtype", "bf16", "--out", text(out)]);
        args.extend(lora);
        ddpo(args)
    };
    let [plain, adapted] = ["plain", "adapted"].map(|name| folder.path().join(name));
    sample(&plain, &[]).expect(0, &[]);
    let adapter = root().join("tests/golden/sd_tiny/lora/pytorch_lora_weights.safetensors");
    sample(&adapted, &["--lora", text(&adapter)]).expect(0, &[]);
    let picture = |folder: &Path| fs::read(folder.join("0000.png")).expect("a picture");
    assert_ne!(picture(&plain), picture(&adapted));
    let foreign = root().join("tests/golden/sd_tiny/forward.safetensors");
    sample(&plain, &["--lora", text(&foreign)]).expect(3, &["forward.safetensors"]);
}
