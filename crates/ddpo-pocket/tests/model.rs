//! The shipped model, and the parts of its training, held to what they claim.

use std::path::Path;

use ddpo_model::{StableDiffusion, UnetPolicy, Vae};
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::pretrain::batch::compose;
use ddpo_pocket::pretrain::codec::PatchCodec;
use ddpo_pocket::pretrain::train_state::{StepArgs, TrainState};
use ddpo_pocket::scene::{Composer, Mixture};
use ddpo_pocket::shape;
use ddpo_sched::{Ddim, FixedNoise, Guided, KeyedNoise, LatentBatch, Seeds, sample};
use ddpo_torch::{Store, weights};
use tch::{Device, Kind, Tensor};

fn max_abs(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// `tests/golden/pocket.py`: the same model, latents and noise in Python's pipeline.
#[test]
fn shipped_model_gives_the_image_that_diffusers_gives() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/pocket");
    let golden = weights::read_all(&folder.join("pipeline.safetensors")).unwrap();
    let prompts = [
        "a cat",
        "a flat picture of a lion on a blue striped background",
    ];
    let model = StableDiffusion::load(&ddpo_pocket::files(), Device::Cpu, Kind::Float).unwrap();
    let shape = model.latent_shape();
    let cond = model.prompts.encode(&prompts).unwrap().into();
    let sampler = Ddim::new(&model.schedule, 10, 1.0).unwrap();
    let uncond = model.prompts.encode(&[""]).unwrap();
    let net = Guided::new(UnetPolicy::full(model.unet).unwrap(), uncond, 3.0);
    let noise = FixedNoise::new(KeyedNoise::new(Seeds::new(0), 0))
        .with_latents(&golden["latents"])
        .with_noise(&golden["noise"]);
    let batch = LatentBatch {
        shape: &shape,
        cond: &cond,
        sample_ids: &[0, 1],
        log_prob: None,
    };
    let latents = sample(&net, &sampler, &batch, &noise, &mut |_| Ok(())).unwrap();
    let images = model.images.decode(&latents).unwrap();
    let ours = Tensor::from_slice(images.bytes()).view(golden["images"].size().as_slice());
    let difference = max_abs(
        &ours.to_kind(Kind::Int),
        &golden["images"].to_kind(Kind::Int),
    );
    assert!(
        difference <= 2.0,
        "largest difference of a channel: {difference} of 255"
    );
    let spread = golden["images"]
        .to_kind(Kind::Float)
        .std(true)
        .double_value(&[]);
    assert!(
        spread > 5.0,
        "the images show nothing (standard deviation {spread})"
    );
}

#[test]
fn the_encoder_that_is_set_computes_principal_components() {
    let pack = Pack::embedded().unwrap();
    let composer = Composer::new(&pack, Mixture::singles()).unwrap();
    let images = compose(&composer, 5, 0..200).images;
    let config = shape::vae();
    let codec = PatchCodec::fit(&images, &config);
    let latents = codec.encode(&images);
    let mean_square = latents.square().mean(Kind::Double).double_value(&[]);
    assert!(
        (mean_square - 1.0).abs() < 0.01,
        "mean square of the latents: {mean_square}"
    );

    let store = Store::random(0, Device::Cpu, Kind::Float);
    let vae = Vae::new(&store.root(), &config).unwrap();
    let mut tensors = store.finish().unwrap();
    codec.write(&mut tensors, &config);
    let some = images.narrow(0, 0, 8);
    let posterior = tch::no_grad(|| vae.encoder.forward(&some));
    let expected = codec.encode(&some);
    let error = max_abs(&posterior.mean, &expected) / expected.abs().max().double_value(&[]);
    assert!(error < 1e-3, "largest relative difference: {error}");
}

#[test]
fn training_that_goes_on_from_a_checkpoint_takes_the_same_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let args = StepArgs {
        lr: 1e-2,
        beta2: 0.99,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        ema: 0.9,
    };
    let model = |seed| {
        let store = Store::random(seed, Device::Cpu, Kind::Float);
        let layer = ddpo_torch::nn::Linear::new(&store.root(), 3, 2);
        (TrainState::new(&store.finish().unwrap()), layer)
    };
    let step = |train_state: &mut TrainState, layer: &ddpo_torch::nn::Linear, x: f64| {
        layer
            .forward(&Tensor::full([4, 3], x, (Kind::Float, Device::Cpu)))
            .square()
            .sum(Kind::Float)
            .backward();
        train_state.step(args).unwrap();
    };
    let (mut straight, layer) = model(1);
    step(&mut straight, &layer, 0.5);
    straight.save(&path).unwrap();
    step(&mut straight, &layer, -0.3);

    let (mut resumed, other) = model(2);
    resumed.load(&path).unwrap();
    step(&mut resumed, &other, -0.3);
    assert_eq!(layer.weight, other.weight);
    assert_eq!(straight.step, resumed.step);
    let averages = straight.average().zip(resumed.average());
    averages.for_each(|((name, a), (_, b))| assert_eq!(a, b, "average of {name}"));

    // Weights alone are not enough: fresh moments take another step.
    let (mut fresh, third) = model(3);
    resumed.load(&path).unwrap();
    tch::no_grad(|| {
        third.weight.shallow_clone().copy_(&other.weight);
        third
            .bias
            .as_ref()
            .unwrap()
            .shallow_clone()
            .copy_(other.bias.as_ref().unwrap());
    });
    step(&mut fresh, &third, -0.3);
    assert_ne!(layer.weight, third.weight);
}
