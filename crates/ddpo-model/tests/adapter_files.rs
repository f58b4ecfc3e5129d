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
