//! The image tower and its preprocessing against transformers 5.23.0 and Pillow. Files: tests/golden/clip_vision.py.
#[path = "../../../tests/golden/clip_vision.rs"]
mod generated;

use std::path::{Path, PathBuf};

use ddpo_clip::{ClipImages, ClipVisionConfig, ClipVisionModel};
use ddpo_torch::Store;
use ddpo_torch::weights::{read_all, save};
use generated::image;
use tch::{Device, Kind, Tensor};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/clip_vision")
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

fn images() -> Vec<(usize, usize, Vec<u8>)> {
    let sizes = &read_all(&golden().join("pictures.safetensors")).unwrap()["sizes"];
    (0..sizes.size()[0])
        .map(|i| {
            let (height, width) = (sizes.int64_value(&[i, 0]), sizes.int64_value(&[i, 1]));
            let bytes = image(i as u32, height as u32, width as u32);
            (height as usize, width as usize, bytes)
        })
        .collect()
}

#[test]
fn outputs_and_gradients_are_those_of_transformers() {
    let model = ClipVisionModel::open(&golden(), Device::Cpu, Kind::Float).unwrap();
    let expected = read_all(&golden().join("forward.safetensors")).unwrap();
    let pixels = expected["pixels"].copy().set_requires_grad(true);
    let states = model.last_hidden_state(&pixels);
    check(
        "states",
        &states.detach(),
        &expected["last_hidden_state"],
        1e-5,
    );
    let embeds = model.forward(&pixels);
    check("embeds", &embeds.detach(), &expected["image_embeds"], 1e-5);
    (embeds * &expected["probe"]).sum(Kind::Float).backward();
    check("gradient", &pixels.grad(), &expected["grad"], 1e-4);
}

/// The class token and the patches before the first block, and after each.
#[test]
fn every_layer_is_that_of_transformers() {
    let model = ClipVisionModel::open(&golden(), Device::Cpu, Kind::Float).unwrap();
    let expected = read_all(&golden().join("forward.safetensors")).unwrap();
    let states = model.states(&expected["pixels"]);
    let n_layers = expected.keys().filter(|n| n.starts_with("state_")).count();
    assert_eq!((states.len(), n_layers), (3, 3));
    for (i, state) in states.iter().enumerate() {
        let name = format!("state_{i}");
        check(&name, state, &expected[&name], 1e-5);
    }
    check("last", &states[2], &expected["last_hidden_state"], 1e-5);
}

/// Every byte of every image: the checksum is of all of them, the samples say how far off they are.
#[test]
fn squares_are_pillow_s_byte_for_byte_on_fifty_images_of_odd_sizes() {
    let expected = read_all(&golden().join("pictures.safetensors")).unwrap();
    let clip = ClipImages::new(224);
    let images = images();
    assert_eq!(images.len(), 50);
    let (mut worst, mut exact) = (0, 0);
    for (i, (height, width, rgb)) in images.iter().enumerate() {
        let square = clip.square(rgb, *height, *width).unwrap();
        let samples: Vec<i64> = square.iter().step_by(151).map(|&b| b.into()).collect();
        let difference =
            Tensor::from_slice(&samples) - expected["samples"].get(i as i64).to_kind(Kind::Int64);
        worst = worst.max(difference.abs().max().int64_value(&[]));
        let crc = i64::from(crc32fast::hash(&square));
        exact += usize::from(crc == expected["crc32"].int64_value(&[i as i64]));
    }
    assert_eq!(
        (worst, exact),
        (0, 50),
        "largest difference and equal images"
    );
}

#[test]
fn pixel_values_are_those_of_the_processor() {
    let expected = &read_all(&golden().join("pictures.safetensors")).unwrap()["pixel_values"];
    let (height, width, rgb) = &images()[0];
    let pixels = ClipImages::new(224).pixels(rgb, *height, *width).unwrap();
    let every_fourth = pixels
        .get(0)
        .slice(1, None, None, 4)
        .slice(2, None, None, 4);
    check("pixel values", &every_fourth, expected, 1e-6);
}

/// In parts of 255: the path from bytes rounds twice, after going across and after going down.
#[test]
fn the_differentiable_path_differs_by_rounding() {
    let clip = ClipImages::new(224);
    let std = Tensor::from_slice(&ddpo_clip::image::STD).view([1, 3, 1, 1]);
    let mut worst = 0.0_f64;
    for (height, width, rgb) in images().iter().take(16) {
        let pixels = clip.pixels(rgb, *height, *width).unwrap();
        let tensor = Tensor::from_slice(rgb)
            .view([1, *height as i64, *width as i64, 3])
            .permute([0, 3, 1, 2])
            .to_kind(Kind::Float)
            / 255.0;
        let smooth = clip.differentiable(&tensor);
        let difference = (smooth - pixels).abs() * &std * 255.0;
        worst = worst.max(difference.max().double_value(&[]));
    }
    println!("largest difference of the differentiable path: {worst:.3} of 255");
    assert!((0.25..=1.25).contains(&worst), "{worst}");
}

