//! The parts of a run other than networks: tables, one denoising step, advantages, rewards, scenes.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ddpo_benches::{Pocket, animals, scenes};
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::scene::{Composer, Mixture, SCENE_BYTES};
use ddpo_reward::{Colourfulness, JpegCompressibility, Reward};
use ddpo_rl::{Baseline, PromptStats};
use ddpo_sched::{Ddim, LogProb, NoiseSchedule, Sampler, ScheduleConfig};

/// As many images and latents as an epoch of the preset `pocket` has.
const BATCH: usize = 64;

fn tables(criterion: &mut Criterion) {
    let config = ScheduleConfig::sd_v1_4();
    criterion.bench_function("noise schedule, 1000 timesteps", |bench| {
        bench.iter(|| NoiseSchedule::new(black_box(&config)).expect("a valid schedule"));
    });
    criterion.bench_function("ddim table, 50 steps", |bench| {
        bench.iter(|| Ddim::new(black_box(&config), 50, 1.0).expect("a valid sampler"));
    });
}

fn step(criterion: &mut Criterion) {
    let pocket = Pocket::load().expect("the shipped model");
    let pairs = pocket.pairs(BATCH).expect("pairs of the shipped model");
    let mut group = criterion.benchmark_group("denoising step");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("transition and log_prob, 64 latents", |bench| {
        bench.iter(|| {
            let step = pocket.sampler.transition(&pairs.at, &pairs.x_t, &pairs.eps);
            let step = step.expect("shapes that agree");
            step.log_prob(&pairs.x_prev, LogProb::Mean)
                .expect("a step with noise")
        });
    });
    group.finish();
}

fn advantages(criterion: &mut Criterion) {
    let prompts = animals(256);
    let rewards: Vec<f32> = (0..256).map(|i| (i % 17) as f32).collect();
    let baseline = Baseline::PerPrompt {
        buffer_size: 32,
        min_count: 16,
    };
    let mut stats = PromptStats::new(baseline);
    let mut group = criterion.benchmark_group("advantages");
    group.throughput(Throughput::Elements(256));
    group.bench_function("per prompt, 256 samples of 45 prompts", |bench| {
        bench.iter(|| stats.update(&prompts, &rewards).expect("as many of each"));
    });
    group.finish();
}

fn rewards(criterion: &mut Criterion) {
    let (images, prompts) = (scenes(BATCH).expect("the shipped artwork"), animals(BATCH));
    let mut group = criterion.benchmark_group("rewards");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut jpeg = JpegCompressibility::new().expect("the codec");
    group.bench_function("jpeg, 64 images", |bench| {
        bench.iter(|| jpeg.score(&images, &prompts).expect("scores"));
    });
    group.bench_function("colourfulness, 64 images", |bench| {
        bench.iter(|| Colourfulness.score(&images, &prompts).expect("scores"));
    });
    group.finish();
}

fn composition(criterion: &mut Criterion) {
    let pack = Pack::embedded().expect("the shipped artwork");
    let composer =
        Composer::new(&pack, Mixture::singles()).expect("the mixture of single entities");
    let mut pixels = Box::new([0; SCENE_BYTES]);
    let mut index = 0;
    let mut group = criterion.benchmark_group("composition");
    group.throughput(Throughput::Elements(1));
    group.bench_function("scene with caption", |bench| {
        bench.iter(|| {
            index += 1;
            composer.compose(0, index, &mut pixels)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = tables, step, advantages, rewards, composition
}
criterion_main!(benches);
