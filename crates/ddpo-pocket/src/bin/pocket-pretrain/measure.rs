//! The stage that evaluates the exported model and draws its sheet of samples.

use anyhow::{Context, Result};
use ddpo_model::{Files, StableDiffusion};
use ddpo_pocket::artwork::Pack;
use ddpo_pocket::judge::{Judge, Role};
use ddpo_pocket::measure::{MeasurePlan, draw, judge};
use tch::{Device, Kind, Tensor};

use crate::args::Args;
use crate::files::assets;

/// Side of an image on the sheet, in pixels.
const SIDE: u32 = 64;

pub fn measure(args: &Args) -> Result<()> {
    let assets = assets(args)?;
    let files = Files::Folder(assets.join("model"));
    let pack = Pack::embedded()?;
    let plan = MeasurePlan {
        guidance_scale: args.guidance,
        ..MeasurePlan::default()
    };
    let (samples, animals) = draw(
        StableDiffusion::load(&files, Device::Cpu, Kind::Float)?,
        plan,
    )?;
    sheet(&samples)?.save(assets.join("model").join("samples.png"))?;
    let held_out = Judge::open(&assets.join("judges"), Role::HeldOut, Device::Cpu)?;
    let vae = StableDiffusion::load(&files, Device::Cpu, Kind::Float)?
        .images
        .vae
        .net;
    let measured = judge((&samples, &animals), plan, &vae, &held_out, &pack)?;
    let json = serde_json::to_string_pretty(&measured)? + "\n";
    eprint!("{json}");
    std::fs::write(assets.join("model").join("measured.json"), json)?;
    Ok(())
}

/// A column per animal, a row per sample.
fn sheet(samples: &Tensor) -> Result<image::RgbImage> {
    let n = samples.size()[0] as u32;
    let columns = 45;
    let mut sheet = image::RgbImage::new(columns * SIDE, n.div_ceil(columns) * SIDE);
    let bytes = ((samples + 1.0) * 127.5)
        .round()
        .to_kind(Kind::Uint8)
        .permute([0, 2, 3, 1])
        .contiguous();
    let mut pixels = vec![0; bytes.numel()];
    bytes.f_copy_data_u8(&mut pixels, bytes.numel())?;
    for (i, image) in pixels.chunks_exact((SIDE * SIDE * 3) as usize).enumerate() {
        let image = image::RgbImage::from_raw(SIDE, SIDE, image.to_vec())
            .context("an image of 64×64 pixels")?;
        let (x, y) = (i as u32 % columns * SIDE, i as u32 / columns * SIDE);
        image::imageops::replace(&mut sheet, &image, i64::from(x), i64::from(y));
    }
    Ok(sheet)
}