#[test]
fn the_differentiable_path_has_the_gradient_of_finite_differences() {
    let clip = ClipImages::new(6);
    let (height, width, rgb) = (11_i64, 9_i64, image(3, 11, 9));
    let x = (Tensor::from_slice(&rgb)
        .view([1, height, width, 3])
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Double)
        / 512.0
        + 0.25)
        .contiguous();
    let probe = Tensor::arange(108, (Kind::Double, Device::Cpu))
        .view([1, 3, 6, 6])
        .sin();
    let value = |x: &Tensor| (clip.differentiable(x) * &probe).sum(Kind::Double);
    let leaf = x.copy().set_requires_grad(true);
    value(&leaf).backward();
    for at in [[0, 0, 4, 4], [0, 1, 0, 8], [0, 2, 10, 3]] {
        let moved = |by: f64| {
            let other = x.copy();
            let _ = other
                .get(at[0])
                .get(at[1])
                .get(at[2])
                .get(at[3])
                .g_add_scalar_(by);
            value(&other).double_value(&[])
        };
        let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        let gradient = leaf.grad().double_value(&at);
        assert!(
            (slope - gradient).abs() < 1e-6,
            "{at:?}: {slope} {gradient}"
        );
    }
}

#[test]
fn the_tower_of_a_file_with_both_towers_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut weights = read_all(&golden().join("model.safetensors")).unwrap();
    weights.insert(
        "text_model.embeddings.token_embedding.weight".into(),
        Tensor::zeros([4, 4], (Kind::Float, Device::Cpu)),
    );
    weights.insert(
        "text_projection.weight".into(),
        Tensor::zeros([4, 4], (Kind::Float, Device::Cpu)),
    );
    weights.insert("logit_scale".into(), Tensor::from(1.0_f32));
    let path = folder.path().join("model.safetensors");
    save(&path, weights.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    let own = std::fs::read_to_string(golden().join("config.json")).unwrap();
    let both = format!("{{\"projection_dim\": 24, \"vision_config\": {own}}}");
    std::fs::write(folder.path().join("config.json"), both).unwrap();
    let pixels = Tensor::ones([1, 3, 32, 32], (Kind::Float, Device::Cpu));
    let [a, b] = [golden(), folder.path().to_owned()].map(|folder| {
        ClipVisionModel::open(&folder, Device::Cpu, Kind::Float)
            .unwrap()
            .forward(&pixels)
    });
    // Where a weight lies in its file decides which kernel reads it.
    check("both towers", &b, &a, 1e-6);
    weights.insert("stray".into(), Tensor::from(1.0_f32));
    save(&path, weights.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    let error = ClipVisionModel::open(folder.path(), Device::Cpu, Kind::Float)
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("`stray` is in the file"),
        "{error}"
    );
}

#[test]
fn a_new_tower_has_the_names_of_transformers() {
    let store = Store::random(3, Device::Cpu, Kind::Float);
    ClipVisionModel::new(&store.root(), &ClipVisionConfig::tiny()).unwrap();
    let made: Vec<String> = store.finish().unwrap().into_keys().collect();
    let theirs: Vec<String> = read_all(&golden().join("model.safetensors"))
        .unwrap()
        .into_keys()
        .collect();
    assert_eq!(made, theirs);
}

#[test]
fn an_impossible_configuration_is_refused_by_its_key() {
    for (json, needle) in [
        (
            r#"{"patch_size": 15}"#,
            "`patch_size` is 15, which does not divide `image_size` = 224",
        ),
        (
            r#"{"vision_config": {"num_attention_heads": 7}}"#,
            "`num_attention_heads` is 7",
        ),
        (r#"{"projection_dim": 0}"#, "`projection_dim` is 0"),
        (r#"{"layer_norm_eps": -1.0}"#, "`layer_norm_eps` is -1"),
        ("[]", "config.json"),
    ] {
        let error = ClipVisionConfig::from_json("config.json", json.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(needle), "{error}");
    }
    let both = br#"{"projection_dim": 768, "vision_config": {"hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14, "projection_dim": 512}}"#;
    let config = ClipVisionConfig::from_json("config.json", both).unwrap();
    assert_eq!(config, ClipVisionConfig::vit_l14());
}
