//! The aesthetic score against torch and transformers. Files: tests/golden/aesthetic.py, and of LAION's own head
//! tests/golden/_laion_head.py.
mod shared;

use std::path::Path;

use ddpo_clip::ClipVisionModel;
use ddpo_encoder::{AestheticModel, AffineHead, Error, Rescaling};
use ddpo_torch::Store;
use ddpo_torch::weights::{read_all, save};
use shared::{check, golden, image, size};
use tch::{Device, Kind, Tensor};

fn model(rescaling: Rescaling) -> AestheticModel {
    let (clip, head) = (golden("clip_vision"), golden("aesthetic/head.safetensors"));
    AestheticModel::open(&clip, &head, rescaling, Device::Cpu, Kind::Float).unwrap()
}

#[test]
fn the_collapsed_head_is_the_five_layers() {
    let store = Store::open(
        &golden("aesthetic/head.safetensors"),
        Device::Cpu,
        Kind::Float,
    )
    .unwrap();
    let head = AffineHead::new(&store.root(), 24);
    store.finish().unwrap();
    let expected = read_all(&golden("aesthetic/scores.safetensors")).unwrap();
    check(
        "head",
        &head.forward(&expected["embeddings"]),
        &expected["scores"],
        1e-5,
    );
}

#[test]
fn images_have_the_scores_of_transformers_and_torch() {
    let expected = read_all(&golden("aesthetic/scores.safetensors")).unwrap();
    for (name, rescaling) in [("pictures", Rescaling::Once), ("twice", Rescaling::Twice)] {
        let model = model(rescaling);
        let scores: Vec<f32> = (0..8)
            .map(|i| {
                let (height, width) = size(i);
                let rgb = image(i, height, width);
                model.score(&rgb, height as usize, width as usize).unwrap()
            })
            .collect();
        check(name, &Tensor::from_slice(&scores), &expected[name], 1e-5);
    }
}

/// An image of bytes that needs no resizing is the same on both paths.
#[test]
fn the_differentiable_path_gives_the_score_and_its_gradient() {
    let rgb = image(3, 32, 32);
    // What the tower sees moves by the same either way.
    for (rescaling, by) in [(Rescaling::Once, 0.004), (Rescaling::Twice, 0.004 * 255.0)] {
        let model = model(rescaling);
        let images = Tensor::from_slice(&rgb)
            .view([1, 32, 32, 3])
            .permute([0, 3, 1, 2])
            .to_kind(Kind::Float)
            / 255.0;
        let leaf = images.contiguous().set_requires_grad(true);
        let score = model.differentiable(&leaf);
        let bytes = f64::from(model.score(&rgb, 32, 32).unwrap());
        let difference = (score.double_value(&[0]) - bytes).abs();
        assert!(difference < 1e-5, "{rescaling:?}: {difference}");
        score.sum(Kind::Float).backward();
        let gradient = leaf.grad();
        // Along the gradient the score rises as the gradient says.
        let step = by / gradient.norm().double_value(&[]);
        let moved = |by: f64| {
            let images = leaf.detach() + &gradient * by;
            tch::no_grad(|| model.differentiable(&images)).double_value(&[0])
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        let squared = gradient.square().sum(Kind::Double).double_value(&[]);
        assert!(
            (slope / squared - 1.0).abs() < 0.02,
            "{rescaling:?}: slope {slope}, gradient {squared}"
        );
    }
}

#[test]
fn a_head_of_another_width_is_refused() {
    let tower = ClipVisionModel::open(&golden("clip_vision"), Device::Cpu, Kind::Float).unwrap();
    let store = Store::random(1, Device::Cpu, Kind::Float);
    let head = AffineHead::new(&store.root(), 768);
    let error = AestheticModel::new(tower, head, Rescaling::Once)
        .err()
        .unwrap();
    assert!(matches!(error, Error::Mismatch { .. }));
    assert_eq!(
        error.to_string(),
        "the image tower gives 24 numbers, the aesthetic head reads 768"
    );
}

/// The fault is told, not met: a head without some layer, or with another shape.
#[test]
fn a_head_that_lacks_a_layer_is_refused_by_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    let mut weights = read_all(&golden("aesthetic/head.safetensors")).unwrap();
    weights.remove("layers.4.weight");
    weights.insert(
        "layers.6.bias".into(),
        Tensor::ones([3], (Kind::Float, Device::Cpu)),
    );
    save(&path, weights.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    let open = AestheticModel::open(
        &golden("clip_vision"),
        &path,
        Rescaling::Once,
        Device::Cpu,
        Kind::Float,
    );
    let error = open.err().unwrap().to_string();
    for needle in [
        "`layers.4.weight` is missing",
        "`layers.6.bias` has shape [3], expected [16]",
    ] {
        assert!(error.contains(needle), "{needle} is not in: {error}");
    }
}

#[test]
fn bytes_that_are_not_one_image_are_refused() {
    let model = model(Rescaling::Once);
    for (n, height, width) in [(0, 4, 4), (47, 4, 4), (96, 4, 4), (0, 0, 4)] {
        assert!(model.score(&vec![0; n], height, width).is_err(), "{n}");
    }
}

/// The published file itself, by the safe reader: `|w|` and b as its README elsewhere says, and torch's scores.
#[test]
fn laion_s_own_head_collapses_and_scores_as_in_torch() {
    let Some(file) = std::env::var_os("DDPO_LAION_HEAD") else {
        eprintln!("skipped: DDPO_LAION_HEAD names no sac+logos+ava1-l14-linearMSE.pth");
        return;
    };
    let store = Store::open(Path::new(&file), Device::Cpu, Kind::Float).unwrap();
    let head = AffineHead::new(&store.root(), 768);
    assert_eq!(store.finish().unwrap().len(), 10);
    let length = head.weight.norm().double_value(&[]);
    println!("|w| = {length:.5}, b = {:.5}", head.bias);
    assert!((length - 17.99562).abs() < 1e-3, "{length}");
    assert!((head.bias - 5.23665).abs() < 1e-3, "{}", head.bias);

    let counted = Tensor::arange_start(1, 1000 * 768 + 1, (Kind::Int64, Device::Cpu));
    let hashed: Tensor = (counted * 2_654_435_761_i64).remainder(1_i64 << 32);
    let uniform = hashed.to_kind(Kind::Double) / 2_f64.powi(32) - 0.5;
    let embeddings = uniform.to_kind(Kind::Float).view([1000, 768]);
    let lengths = embeddings.norm_scalaropt_dim(2.0, [-1_i64].as_slice(), true);
    let scores = head.forward(&(embeddings / lengths));
    let theirs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/laion_scores.safetensors");
    let theirs = &read_all(&theirs).unwrap()["scores"];
    let worst = (&scores - theirs).abs().max().double_value(&[]);
    println!(
        "1,000 embeddings: scores {:.3} to {:.3}, largest difference {worst:.1e}",
        theirs.min().double_value(&[]),
        theirs.max().double_value(&[])
    );
    check("LAION's head", &scores, theirs, 1e-5);
}
