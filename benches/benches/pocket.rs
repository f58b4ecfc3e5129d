//! What an epoch spends its time on: the guided UNet, its gradient, the optimiser.

use std::time::Duration;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ddpo_benches::{Optimizers, Pocket};
use ddpo_train::Policy;

fn network(criterion: &mut Criterion) {
    let pocket = Pocket::load().expect("the shipped model");
    let mut group = criterion.benchmark_group("pocket unet");
    group.sampling_mode(SamplingMode::Flat);
    let pairs = pocket.pairs(64).expect("pairs of the shipped model");
    group.throughput(Throughput::Elements(64));
    group.bench_function("guided forward, batch 64", |bench| {
        bench.iter(|| pocket.predict(&pairs).expect("a prediction"));
    });
    let pairs = pocket.pairs(32).expect("pairs of the shipped model");
    group.throughput(Throughput::Elements(32));
    group.bench_function("guided accumulate, micro-batch 32", |bench| {
        bench.iter(|| pocket.accumulate(&pairs).expect("gradients"));
    });
    group.finish();
}

fn optimizer(criterion: &mut Criterion) {
    let pocket = Pocket::load().expect("the shipped model");
    let both = Optimizers::new(pocket.policy.params()).expect("optimisers");
    let both = std::cell::RefCell::new(both);
    let refill = || both.borrow_mut().refill();
    let mut group = criterion.benchmark_group("adamw, every weight of the pocket unet");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("fused", |bench| {
        let step = |()| both.borrow_mut().step_ours().expect("a step");
        bench.iter_batched(refill, step, BatchSize::PerIteration);
    });
    group.bench_function("tch nn::AdamW", |bench| {
        let step = |()| both.borrow_mut().step_peer();
        bench.iter_batched(refill, step, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(8));
    targets = network, optimizer
}
criterion_main!(benches);
