//! When weights are cast, and that no cast stands in for a weight that is trained.

use ddpo_torch::{Autocast, HeldCasts};
use tch::{Device, Kind, Tensor};

/// A leaf of ones that is no view: those are what torch caches.
fn weight() -> Tensor {
    Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true)
}

/// `x Wᵀ` for ones, in a region of its own: twice what every weight is.
fn product(weight: &Tensor) -> Tensor {
    let _region = Autocast::enter(Device::Cpu, Some(Kind::BFloat16)).unwrap();
    let x = Tensor::ones([1, 2], (Kind::Float, Device::Cpu));
    let y = x.linear(weight, None::<&Tensor>);
    assert_eq!(y.kind(), Kind::BFloat16);
    y
}

fn value(weight: &Tensor) -> f64 {
    tch::no_grad(|| product(weight).double_value(&[0, 0]))
}

fn set(weight: &Tensor, to: f64) {
    tch::no_grad(|| _ = weight.shallow_clone().fill_(to));
}

#[test]
fn a_region_by_itself_sees_every_change() {
    let weight = weight();
    assert_eq!(value(&weight), 2.0);
    set(&weight, 3.0);
    assert_eq!(value(&weight), 6.0);
}

#[test]
fn held_casts_outlive_their_regions_and_end_with_the_holder() {
    let weight = weight();
    let held = HeldCasts::begin().unwrap();
    assert_eq!(value(&weight), 2.0);
    set(&weight, 3.0);
    assert_eq!(value(&weight), 2.0, "cast once");
    {
        let _inner = HeldCasts::begin().unwrap();
        assert_eq!(value(&weight), 2.0);
    }
    assert_eq!(value(&weight), 2.0, "the inner one clears nothing");
    let x = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
    assert_eq!(x.matmul(&x).kind(), Kind::Float, "no region");
    drop(held);
    assert_eq!(value(&weight), 6.0);
}

#[test]
fn a_region_with_gradients_has_casts_of_its_own() {
    let weight = weight();
    let _held = HeldCasts::begin().unwrap();
    assert_eq!(value(&weight), 2.0);
    set(&weight, 3.0);
    let y = product(&weight);
    assert_eq!(y.double_value(&[0, 0]), 6.0);
    y.sum(Kind::Float).backward();
    assert_eq!(weight.grad(), Tensor::ones_like(&weight));
    // Nor is its cast, which has a history, what later regions see.
    set(&weight, 4.0);
    assert_eq!(value(&weight), 8.0);
}
