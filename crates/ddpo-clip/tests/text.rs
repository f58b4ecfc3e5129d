//! The text encoder against transformers 5.23.0. Files: tests/golden/clip_text.py.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ddpo_clip::{Activation, ClipTextConfig, ClipTextModel, ClipTokenizer, Error};
use ddpo_torch::Store;
use ddpo_torch::weights::{read_all, save};
use tch::{Device, Kind, Tensor};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/clip_text")
}

fn config() -> ClipTextConfig {
    ClipTextConfig::from_file(&golden().join("config.json")).unwrap()
}

/// The golden weights as a file of their own, each name behind `prefix`.
fn weights_file(folder: &Path, prefix: &str) -> PathBuf {
    let all = read_all(&golden().join("model.safetensors")).unwrap();
    let weights: BTreeMap<String, Tensor> = all
        .into_iter()
        .filter_map(|(name, t)| Some((format!("{prefix}{}", name.strip_prefix("weights.")?), t)))
        .collect();
    let path = folder.join("model.safetensors");
    save(&path, weights.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    path
}

fn load(path: &Path, config: &ClipTextConfig) -> (ClipTextModel, BTreeMap<String, Tensor>) {
    let store = Store::open(path, Device::Cpu, Kind::Float).unwrap();
    let model = ClipTextModel::new(&store.root(), config).unwrap();
    (model, store.finish().unwrap())
}

#[track_caller]
fn check(name: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size(), "{name}");
    let difference = (actual - expected).abs();
    let worst = difference.max().double_value(&[]);
    let relative = worst / expected.abs().max().double_value(&[]);
    let index = difference.argmax(None, false).int64_value(&[]);
    assert!(
        relative <= tolerance,
        "{name}: relative difference {relative:.2e}, largest {worst:.2e} at flat index {index}, allowed {tolerance:.0e}"
    );
}

