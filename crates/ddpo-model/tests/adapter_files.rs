//! Adapters on disk: which files are read, and which are refused. Files: tests/golden/sd_tiny.py.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ddpo_model::{LORA_FILE, Lora, Unet, UnetConfig};
use ddpo_torch::Store;
use ddpo_torch::weights::{read_all, save};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

/// A factor of the golden adapter.
const FACTOR: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sd_tiny")
}

fn unet() -> Unet {
    // Tests run side by side: threads of their own would only wait for each other.
    tch::set_num_threads(1);
    let folder = golden().join("model/unet");
    let json = std::fs::read(folder.join("config.json")).unwrap();
    let config: UnetConfig = serde_json::from_slice(&json).unwrap();
    let file = folder.join("diffusion_pytorch_model.safetensors");
    let store = Store::open(&file, Device::Cpu, Kind::Float).unwrap();
    let unet = Unet::new(&store.root(), &config).unwrap();
    store.finish().unwrap();
    unet
}

fn factors() -> Tensors {
    read_all(&golden().join("lora").join(LORA_FILE)).unwrap()
}

fn write(path: &Path, factors: &Tensors) {
    save(path, factors.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
}

/// The golden adapter as `PeftModel.save_pretrained` of peft 0.21 writes it, but for what `change` changes of its
/// configuration.
fn write_as_peft(folder: &Path, change: impl Fn(&mut serde_json::Value)) {
    let renamed = factors().into_iter().map(|(name, factor)| {
        let module = name.strip_prefix("unet.").unwrap();
        (format!("base_model.model.{module}"), factor)
    });
    write(
        &folder.join("adapter_model.safetensors"),
        &renamed.collect(),
    );
    let mut config = serde_json::json!({
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["to_q", "to_k", "to_v", "to_out.0"],
        "init_lora_weights": "gaussian",
        "use_rslora": false,
        "use_dora": false,
        "alpha_pattern": {},
        "rank_pattern": {},
        "bias": "none",
        "inference_mode": true,
    });
    change(&mut config);
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
}

fn forward(unet: &Unet) -> Tensor {
    let golden = read_all(&golden().join("forward.safetensors")).unwrap();
    let (x_t, t, cond) = ("unet.even.x_t", "unet.t", "unet.cond");
    tch::no_grad(|| unet.forward(&golden[x_t], &golden[t], &golden[cond]))
}

#[test]
fn factors_that_are_no_weights_are_refused_by_file_and_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LORA_FILE);
    let mut unet = unet();
    let before = forward(&unet);
    let spoilt = |value: f64| {
        let factor = factors()[FACTOR].copy();
        let _ = factor.get(0).get(0).fill_(value);
        factor
    };
    for (factor, needle) in [
        (spoilt(f64::NAN), "has values that are not finite"),
        (spoilt(f64::NEG_INFINITY), "has values that are not finite"),
        (
            spoilt(1.0).to_kind(Kind::Int),
            "is of kind Int, expected a floating-point one",
        ),
    ] {
        let mut all = factors();
        all.insert(FACTOR.to_owned(), factor);
        write(&path, &all);
        let error = Lora::open(&mut unet, &path).unwrap_err().to_string();
        let needle = format!("`{FACTOR}` {needle}");
        assert!(
            error.contains(LORA_FILE) && error.contains(&needle),
            "{error}"
        );
        assert_eq!(forward(&unet), before, "nothing is attached");
    }
    write(&path, &factors());
    Lora::open(&mut unet, &path).unwrap();
    assert_ne!(forward(&unet), before);
}

#[test]
fn what_peft_itself_saved_acts_as_it_does_there() {
    let folder = tempfile::tempdir().unwrap();
    write_as_peft(folder.path(), |_| {});
    let name =
        "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight";
    let file = folder.path().join("adapter_model.safetensors");
    assert!(read_all(&file).unwrap().contains_key(name));
    let expected = &read_all(&golden().join("forward.safetensors")).unwrap()["lora.output"];
    for path in [folder.path(), &file] {
        let mut unet = unet();
        let lora = Lora::open(&mut unet, path).unwrap();
        assert_eq!((lora.config().rank, lora.config().alpha), (2, 3.0));
        assert_eq!(lora.config().targets, ["to_k", "to_out.0", "to_q", "to_v"]);
        let difference = (forward(&unet) - expected).abs().max() / expected.abs().max();
        let relative = difference.double_value(&[]);
        assert!(relative < 1e-5, "relative difference {relative:.2e}");
    }
}

#[test]
fn a_configuration_of_peft_that_is_missing_or_not_built_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let beside = folder.path().join("adapter_config.json");
    let mut unet = unet();
    let mut refused = |needle: &str| {
        let error = Lora::open(&mut unet, folder.path()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(needle), "{needle} is not in: {error}");
        error
    };
    refused(
        "has no adapter; expected pytorch_lora_weights.safetensors, or adapter_model.safetensors",
    );
    for (key, value, needle) in [
        ("r", 4.into(), "`r` is 4, but the factors have rank 2"),
        (
            "lora_alpha",
            "much".into(),
            "`lora_alpha` is \"much\", expected a number",
        ),
        ("use_rslora", true.into(), "`use_rslora` is not supported"),
        (
            "init_lora_weights",
            "pissa".into(),
            "`init_lora_weights` is \"pissa\"",
        ),
    ] {
        let value: serde_json::Value = value;
        write_as_peft(folder.path(), |config| config[key] = value.clone());
        let error = refused(needle);
        assert!(error.contains("adapter_config.json"), "{error}");
    }
    write_as_peft(folder.path(), |config| {
        config.as_object_mut().unwrap().remove("lora_alpha");
    });
    refused("`lora_alpha` is missing");
    std::fs::remove_file(beside).unwrap();
    refused("adapter_config.json: is missing; peft's `save_pretrained` writes it");
    write(&folder.path().join(LORA_FILE), &factors());
    refused("name one of them");
}
