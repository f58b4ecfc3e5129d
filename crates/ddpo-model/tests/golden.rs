//! The whole model against diffusers 0.42.1 and transformers 5.23.0. Files: tests/golden/sd_tiny.py.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ddpo_model::{Files, StableDiffusion};
use ddpo_sched::{Ddim, LogProb, Sampler};
use ddpo_torch::weights::{read_all, save};
use tch::{Device, Kind, Tensor};

const FORWARD: f64 = 1e-5;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sd_tiny")
}

fn load(folder: &Path) -> ddpo_model::Result<StableDiffusion> {
    // Tests run side by side: threads of their own would only wait for each other.
    tch::set_num_threads(1);
    StableDiffusion::load(&Files::Folder(folder.to_owned()), Device::Cpu, Kind::Float)
}

fn model() -> StableDiffusion {
    load(&golden().join("model")).unwrap()
}

fn forwards() -> BTreeMap<String, Tensor> {
    read_all(&golden().join("forward.safetensors")).unwrap()
}

/// Largest difference relative to the largest expected value.
#[track_caller]
fn check(name: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size(), "{name}");
    let (actual, expected) = (actual.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = (actual - &expected).abs();
    let worst = difference.max().double_value(&[]);
    let relative = worst / expected.abs().max().double_value(&[]);
    let index = difference.argmax(None, false).int64_value(&[]);
    println!("{name}: relative difference {relative:.2e}");
    assert!(
        relative <= tolerance,
        "{name}: relative difference {relative:.2e}, largest {worst:.2e} at flat index {index}, allowed {tolerance:.0e}"
    );
}

/// A copy of the golden model that a test may change.
fn copied() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for component in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        std::fs::create_dir(folder.path().join(component)).unwrap();
        for entry in std::fs::read_dir(golden().join("model").join(component)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            std::fs::copy(&path, folder.path().join(component).join(name)).unwrap();
        }
    }
    folder
}

/// Writes a component's weights anew, each tensor as `change` says.
fn rewrite(file: &Path, change: impl Fn(String, Tensor) -> (String, Tensor)) {
    let tensors: BTreeMap<String, Tensor> = read_all(file)
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| change(name, tensor))
        .collect();
    save(file, tensors.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
}

#[test]
fn the_unet_predicts_what_diffusers_predicts() {
    let (model, golden) = (model(), forwards());
    let _guard = tch::no_grad_guard();
    // 5×7 and 6×9 are halved to 3×4 and 3×5: skips are then not twice as large as what comes from below.
    for size in ["even", "odd", "oblong"] {
        let actual = model.unet.net.forward(
            &golden[&format!("unet.{size}.x_t")],
            &golden["unet.t"],
            &golden["unet.cond"],
        );
        let name = format!("unet.{size}.output");
        check(&name, &actual, &golden[&name], FORWARD);
    }
}

#[test]
fn the_vae_encodes_and_decodes_as_diffusers_does() {
    let (model, golden) = (model(), forwards());
    let vae = &model.images.vae.net;
    let _guard = tch::no_grad_guard();
    let posterior = vae.encoder.forward(&golden["vae.images"]);
    check("vae.mean", &posterior.mean, &golden["vae.mean"], FORWARD);
    check(
        "vae.log_var",
        &posterior.log_var,
        &golden["vae.log_var"],
        FORWARD,
    );
    let oblong = vae.encoder.forward(&golden["vae.oblong.images"]).mean;
    check(
        "vae.oblong.mean",
        &oblong,
        &golden["vae.oblong.mean"],
        FORWARD,
    );
    let scaled = vae.encode(&golden["vae.images"]);
    check(
        "scaled mean",
        &scaled,
        &(&golden["vae.mean"] * 0.18215),
        FORWARD,
    );
    let decoded = vae.decoder.forward(&golden["vae.latents"]);
    check("vae.decoded", &decoded, &golden["vae.decoded"], FORWARD);
    let decoded = vae.decode(&(&golden["vae.latents"] * 0.18215));
    check(
        "decoded from scaled",
        &decoded,
        &golden["vae.decoded"],
        FORWARD,
    );
}

#[test]
fn prompts_become_the_embeddings_of_transformers() {
    let (model, golden) = (model(), forwards());
    let texts = ["a cat", "a dog on the moon", "two cats", ""];
    let ids = model.prompts.tokenizer.encode(&texts).unwrap();
    assert_eq!(ids, golden["text.ids"]);
    let output = model.prompts.encode(&texts).unwrap();
    check("text.output", &output, &golden["text.output"], FORWARD);
}

