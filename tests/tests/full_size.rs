//! Stable Diffusion v1.4 at its own size against diffusers 0.42.1 and transformers 5.23.0, in f32 and bf16.
//!
//! Needs 5 GB of disk and 10 GB of memory, and so runs only where `DDPO_FULL_SIZE` names the folder that
//! `tests/full_size/generate.py` has written. In bf16 full images take minutes a stage where there are no bf16
//! units: they run where `generate.py --bf16` has been, small ones always.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use ddpo_clip::{ClipTextConfig, ClipTextModel};
use ddpo_model::{Files, Named, StableDiffusion, Unet, UnetConfig, UnetPolicy, Vae, VaeConfig};
use ddpo_sched::{
    Ddim, FixedNoise, Guided, KeyedNoise, LatentBatch, LogProb, ScheduleConfig, Seeds, sample,
};
use ddpo_torch::weights::read_all;
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

/// Largest difference in f32, relative to the largest value of the tensor.
const F32: f64 = 1e-4;
/// How much further from f32 ours in bf16 may be than diffusers' in bf16.
const BF16: f64 = 2.0;
/// Of f32, relative to the largest value. The log-probability of a step just drawn is that of its noise, whatever
/// the network says: there diffusers' own difference is nothing but rounding, and so is ours.
const ROUNDING: f64 = 1e-6;

/// What `generate.py --bf16` adds.
const IN_BF16: &str = "reference_bf16.safetensors";

/// One model in memory at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The folder, or nothing and a line that says what to do.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("DDPO_FULL_SIZE").map(PathBuf::from);
    if folder.is_none() {
        println!(
            "skipped: needs a model of full size; `python tests/full_size/generate.py DIR`, then DDPO_FULL_SIZE=DIR"
        );
    }
    folder
}

fn reference(folder: &Path) -> Tensors {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    tch::set_num_threads(threads as i32);
    let mut tensors = read_all(&folder.join("reference.safetensors")).unwrap();
    let in_bf16 = folder.join(IN_BF16);
    if in_bf16.is_file() {
        tensors.extend(read_all(&in_bf16).unwrap());
    }
    tensors
}

fn distances(a: &Tensor, b: &Tensor) -> [f64; 2] {
    let difference = a.to_kind(Kind::Double) - b.to_kind(Kind::Double);
    let largest = difference.abs().max().double_value(&[]);
    let mean_square = difference.square().mean(Kind::Double).double_value(&[]);
    [largest, mean_square.sqrt()]
}

/// Holds outputs to the reference's, printing how far they are from it.
struct Judge<'a> {
    reference: &'a Tensors,
    prefix: &'static str,
    kind: Kind,
    faults: Vec<String>,
    since: Instant,
}

impl<'a> Judge<'a> {
    fn new(reference: &'a Tensors, prefix: &'static str, kind: Kind) -> Self {
        Self {
            reference,
            prefix,
            kind,
            faults: Vec::new(),
            since: Instant::now(),
        }
    }

    fn given(&self, name: &str) -> &'a Tensor {
        &self.reference[&format!("{}{name}", self.prefix)]
    }

    fn check(&mut self, name: &str, actual: &Tensor) {
        let seconds = self.since.elapsed().as_secs_f64();
        let expected = self.given(name);
        assert_eq!(actual.size(), expected.size(), "{name}");
        let ours = distances(actual, expected);
        let largest = expected.abs().max().double_value(&[]);
        let theirs = match self.kind {
            Kind::Float => None,
            _ => Some(distances(self.given(&format!("bf16.{name}")), expected)),
        };
        let allowed = match theirs {
            None => [F32 * largest; 2],
            Some(theirs) => theirs.map(|is| (BF16 * is).max(ROUNDING * largest)),
        };
        let line = format!(
            "{:?} {}{name}: at most {:.2e} and in the root mean square {:.2e} from f32 of diffusers, relative to the \
             largest value; allowed {:.2e} and {:.2e}",
            self.kind,
            self.prefix,
            ours[0] / largest,
            ours[1] / largest,
            allowed[0] / largest,
            allowed[1] / largest
        );
        println!("{line}; {seconds:.1} s");
        if ours
            .iter()
            .zip(allowed)
            .any(|(&is, may)| is.is_nan() || is > may)
        {
            self.faults.push(line);
        }
        self.since = Instant::now();
    }
}

fn text_encoder(files: &Files, kind: Kind) -> ClipTextModel {
    let json = files.read("text_encoder/config.json").unwrap();
    let config = ClipTextConfig::from_json("text_encoder/config.json", &json).unwrap();
    let store = files.weights("text_encoder", Device::Cpu, kind, |_| Vec::new());
    let store = store.unwrap();
    let net = ClipTextModel::new(&store.root(), &config).unwrap();
    store.finish().unwrap();
    net
}

fn vae(files: &Files, kind: Kind) -> Vae {
    let config: VaeConfig = files.json("vae/config.json").unwrap();
    let store = files
        .weights("vae", Device::Cpu, kind, Vae::aliases)
        .unwrap();
    let net = Vae::new(&store.root(), &config).unwrap();
    store.finish().unwrap();
    net
}

