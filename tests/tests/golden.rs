//! `ddpo sample` and `ddpo replay` against diffusers, through files alone.
//!
//! Reads `tests/golden/sd_tiny`, which `tests/golden/sd_tiny.py` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ddpo_tests::{ddpo, root, text, tiny_model};
use ddpo_torch::weights;
use tch::{Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

fn golden(file: &str) -> PathBuf {
    root().join("tests/golden/sd_tiny").join(file)
}

fn read(path: &Path) -> Tensors {
    weights::read_all(path).expect("a safetensors file")
}

fn write(path: &Path, name: &str, tensor: &Tensor) {
    weights::save(path, [(name, tensor)]).expect("a safetensors file");
}

/// `max |a − b| / max |b|` within a bound.
#[track_caller]
fn check(name: &str, a: &Tensor, b: &Tensor, bound: f64) {
    assert_eq!(a.size(), b.size(), "{name}");
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    let error =
        (a - &b).abs().max().double_value(&[]) / b.abs().max().double_value(&[]).max(1e-300);
    assert!(
        error <= bound,
        "{name}: relative error {error:.2e}, at most {bound:.0e} is allowed"
    );
}

/// Samples the golden prompts from the golden noise; the trace.
fn sample(folder: &Path, prompts: &[&str], n: i64) -> Tensors {
    let trace = read(&golden("trace.safetensors"));
    let [latents, noise, made] =
        ["latents", "noise", "made"].map(|name| folder.join(format!("{name}.safetensors")));
    write(
        &latents,
        "latents",
        &trace["latents"].get(0).narrow(0, 0, n).contiguous(),
    );
    write(
        &noise,
        "noise",
        &trace["noise"].narrow(1, 0, n).contiguous(),
    );
    let model = tiny_model();
    let mut args = vec![
        "sample",
        "--model",
        text(&model),
        "--steps",
        "10",
        "--guidance",
        "5",
    ];
    args.extend(prompts.iter().flat_map(|prompt| ["--prompt", prompt]));
    args.extend([
        "--latents",
        text(&latents),
        "--noise",
        text(&noise),
        "--trace",
        text(&made),
    ]);
    args.extend(["--out", text(folder)]);
    ddpo(args).expect(0, &[]);
    read(&made)
}

const PROMPTS: [&str; 3] = ["a cat", "a dog on the moon", "two cats"];

#[test]
fn a_guided_trajectory_is_that_of_diffusers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (made, expected) = (
        sample(folder.path(), &PROMPTS, 3),
        read(&golden("trace.safetensors")),
    );
    for name in ["latents", "log_probs", "prompt_embeds", "noise"] {
        check(name, &made[name], &expected[name], 1e-5);
    }
    assert_eq!(made["timesteps"], expected["timesteps"]);
    let difference = made["images"].to_kind(Kind::Int) - expected["images"].to_kind(Kind::Int);
    assert!(
        difference.abs().max().int64_value(&[]) <= 2,
        "images differ"
    );
    assert!(folder.path().join("0002.png").is_file());
}

#[test]
fn a_sample_does_not_depend_on_the_batch_it_was_drawn_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = sample(folder.path(), &PROMPTS, 3);
    let half = sample(folder.path(), &PROMPTS[..2], 2);
    check(
        "latents",
        &half["latents"],
        &all["latents"].narrow(1, 0, 2),
        1e-5,
    );
}

#[test]
fn a_replayed_update_has_the_gradients_of_the_reference() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, rollout) = (tiny_model(), golden("rollout.safetensors"));
    let out = text(folder.path());
    let mut args = vec![
        "replay",
        "--model",
        text(&model),
        "--rollout",
        text(&rollout),
        "--out",
        out,
    ];
    args.extend(["--set", "sampler.guidance_scale=5", "--set", "rl.lr=1e-3"]);
    ddpo(args).expect(0, &[]);
    let (made, expected) = (
        read(&folder.path().join("grads.safetensors")),
        read(&golden("update.safetensors")),
    );
    let grads: Vec<&String> = expected
        .keys()
        .filter(|name| name.starts_with("grads."))
        .collect();
    assert_eq!(grads.len(), made.len());
    for name in grads {
        let plain = name.trim_start_matches("grads.");
        check(name, &made[plain], &expected[name], 1e-4);
    }
    assert!(folder.path().join("weights.safetensors").is_file());
    assert!(folder.path().join("metrics.csv").is_file());
}