#[test]
fn one_step_has_the_mean_the_sample_and_the_density_of_diffusers() {
    let (model, golden) = (model(), forwards());
    let sampler = Ddim::new(&model.schedule, 10, 1.0).unwrap();
    let step = golden["step.at"].int64_value(&[0]) as usize;
    let next = sampler
        .transition(&[step; 3], &golden["step.x_t"], &golden["step.eps"])
        .unwrap();
    check("step.mean", &next.mean, &golden["step.mean"], FORWARD);
    let x_prev = next.at(&golden["step.noise"]).unwrap();
    check("step.x_prev", &x_prev, &golden["step.x_prev"], FORWARD);
    let log_prob = next.log_prob(&x_prev, LogProb::Mean).unwrap();
    check(
        "step.log_prob",
        &log_prob,
        &golden["step.log_prob"],
        FORWARD,
    );
}

#[test]
fn a_decoded_image_has_the_bytes_of_diffusers_to_the_rounding() {
    let model = model();
    let trace = read_all(&golden().join("trace.safetensors")).unwrap();
    let x_0 = trace["latents"].get(10);
    let images = model.images.decode(&x_0).unwrap();
    let expected = &trace["images"];
    let bytes = Tensor::from_slice(images.bytes()).view_as(expected);
    let difference = (bytes.to_kind(Kind::Int) - expected.to_kind(Kind::Int)).abs();
    assert!(difference.max().int64_value(&[]) <= 1);
    assert!(difference.count_nonzero(None).int64_value(&[]) <= 3);
}

#[test]
fn weights_under_the_names_of_older_releases_load_the_same_model() {
    let folder = copied();
    // AutoencoderKL before diffusers 0.15 and on the hub; CLIPTextModel of transformers 4, with its buffer.
    rewrite(
        &folder
            .path()
            .join("vae/diffusion_pytorch_model.safetensors"),
        |name, tensor| {
            let pairs = [
                (".to_q.", ".query."),
                (".to_k.", ".key."),
                (".to_v.", ".value."),
                (".to_out.0.", ".proj_attn."),
            ];
            let old = pairs
                .iter()
                .fold(name, |name, (new, old)| name.replace(new, old));
            (old, tensor)
        },
    );
    let text = folder.path().join("text_encoder/model.safetensors");
    let mut tensors = read_all(&text).unwrap();
    assert!(tensors.keys().all(|name| !name.starts_with("text_model.")));
    tensors = tensors
        .into_iter()
        .map(|(name, tensor)| (format!("text_model.{name}"), tensor))
        .collect();
    let positions = Tensor::arange(16, (Kind::Int64, Device::Cpu)).view([1, 16]);
    tensors.insert("text_model.embeddings.position_ids".into(), positions);
    save(&text, tensors.iter().map(|(n, t)| (n.as_str(), t))).unwrap();

    let (old, golden) = (load(folder.path()).unwrap(), forwards());
    let decoded = tch::no_grad(|| old.images.vae.net.decoder.forward(&golden["vae.latents"]));
    check("vae.decoded", &decoded, &golden["vae.decoded"], FORWARD);
    let output = old
        .prompts
        .encode(&["a cat", "a dog on the moon", "two cats", ""]);
    check(
        "text.output",
        &output.unwrap(),
        &golden["text.output"],
        FORWARD,
    );
}

#[test]
fn half_precision_files_load_under_either_name() {
    let golden = forwards();
    for name in [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    ] {
        let folder = copied();
        let old = folder
            .path()
            .join("unet/diffusion_pytorch_model.safetensors");
        rewrite(&old, |name, tensor| (name, tensor.to_kind(Kind::Half)));
        std::fs::rename(&old, folder.path().join("unet").join(name)).unwrap();
        let model = load(folder.path()).unwrap();
        let actual = tch::no_grad(|| {
            model.unet.net.forward(
                &golden["unet.even.x_t"],
                &golden["unet.t"],
                &golden["unet.cond"],
            )
        });
        // The weights have eleven bits; the arithmetic is f32.
        check(name, &actual, &golden["unet.even.output"], 5e-3);
    }
}

#[test]
fn what_is_saved_loads_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let first = model();
    first.save(folder.path(), Kind::Float).unwrap();
    let second = load(folder.path()).unwrap();
    let pairs = [
        (&first.unet.tensors, &second.unet.tensors),
        (&first.images.vae.tensors, &second.images.vae.tensors),
        (&first.prompts.text.tensors, &second.prompts.text.tensors),
    ];
    for (a, b) in pairs {
        assert!(!a.is_empty() && a.keys().eq(b.keys()));
        assert!(a.iter().all(|(name, tensor)| *tensor == b[name]));
    }
    assert_eq!(first.unet.net.config(), second.unet.net.config());
    assert_eq!(first.schedule, second.schedule);
}

