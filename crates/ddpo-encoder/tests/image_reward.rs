//! BLIP's image tower and text encoder, and ImageReward's scalar. Files: tests/golden/image_reward.py.
mod shared;

use ddpo_encoder::{BlipVisionConfig, Error, ImageReward, ImageRewardConfig, TextTokenizer};
use ddpo_torch::Store;
use ddpo_torch::weights::{read_all, save};
use serde::Deserialize;
use shared::{check, golden, image, size};
use tch::{Device, Kind, Tensor};

fn config() -> ImageRewardConfig {
    ImageRewardConfig::of_folder(&golden("image_reward")).unwrap()
}

fn model() -> ImageReward {
    let folder = golden("image_reward");
    let weights = folder.join("ImageReward.safetensors");
    ImageReward::open(&weights, &folder, &config(), Device::Cpu, Kind::Float).unwrap()
}

/// The folder's file is what makes the tests fit; here once in figures.
#[test]
fn the_sizes_are_those_of_the_folder_s_file() {
    let expected = ImageRewardConfig {
        vision: BlipVisionConfig {
            width: 32,
            inner: 48,
            n_layers: 2,
            n_heads: 4,
            image_size: 32,
            patch_size: 8,
        },
        vocab_size: 110,
        max_positions: 40,
        width: 24,
        inner: 40,
        n_layers: 2,
        n_heads: 4,
    };
    assert_eq!(config(), expected);
}

#[test]
fn every_layer_of_both_encoders_is_that_of_transformers() {
    let expected = read_all(&golden("image_reward/states.safetensors")).unwrap();
    let (vision, text) = model().states(&expected["ids"], &expected["pixels"]);
    assert_eq!((vision.len(), text.len()), (4, 3));
    for (name, states) in [("vision", vision), ("text", text)] {
        for (i, state) in states.iter().enumerate() {
            let name = format!("{name}_{i}");
            // The last layer norm divides what is left of a sum that cancels: transformers itself differs by 1.0e-5
            // there between two processors.
            let tolerance = if name == "text_2" { 2e-5 } else { 1e-5 };
            check(&name, state, &expected[&name], tolerance);
        }
    }
}

#[derive(Deserialize)]
struct Row {
    prompt: String,
    #[serde(rename = "picture")]
    image: u32,
    score: f64,
}

#[test]
fn scores_are_those_of_the_reference() {
    let rows = std::fs::read(golden("image_reward/scores.json")).unwrap();
    let rows: Vec<Row> = serde_json::from_slice(&rows).unwrap();
    assert_eq!(rows.len(), 12);
    let model = model();
    let mut worst = 0.0_f64;
    for row in rows {
        let (height, width) = size(row.image);
        let rgb = image(row.image, height, width);
        let score = model.score(&row.prompt, &rgb, height as usize, width as usize);
        let difference = (f64::from(score.unwrap()) - row.score).abs();
        assert!(difference <= 1e-4, "{:?}: {difference:.1e}", row.prompt);
        worst = worst.max(difference);
    }
    println!("12 scores, largest difference {worst:.1e}");
}

/// An image of bytes that needs no resizing is the same on both paths.
#[test]
fn the_differentiable_path_gives_the_score_and_a_gradient() {
    let (model, rgb) = (model(), image(3, 32, 32));
    let images = Tensor::from_slice(&rgb)
        .view([1, 32, 32, 3])
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Float)
        / 255.0;
    let leaf = images.contiguous().set_requires_grad(true);
    let score = model.differentiable("a zebra", &leaf).unwrap();
    let bytes = f64::from(model.score("a zebra", &rgb, 32, 32).unwrap());
    assert!((score.double_value(&[0]) - bytes).abs() < 1e-4);
    score.sum(Kind::Float).backward();
    let gradient = leaf.grad();
    let step = 0.004 / gradient.norm().double_value(&[]);
    let moved = |by: f64| {
        let images = leaf.detach() + &gradient * by;
        tch::no_grad(|| model.differentiable("a zebra", &images))
            .unwrap()
            .double_value(&[0])
    };
    let slope = (moved(step) - moved(-step)) / (2.0 * step);
    let squared = gradient.square().sum(Kind::Double).double_value(&[]);
    assert!((slope / squared - 1.0).abs() < 0.02, "{slope} {squared}");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ImageReward.pt");
    let open = || {
        let there = folder.path();
        ImageReward::open(&path, there, &config(), Device::Cpu, Kind::Float)
    };
    assert!(matches!(open(), Err(Error::NoTokenizer { .. })));
    std::fs::copy(
        golden("image_reward/vocab.txt"),
        folder.path().join("vocab.txt"),
    )
    .unwrap();
    let error = open().err().unwrap().to_string();
    assert!(error.contains("ImageReward.pt"), "{error}");
    let mut weights = read_all(&golden("image_reward/ImageReward.safetensors")).unwrap();
    weights.remove("blip.text_encoder.encoder.layer.1.crossattention.self.key.bias");
    weights.insert("blip.text_decoder.stray".into(), Tensor::from(1.0_f32));
    save(&path, weights.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    let error = open().err().unwrap().to_string();
    for needle in [
        "layer.1.crossattention.self.key.bias` is missing",
        "`blip.text_decoder.stray` is in the file",
    ] {
        assert!(error.contains(needle), "{needle} is not in: {error}");
    }
    let store = Store::random(1, Device::Cpu, Kind::Float);
    let tokenizer = TextTokenizer::open(folder.path(), 40).unwrap();
    let small = ImageRewardConfig {
        vocab_size: 7,
        ..config()
    };
    let error = ImageReward::new(&store.root(), &small, tokenizer)
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("there are 7 embeddings"),
        "{error}"
    );
}