#[test]
fn outputs_and_gradients_are_those_of_transformers() {
    let expected = read_all(&golden().join("model.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = weights_file(folder.path(), "");
    for (act, hidden_act) in [
        ("quick_gelu", Activation::QuickGelu),
        ("gelu", Activation::Gelu),
    ] {
        let config = ClipTextConfig {
            hidden_act,
            ..config()
        };
        let (model, weights) = load(&path, &config);
        for weight in weights.values() {
            let _ = weight.set_requires_grad(true);
        }
        let output = model.forward(&expected["ids"]);
        check(
            &format!("{act} output"),
            &output.detach(),
            &expected[&format!("{act}.output")],
            1e-5,
        );
        let loss = (&output * &expected["probe"]).square().sum(Kind::Float);
        check(
            &format!("{act} loss"),
            &loss.detach(),
            &expected[&format!("{act}.loss")],
            1e-5,
        );
        loss.backward();
        assert_eq!(weights.len(), 36);
        for (name, weight) in &weights {
            let gradient = &expected[&format!("{act}.grads.{name}")];
            // A constant added to every key changes no attention: that gradient is rounding, not a value.
            if name.ends_with("k_proj.bias") {
                let query = &expected[&format!("{act}.grads.{}", name.replace("k_proj", "q_proj"))];
                let noise = weight.grad().abs().max() / query.abs().max();
                assert!(noise.double_value(&[]) <= 1e-4, "{act} {name}");
            } else {
                check(&format!("{act} {name}"), &weight.grad(), gradient, 1e-4);
            }
        }
    }
}

#[test]
fn a_token_sees_only_those_before_it() {
    let store = Store::random(3, Device::Cpu, Kind::Float);
    let model = ClipTextModel::new(&store.root(), &ClipTextConfig::tiny(20)).unwrap();
    let ids = Tensor::arange(12, (Kind::Int64, Device::Cpu)).view([1, 12]);
    let other = ids.copy();
    let _ = other.narrow(1, 7, 5).fill_(19);
    let (a, b) = (model.forward(&ids), model.forward(&other));
    check("before", &a.narrow(1, 0, 7), &b.narrow(1, 0, 7), 1e-6);
    assert!(
        !a.narrow(1, 7, 1)
            .allclose(&b.narrow(1, 7, 1), 1e-3, 1e-3, false)
    );
}

#[test]
fn names_with_and_without_the_old_prefix_load_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let ids = &read_all(&golden().join("model.safetensors")).unwrap()["ids"];
    let outputs = ["", "text_model."].map(|prefix| {
        let (model, weights) = load(&weights_file(folder.path(), prefix), &config());
        let name = format!("{prefix}final_layer_norm.weight");
        assert!(
            weights.contains_key(&name),
            "a file keeps its own names: {name}"
        );
        model.forward(ids)
    });
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn a_new_model_takes_the_names_that_every_release_of_transformers_reads() {
    let store = Store::random(3, Device::Cpu, Kind::Float);
    ClipTextModel::new(&store.root(), &ClipTextConfig::tiny(20)).unwrap();
    let weights = store.finish().unwrap();
    assert_eq!(weights.len(), 36);
    assert!(weights.keys().all(|name| name.starts_with("text_model.")));
}

#[test]
fn every_missing_and_misshapen_weight_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = weights_file(folder.path(), "");
    let store = Store::open(&path, Device::Cpu, Kind::Float).unwrap();
    let larger = ClipTextConfig {
        num_hidden_layers: 3,
        max_position_embeddings: 25,
        ..config()
    };
    ClipTextModel::new(&store.root(), &larger).unwrap();
    let error = store.finish().unwrap_err().to_string();
    for needle in [
        "model.safetensors",
        "`encoder.layers.2.self_attn.q_proj.weight` is missing (expected shape [32, 32])",
        "`embeddings.position_embedding.weight` has shape [24, 32], expected [25, 32]",
    ] {
        assert!(error.contains(needle), "{needle} is not in: {error}");
    }
}

#[test]
fn a_configuration_survives_writing_and_reading() {
    let config = ClipTextConfig {
        hidden_act: Activation::Gelu,
        ..config()
    };
    let json = config.to_json();
    assert_eq!(
        ClipTextConfig::from_json("config.json", json.as_bytes()).unwrap(),
        config
    );
    for needle in [
        "\"model_type\": \"clip_text_model\"",
        "\"hidden_act\": \"gelu\"",
    ] {
        assert!(json.contains(needle), "{json}");
    }
}

#[test]
fn an_impossible_configuration_is_refused_by_its_key() {
    for (json, needle) in [
        (
            r#"{"hidden_size": 30, "num_attention_heads": 4}"#,
            "`num_attention_heads` is 4, which does not divide `hidden_size` = 30",
        ),
        (r#"{"num_hidden_layers": 0}"#, "`num_hidden_layers` is 0"),
        (r#"{"vocab_size": -3}"#, "`vocab_size` is -3"),
        (r#"{"layer_norm_eps": 0}"#, "`layer_norm_eps` is 0"),
        (r#"{"hidden_act": "relu"}"#, "relu"),
        (r#"{"hidden_size": "#, "EOF"),
    ] {
        let error = ClipTextConfig::from_json("text_encoder/config.json", json.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("text_encoder/config.json: ") && error.contains(needle),
            "{error}"
        );
    }
}

#[test]
fn a_tokenizer_beyond_the_tables_is_refused() {
    let tokenizer = ClipTokenizer::from_folder(&golden()).unwrap();
    let model = |config: ClipTextConfig| {
        let store = Store::random(3, Device::Cpu, Kind::Float);
        ClipTextModel::new(&store.root(), &config).unwrap()
    };
    let n_ids = tokenizer.vocab_size() as i64;
    let fits = ClipTextConfig::tiny(n_ids);
    model(fits.clone()).check(&tokenizer).unwrap();
    for (config, needle) in [
        (ClipTextConfig::tiny(n_ids - 1), "ids up to 693"),
        (
            ClipTextConfig {
                max_position_embeddings: 23,
                ..fits
            },
            "24 tokens, there are 23",
        ),
    ] {
        let error = model(config).check(&tokenizer).unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error:?}");
        assert!(error.to_string().contains(needle), "{error}");
    }
}
