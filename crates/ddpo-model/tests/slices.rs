//! Images go through the autoencoder in slices. Model: tests/golden/sd_tiny.py.
//!
//! One test, in a process of its own: peaks of memory are those of the process.

use std::path::Path;

use ddpo_model::{Files, ImageCodec, StableDiffusion};
use ddpo_torch::PeakMemory;
use ddpo_train::{Encoder, Images};
use tch::{Device, Kind, Tensor};

const N: usize = 24;
const SIDE: usize = 128;

/// What `slice` changes: only rounding, as libtorch may choose other kernels for other batches.
const TOLERANCE: f64 = 1e-5;

fn images() -> ImageCodec {
    tch::set_num_threads(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sd_tiny/model");
    let files = Files::Folder(folder);
    let model = StableDiffusion::load(&files, Device::Cpu, Kind::Float).unwrap();
    model.images
}

/// What a call returns, and the bytes that it had at most beyond those before.
fn watched<T>(call: impl FnOnce() -> T) -> (T, u64) {
    let memory = PeakMemory::begin(Device::Cpu).unwrap();
    let result = call();
    (
        result,
        memory.peak().unwrap().saturating_sub(memory.before()),
    )
}

#[track_caller]
fn close(name: &str, actual: &Tensor, expected: &Tensor) {
    assert_eq!(actual.size(), expected.size(), "{name}");
    let difference = (actual - expected).abs().max() / expected.abs().max();
    let relative = difference.double_value(&[]);
    println!("{name}: relative difference {relative:.1e}");
    assert!(
        relative <= TOLERANCE,
        "{name}: relative difference {relative:.1e}"
    );
}

#[test]
fn slices_change_memory_and_nothing_else() {
    let mut decoder = images();
    let bytes: Vec<u8> = (0..N * SIDE * SIDE * 3)
        .map(|i| (i * 7919 % 251) as u8)
        .collect();
    let images = Images::from_bytes(N, SIDE, SIDE, bytes).unwrap();
    let mut encode = |slice: i64| {
        decoder.slice = slice;
        watched(|| decoder.encode(&images).unwrap())
    };
    // The first call also pays for what libtorch keeps; small before large, as freed memory may stay resident.
    encode(1);
    let (one, small) = encode(1);
    let (seven, _) = encode(7);
    let (whole, large) = encode(N as i64);
    println!("encoding: {small} bytes one by one, {large} at once");
    assert!(
        4 * small < large,
        "{small} bytes one by one, {large} at once"
    );
    for (name, sliced) in [("one by one", &one), ("seven at a time", &seven)] {
        close(&format!("mean, {name}"), &sliced.mean, &whole.mean);
        close(&format!("std, {name}"), &sliced.std, &whole.std);
    }

    let mut decode = |slice: i64| {
        decoder.slice = slice;
        let images = decoder.decode(&whole.mean).unwrap();
        Tensor::from_slice(images.bytes()).to_kind(Kind::Int)
    };
    let whole = decode(N as i64);
    for slice in [1, 7] {
        let difference = (decode(slice) - &whole).abs();
        assert!(
            difference.max().int64_value(&[]) <= 1,
            "a byte, by rounding"
        );
        let changed = difference.count_nonzero(None).int64_value(&[]);
        assert!(changed * 10_000 <= whole.numel() as i64, "{changed} bytes");
    }
}
