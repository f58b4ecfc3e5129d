//! What a run has learned comes out of `ddpo export` as files that `ddpo` itself samples from; that diffusers
//! reads them too is shown by tests/golden/_export_in_diffusers.py.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ddpo_tests::{Ended, ddpo, text, tiny_model};
use ddpo_torch::weights::read_all;
use tch::{Kind, Tensor};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const LORA: &str = "pytorch_lora_weights.safetensors";

/// A short run that changes the weights visibly.
fn trained(folder: &Path, set: &[&str]) -> PathBuf {
    let out = folder.join("run");
    let model = format!("model.path={}", tiny_model().display());
    let fixed = [
        model.as_str(),
        "run.epochs=2",
        "rl.samples_per_epoch=8",
        "sampler.n_steps=3",
        "rl.lr=1e-2",
    ];
    let mut args = vec!["run", "configs/incompressibility.toml", "--out", text(&out)];
    args.extend(fixed.iter().chain(set).flat_map(|pair| ["--set", pair]));
    ddpo(args).expect(0, &["epoch 2/2"]);
    out
}

fn export(run: &Path, format: &str, out: &Path) -> Ended {
    ddpo(["export", text(run), "--format", format, "--out", text(out)])
}

/// What three steps from fixed noise end in.
fn sampled(model: &Path, lora: Option<&Path>, to: &Path) -> Tensor {
    let trace = to.join("trace.safetensors");
    let mut args = vec!["sample", "--model", text(model), "--prompt", "a cat"];
    args.extend(["--steps", "3", "--seed", "5", "--trace", text(&trace)]);
    args.extend(["--out", text(to)]);
    args.extend(lora.iter().flat_map(|file| ["--lora", text(file)]));
    ddpo(args).expect(0, &[]);
    read_all(&trace).expect("a trace")["latents"].get(3)
}

/// Largest difference, relative to the largest value.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).abs().max() / b.abs().max()).double_value(&[])
}

fn learned(run: &Path) -> BTreeMap<String, Tensor> {
    let checkpoint = run.join("checkpoints/epoch-000002/policy.safetensors");
    read_all(&checkpoint).expect("a checkpoint")
}

#[test]
fn a_fully_trained_model_comes_out_as_a_pipeline_with_the_weights_of_the_last_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = trained(folder.path(), &[]);
    let out = folder.path().join("out");
    let ended = export(&run, "diffusers", &out).expect(0, &[]);
    assert!(ended.stdout.contains("after epoch 2"), "{}", ended.stdout);
    assert!(out.join("model_index.json").is_file());
    let (exported, learned) = (read_all(&out.join(UNET)).expect("weights"), learned(&run));
    assert_eq!(exported, learned);
    let base = read_all(&tiny_model().join(UNET)).expect("weights");
    assert!(base.keys().eq(exported.keys()) && base != exported);
    let to = folder.path().join("images");
    let (after, before) = (sampled(&out, None, &to), sampled(&tiny_model(), None, &to));
    assert!(difference(&after, &before) > 1e-2);

    for format in ["lora", "merged"] {
        let other = folder.path().join(format);
        export(&run, format, &other).expect(2, &["trained all weights", "--format diffusers"]);
        assert!(!other.exists());
    }
    export(&run, "diffusers", &out).expect(2, &["is not empty", "--out"]);
}

#[test]
fn low_rank_factors_come_out_alone_beside_the_model_and_merged_and_sample_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let lora = [
        "policy.train=lora",
        "policy.lora.rank=2",
        "policy.lora.alpha=3",
    ];
    let run = trained(folder.path(), &lora);
    let [alone, beside, merged, to] =
        ["lora", "diffusers", "merged", "images"].map(|name| folder.path().join(name));
    for out in [&alone, &beside, &merged] {
        let format = out
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        export(&run, format, out).expect(0, &[]);
    }
    let learned = learned(&run);
    let factors = read_all(&alone.join(LORA)).expect("factors");
    let names = learned.keys().map(|name| format!("unet.{name}"));
    assert!(!learned.is_empty() && names.eq(factors.keys().cloned()));
    assert!(
        learned
            .iter()
            .all(|(n, t)| factors[&format!("unet.{n}")] == *t)
    );
    assert_eq!(
        fs::read_dir(&alone).expect("a folder").count(),
        1,
        "nothing but the factors"
    );
    let base = tiny_model();
    let plain = sampled(&base, None, &to);
    let adapted = sampled(&base, Some(&alone.join(LORA)), &to);
    assert!(difference(&adapted, &plain) > 1e-2);
    assert!(difference(&sampled(&merged, None, &to), &adapted) < 1e-5);
    assert_eq!(sampled(&beside, None, &to), plain);
    let both = sampled(&beside, Some(&beside.join(LORA)), &to);
    assert_eq!(both, adapted);
    let exported = read_all(&beside.join(UNET)).expect("weights");
    assert!(exported.values().all(|tensor| tensor.kind() == Kind::Float));
}

#[test]
fn what_is_no_run_or_has_no_checkpoint_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    export(Path::new("nowhere"), "diffusers", &out)
        .expect(3, &["nowhere is no run", "config.toml"]);
    export(&tiny_model(), "diffusers", &out).expect(3, &["is no run"]);
    ddpo(["export", "x", "--format", "pickle", "--out", "y"]).expect(2, &["pickle", "diffusers"]);
    assert!(!out.exists());
    let run = trained(folder.path(), &[]);
    let policy = "checkpoints/epoch-000002/policy.safetensors";
    fs::write(run.join(policy), b"damaged").expect("a file");
    // The checkpoint before it is whole.
    export(&run, "diffusers", &out).expect(0, &["policy.safetensors", "an older one"]);
    fs::remove_dir_all(run.join("checkpoints")).expect("a folder");
    let out = folder.path().join("none");
    export(&run, "diffusers", &out).expect(3, &["no checkpoint"]);
}