#[test]
fn every_tensor_that_does_not_fit_is_named_with_its_file() {
    let folder = copied();
    let unet = folder
        .path()
        .join("unet/diffusion_pytorch_model.safetensors");
    rewrite(&unet, |name, tensor| match name.as_str() {
        "conv_in.weight" => (name, tensor.narrow(0, 0, 7)),
        "conv_out.bias" => ("conv_out.offset".into(), tensor),
        _ => (name, tensor),
    });
    // Those of the other components are told together with them.
    let vae = folder
        .path()
        .join("vae/diffusion_pytorch_model.safetensors");
    rewrite(&vae, |name, tensor| match name.as_str() {
        "quant_conv.bias" => (name, tensor * f64::NAN),
        _ => (name, tensor),
    });
    let text = folder.path().join("text_encoder/model.safetensors");
    rewrite(&text, |name, tensor| match name.as_str() {
        "embeddings.token_embedding.weight" => (name, tensor.narrow(1, 0, 23)),
        _ => (name, tensor),
    });
    let error = load(folder.path()).err().unwrap().to_string();
    for needle in [
        "unet/diffusion_pytorch_model.safetensors",
        "`conv_in.weight` has shape [7, 4, 3, 3], expected [8, 4, 3, 3]",
        "`conv_out.bias` is missing (expected shape [4])",
        "`conv_out.offset` is in the file",
        "vae/diffusion_pytorch_model.safetensors",
        "`quant_conv.bias` has values that are not finite",
        "text_encoder/model.safetensors",
        "`embeddings.token_embedding.weight` has shape [518, 23], expected [518, 24]",
    ] {
        assert!(error.contains(needle), "{needle} is not in: {error}");
    }
}

/// Spreads a component's weights over two files with an index, under the names that diffusers' and transformers'
/// `save_pretrained(max_shard_size=…, variant=…)` give them.
fn shard(folder: &Path, stem: &str, variant: &str) {
    let whole = folder.join(format!("{stem}.safetensors"));
    let all: Vec<(String, Tensor)> = read_all(&whole).unwrap().into_iter().collect();
    let mut entries = Vec::new();
    for (i, part) in all.chunks(all.len().div_ceil(2)).enumerate() {
        let name = format!("{stem}{variant}-0000{}-of-00002.safetensors", i + 1);
        save(
            &folder.join(&name),
            part.iter().map(|(n, t)| (n.as_str(), t)),
        )
        .unwrap();
        entries.extend(part.iter().map(|(n, _)| format!("\"{n}\": \"{name}\"")));
    }
    let index = format!("{{\"weight_map\": {{{}}}}}", entries.join(", "));
    let name = format!("{stem}.safetensors.index{variant}.json");
    std::fs::write(folder.join(name), index).unwrap();
    std::fs::remove_file(whole).unwrap();
}

#[test]
fn sharded_weights_load_under_the_names_of_every_variant() {
    let golden = forwards();
    for variant in ["", ".fp16", ".bf16"] {
        let folder = copied();
        for (component, stem) in [
            ("unet", "diffusion_pytorch_model"),
            ("vae", "diffusion_pytorch_model"),
            ("text_encoder", "model"),
        ] {
            shard(&folder.path().join(component), stem, variant);
        }
        let model = load(folder.path()).unwrap();
        let decoded = tch::no_grad(|| model.images.vae.net.decoder.forward(&golden["vae.latents"]));
        check("vae.decoded", &decoded, &golden["vae.decoded"], FORWARD);
        let first = self::model();
        assert_eq!(model.unet.tensors, first.unet.tensors);
        assert_eq!(model.prompts.text.tensors, first.prompts.text.tensors);
        std::fs::remove_file(folder.path().join(format!(
            "unet/diffusion_pytorch_model{variant}-00002-of-00002.safetensors"
        )))
        .unwrap();
        let error = load(folder.path()).err().unwrap().to_string();
        assert!(error.contains("-00002-of-00002.safetensors"), "{error}");
    }
}

#[test]
fn of_several_variants_the_one_in_the_kind_asked_for_is_read() {
    let folder = copied();
    let unet = folder.path().join("unet");
    let plain = unet.join("diffusion_pytorch_model.safetensors");
    for (variant, kind, value) in [("fp16", Kind::Half, 2.0), ("bf16", Kind::BFloat16, 3.0)] {
        let file = unet.join(format!("diffusion_pytorch_model.{variant}.safetensors"));
        std::fs::copy(&plain, &file).unwrap();
        rewrite(&file, |name, tensor| {
            (name, tensor.full_like(value).to_kind(kind))
        });
    }
    rewrite(&plain, |name, tensor| (name, tensor.full_like(1.0)));
    for (kind, value) in [(Kind::Float, 1.0), (Kind::Half, 2.0), (Kind::BFloat16, 3.0)] {
        let files = Files::Folder(folder.path().to_owned());
        let model = StableDiffusion::load(&files, Device::Cpu, kind).unwrap();
        let weight = &model.unet.tensors["conv_in.weight"];
        assert_eq!(
            (weight.kind(), weight.double_value(&[0, 0, 0, 0])),
            (kind, value)
        );
    }
}
