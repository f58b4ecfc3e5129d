//! Rewards with a gradient against the same rewards on bytes, and against finite differences.

use std::path::Path;

use ddpo_encoder::{AestheticModel, Rescaling};
use ddpo_guidance::{DifferentiableReward, ImageColourfulness};
use ddpo_reward::{Colourfulness, Images, Reward, prompts::numbered};
use ddpo_sched::{Seeds, Stream};
use tch::{Device, Kind, Tensor};

const SIDE: i64 = 16;

/// Random images of different contrast: as bytes, and as a tensor in [0, 1].
fn images(n: usize) -> (Images, Tensor) {
    let mut values = vec![0.0_f32; n * (3 * SIDE * SIDE) as usize];
    let key = Seeds::new(3).derive(Stream::Data, 0, 0);
    key.draws().fill_normal(&mut values);
    let of_image = values.len() / n;
    let bytes: Vec<u8> = (0..)
        .zip(&values)
        .map(|(i, value)| (120.0 + value * 10.0 * (1 + i / of_image) as f32) as u8)
        .collect();
    let side = SIDE as usize;
    let tensor = Tensor::from_slice(&bytes).view([n as i64, SIDE, SIDE, 3]);
    let tensor = tensor.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
    let images = Images::from_bytes(n, side, side, bytes).unwrap();
    (images, tensor.contiguous())
}

#[test]
fn colourfulness_of_a_tensor_is_that_of_the_bytes() {
    let (images, tensor) = images(6);
    let prompts = numbered([""; 6]);
    let expected = Colourfulness.score(&images, &prompts).unwrap();
    let found =
        Vec::<f32>::try_from(ImageColourfulness.scores(&tensor, &prompts).unwrap()).unwrap();
    for (found, expected) in found.iter().zip(&expected) {
        // A part in a hundred thousand: f32 against whole numbers.
        assert!(
            (found - expected).abs() < 1e-5 * expected,
            "{found}, expected {expected}"
        );
    }
    assert!(expected[5] > 2.0 * expected[0], "{expected:?}");
}

#[test]
fn a_grey_image_scores_nothing_and_has_no_gradient() {
    let grey = Tensor::full([2, 3, 4, 4], 0.3, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let scores = ImageColourfulness.scores(&grey, &[]).unwrap();
    assert_eq!(scores.abs().max().double_value(&[]), 0.0);
    scores.sum(Kind::Float).backward();
    assert_eq!(grey.grad().abs().max().double_value(&[]), 0.0);
}

/// The slope along the gradient, by finite differences in the same kind.
fn slope_along_the_gradient(reward: &dyn DifferentiableReward, images: &Tensor, h: f64) {
    let n = images.size()[0];
    let leaf = images.copy().set_requires_grad(true);
    let scores = reward
        .scores(&leaf, &numbered(vec![""; n as usize]))
        .unwrap();
    assert_eq!(scores.size(), [n]);
    scores.get(1).backward();
    let grad = leaf.grad();
    assert_eq!(
        grad.get(0).abs().max().double_value(&[]),
        0.0,
        "another image's"
    );
    let expected = grad.get(1).square().sum(Kind::Float).sqrt();
    let direction = grad.get(1) / &expected;
    let at = |h: f64| {
        let moved = (images.get(1) + &direction * h).unsqueeze(0);
        let score = reward.scores(&moved, &numbered([""])).unwrap();
        score.double_value(&[0])
    };
    let (found, expected) = ((at(h) - at(-h)) / (2.0 * h), expected.double_value(&[]));
    assert!(
        (found / expected - 1.0).abs() < 0.02,
        "{found}, expected {expected}"
    );
}

#[test]
fn gradients_are_those_of_finite_differences_and_stay_with_their_image() {
    let (_, images) = images(3);
    slope_along_the_gradient(&ImageColourfulness, &images, 0.01);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let (clip, head) = (
        golden.join("clip_vision"),
        golden.join("aesthetic/head.safetensors"),
    );
    let model = AestheticModel::open(&clip, &head, Rescaling::Once, Device::Cpu, Kind::Float);
    slope_along_the_gradient(&model.unwrap(), &images, 0.01);
}