fn unet(files: &Files, kind: Kind) -> Named<Unet> {
    let config: UnetConfig = files.json("unet/config.json").unwrap();
    let store = files.weights("unet", Device::Cpu, kind, |_| Vec::new());
    let store = store.unwrap();
    let net = Unet::new(&store.root(), &config).unwrap();
    let tensors = store.finish().unwrap();
    Named { net, tensors }
}

/// In the layout that `generate.py --bf16` has too; layers pass it on.
fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Every output of the reference, each stage from the reference's own inputs.
fn compare(folder: &Path, prefix: &'static str, kind: Kind) {
    let reference = reference(folder);
    let files = Files::Folder(folder.join("model"));
    let mut judge = Judge::new(&reference, prefix, kind);
    let given = |name: &str| reference[&format!("{prefix}{name}")].shallow_clone();
    let _guard = tch::no_grad_guard();

    // A processor without bf16 units takes ten times as long in torch's own layout, and so each reference has its own.
    let slow = prefix.is_empty() && kind != Kind::Float;
    let feature_maps = |name: &str| match given(name).to_kind(kind) {
        x if slow => channels_last(&x),
        x => x,
    };

    let text = text_encoder(&files, kind).forward(&given("text.ids"));
    judge.check("text.output", &text);

    let vae = vae(&files, kind);
    let posterior = vae.encoder.forward(&feature_maps("vae.images"));
    judge.check("vae.mean", &posterior.mean);
    judge.check("vae.log_var", &posterior.log_var);
    let decoded = vae.decoder.forward(&feature_maps("vae.latents"));
    judge.check("vae.decoded", &decoded);
    drop(vae);

    let unet = unet(&files, kind);
    let embeddings = given("text.output");
    let cond = embeddings.narrow(0, 0, 2).to_kind(kind);
    let x_t = given("unet.x_t").to_kind(kind);
    judge.since = Instant::now();
    let eps = unet.net.forward(&x_t, &given("unet.t"), &cond);
    judge.check("unet.output", &eps);
    if slow {
        // Two guided steps more would be twice the UNet again, and say nothing new.
        assert!(judge.faults.is_empty(), "{}", judge.faults.join("\n"));
        return;
    }

    let schedule: ScheduleConfig = files.json("scheduler/scheduler_config.json").unwrap();
    let (x_t, noise) = (given("trace.x_T"), given("trace.noise"));
    let sampler = Ddim::new(&schedule, noise.size()[0] as usize, 1.0).unwrap();
    let policy = UnetPolicy::frozen(unet).unwrap();
    let guided = Guided::new(policy, embeddings.narrow(0, 2, 1), 5.0);
    let source = FixedNoise::new(KeyedNoise::new(Seeds::new(0), 0))
        .with_latents(&x_t)
        .with_noise(&noise);
    let batch = LatentBatch {
        shape: &x_t.size()[1..],
        cond: &embeddings.narrow(0, 0, 1).into(),
        sample_ids: &[0],
        log_prob: Some(LogProb::Mean),
    };
    let (mut latents, mut log_probs) = (vec![x_t.copy()], Vec::new());
    let _x_0 = sample(&guided, &sampler, &batch, &source, &mut |record| {
        latents.push(record.x_prev.copy());
        log_probs.extend(record.log_prob.map(Tensor::copy));
        Ok(())
    })
    .unwrap();
    judge.check("trace.latents", &Tensor::stack(&latents, 0));
    judge.check("trace.log_probs", &Tensor::stack(&log_probs, 0));
    assert!(judge.faults.is_empty(), "{}", judge.faults.join("\n"));
}

#[test]
fn in_f32_every_output_is_that_of_diffusers() {
    let Some(folder) = folder() else { return };
    let _alone = ALONE.lock();
    compare(&folder, "", Kind::Float);
}

#[test]
fn in_bf16_every_output_is_as_close_to_f32_as_that_of_diffusers() {
    let Some(folder) = folder() else { return };
    let _alone = ALONE.lock();
    compare(&folder, "small.", Kind::Float);
    compare(&folder, "small.", Kind::BFloat16);
}

#[test]
fn in_bf16_full_images_are_as_close_to_f32_as_those_of_diffusers() {
    let Some(folder) = folder() else { return };
    if !folder.join(IN_BF16).is_file() {
        println!(
            "skipped: `python tests/full_size/generate.py DIR --bf16` writes what it compares with"
        );
        return;
    }
    let _alone = ALONE.lock();
    compare(&folder, "", Kind::BFloat16);
}

#[test]
fn prompts_get_the_ids_of_transformers() {
    let Some(folder) = folder() else { return };
    let _alone = ALONE.lock();
    let given = reference(&folder);
    let files = Files::Folder(folder.join("model"));
    let whole = StableDiffusion::load(&files, Device::Cpu, Kind::Float).unwrap();
    let texts = ["a cat", "two dogs on the moon", ""];
    let ids = whole.prompts.tokenizer.encode(&texts).unwrap();
    assert_eq!(ids, given["text.ids"]);
}
