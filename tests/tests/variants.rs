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
    for dtype in ["f32", "bf16", "f16"] {
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
fn full_training_computes_in_half_precision_beside_f32_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    for (dtype, scaled) in [("bf16", false), ("f16", true)] {
        let out = folder.path().join(dtype);
        let dtype = format!("model.dtype={dtype}");
        let set = [&dtype, "rl.ratio_bound=100", "policy.checkpointing=true"];
        run(&out, &set).expect(0, &["epoch 1/1"]);
        let metrics = fs::read_to_string(out.join("metrics.csv")).expect("metrics");
        assert_eq!(metrics.contains("policy/loss_scale"), scaled, "{metrics}");
    }
}

#[test]
fn a_plan_is_made_without_the_device_and_a_probe_measures_on_it() {
    let plan = |set: &[&str], probe: &[&str]| {
        let mut args = vec!["plan", "configs/compressibility.toml", "--preset", "lora"];
        args.extend(set.iter().flat_map(|pair| ["--set", pair]));
        args.extend(probe);
        ddpo(args)
    };
    let printed = plan(&[], &[]).expect(0, &[]).stdout;
    for line in [
        "# 256 samples an epoch × 100 epochs = 25600 reward queries",
        "# 256 samples × 50 steps = 12800 pairs to train on an epoch, 4 at a time",
        "# bytes and time: --probe loads the model and takes one step",
    ] {
        assert!(printed.contains(line), "`{line}` is not in: {printed}");
    }
    let model = format!("model.path={}", tiny_model().display());
    let set = [
        model.as_str(),
        "model.device=cpu",
        "model.dtype=f32",
        "run.threads=1",
    ];
    let printed = plan(&set, &["--probe"]).expect(0, &[]).stdout;
    // 51 latents of 4×8×8, a prompt of 16 tokens of 24, 50 log-probabilities, in f32, 256 times.
    for line in [
        "# trajectory: 13.2 MiB (of an epoch, on the host)",
        "# gradients: ",
        "# optimiser: ",
        "# activations: ",
        "# the run: 100 epochs, ",
    ] {
        assert!(printed.contains(line), "`{line}` is not in: {printed}");
    }
}

#[test]
fn training_without_guidance_samples_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    run(&folder.path().join("run"), &["rl.train_guidance=false"]).expect(0, &["allowed inf"]);
}

/// A column of `metrics.csv`, a value an epoch.
fn column(out: &Path, name: &str) -> Vec<f64> {
    let mut table = csv::Reader::from_path(out.join("metrics.csv")).expect("metrics");
    let at = table
        .headers()
        .expect("a header")
        .iter()
        .position(|n| n == name);
    let at = at.unwrap_or_else(|| panic!("no column {name}"));
    let value = |row: csv::Result<csv::StringRecord>| row.expect("a row")[at].parse().expect(name);
    table.records().map(value).collect()
}

#[test]
fn weighted_regression_trains_on_what_it_keeps() {
    let folder = tempfile::tempdir().expect("a folder");
    let round = [
        "rwr.samples_per_round=16",
        "rwr.samples_per_prompt=8",
        "rwr.updates_per_round=2",
        "rwr.batch=4",
    ];
    // Of eight samples of a prompt, the ninth tenth begins at the best one.
    for (algorithm, kept) in [("rwr", 16.0), ("rwr-sparse", 2.0)] {
        let out = folder.path().join(algorithm);
        let algorithm = format!("rl.algorithm={algorithm}");
        let set = [&[algorithm.as_str()], &round[..]].concat();
        run(&out, &set).expect(0, &["effective samples"]);
        assert_eq!(column(&out, "rwr/kept"), [kept], "{algorithm}");
        assert_eq!(column(&out, "reward_queries"), [16.0]);
        assert!(column(&out, "policy/grad_norm")[0] > 0.0);
    }
    let out = folder.path().join("uneven");
    let set = [
        "rl.algorithm=rwr",
        "rwr.samples_per_round=20",
        "rwr.samples_per_prompt=8",
    ];
    run(&out, &set).expect(2, &["rwr.samples_per_prompt", "20 = 2 * 8 + 4"]);
    assert!(!out.exists());
}

#[test]
fn the_divergence_from_the_first_policy_is_measured_and_grows_from_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = [
        "rl.kl_weight=0.1",
        "run.epochs=3",
        "rl.updates_per_epoch=1",
        // In bf16 log-probabilities are rounded; see above.
        "rl.ratio_bound=100",
    ];
    for dtype in ["f32", "bf16"] {
        let out = folder.path().join(dtype);
        let dtype = format!("model.dtype={dtype}");
        run(&out, &[&set[..], &[dtype.as_str()]].concat()).expect(0, &["epoch 3/3"]);
        let kl = column(&out, "policy/kl_pretrained");
        assert_eq!(
            kl[0], 0.0,
            "the first update starts at the first policy, {dtype}"
        );
        assert!(0.0 < kl[1] && kl[1] < kl[2], "{dtype}: {kl:?}");
    }
}

#[test]
fn an_adapter_of_diffusers_changes_the_images_and_a_foreign_file_is_named() {
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
    let image = |folder: &Path| fs::read(folder.join("0000.png")).expect("an image");
    assert_ne!(image(&plain), image(&adapted));
    let foreign = root().join("tests/golden/sd_tiny/forward.safetensors");
    sample(&plain, &["--lora", text(&foreign)]).expect(3, &["forward.safetensors"]);
}
