//! Four images by the embedded model, on one sheet: `cargo run -p ddpo-pocket --example draw [-- FILE.png PROMPT…]`.
//!
//! The judge that measures, and has never seen an image of the model, says how well they show what was asked for. Exits
//! with 1 unless it names the thing of every second prompt, of a hundred that it knows.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use ddpo_model::{StableDiffusion, UnetPolicy};
use ddpo_pocket::content::PromptScorer;
use ddpo_pocket::judge::Role;
use ddpo_reward::{Images, prompts::numbered};
use ddpo_sched::{Ddim, Guided, KeyedNoise, LatentBatch, Seeds, sample};
use ddpo_train::Conditioner;
use image::{Rgb, RgbImage};
use tch::{Device, Kind};

const PROMPTS: [&str; 4] = ["a cat", "a dog", "a frog", "a butterfly"];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().map(PathBuf::from);
    let file = file.unwrap_or_else(|| std::env::temp_dir().join("pocket.png"));
    let mut asked: Vec<String> = arguments.collect();
    if asked.is_empty() {
        asked = PROMPTS.map(str::to_owned).to_vec();
    }
    let sd = StableDiffusion::load(&ddpo_pocket::files(), Device::Cpu, Kind::Float)?;
    let (shape, sampler) = (sd.latent_shape(), Ddim::new(&sd.schedule, 12, 1.0)?);
    let uncond = sd.prompts.encode(&[""])?;
    let net = Guided::new(UnetPolicy::frozen(sd.unet)?, uncond, 3.0);
    let prompts = numbered(asked);
    let sample_ids: Vec<u64> = (0..prompts.len() as u64).collect();
    let batch = LatentBatch {
        shape: &shape,
        cond: &sd.prompts.embed(&prompts)?,
        sample_ids: &sample_ids,
        log_prob: None,
    };
    let noise = KeyedNoise::new(Seeds::new(0), 0);
    let latents = sample(&net, &sampler, &batch, &noise, &mut |_| Ok(()))?;
    let images = sd.images.decode(&latents)?;
    sheet(&images).save(&file)?;
    println!("sheet: {}", file.display());

    let judge = PromptScorer::embedded(Role::HeldOut, Device::Cpu)?;
    let scores = judge.score(&images, &prompts)?;
    for (i, prompt) in prompts.iter().enumerate() {
        let (likely, first) = (100.0 * scores.log_prob[i].exp(), scores.top1[i]);
        println!(
            "{}: {likely:.0} % likely, named first: {first}",
            prompt.text
        );
    }
    Ok(ExitCode::from(u8::from(scores.top1_accuracy() < 0.5)))
}

/// All images in a row.
fn sheet(images: &Images) -> RgbImage {
    const GAP: usize = 4;
    let (width, height) = (images.width(), images.height());
    let whole = images.len() * (width + GAP) - GAP;
    let mut sheet = RgbImage::from_pixel(whole as u32, height as u32, Rgb([255; 3]));
    for (i, rgb) in images.iter_bytes().enumerate() {
        for (at, pixel) in rgb.chunks_exact(3).enumerate() {
            let (x, y) = (i * (width + GAP) + at % width, at / width);
            sheet.put_pixel(x as u32, y as u32, Rgb([pixel[0], pixel[1], pixel[2]]));
        }
    }
    sheet
}
