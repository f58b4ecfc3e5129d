//! Builds the artwork pack of the pocket world from the published emoji packages.
//!
//! `pocket-pack [--packages DIR] [--out DIR] [--contact DIR]`: reads the `.tgz` files of `npm pack`
//! from `--packages` and fetches with `npm pack` what is not there; writes one sheet per set to
//! `--out`, and to `--contact` the sheets on grey, for visual inspection.

mod packages;
mod raster;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ddpo_pocket::artwork::{
    ArtworkSet, DRAWING_SIZE, ListedEntity, cell_origin, cells_of, listed_entities, sheet_size,
};
use image::{ImageEncoder, Rgba, RgbaImage};

fn main() -> Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    let listed = listed_entities()?;
    std::fs::create_dir_all(&args.packages)?;
    for set in ArtworkSet::ALL {
        let sheet = build_sheet(set, &listed, &args.packages)
            .with_context(|| format!("set {}", set.name()))?;
        let path = args.out.join(format!("{}.webp", set.name()));
        write_webp(&sheet, &path).with_context(|| path.display().to_string())?;
        println!(
            "{} ({} kB)",
            path.display(),
            std::fs::metadata(&path)?.len() / 1000
        );
        if let Some(dir) = &args.contact {
            on_grey(&sheet).save(dir.join(format!("{}.png", set.name())))?;
        }
    }
    for (name, text) in ddpo_pocket::vocab::tokenizer_files() {
        let path = args.tokenizer.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

struct Args {
    packages: PathBuf,
    tokenizer: PathBuf,
    out: PathBuf,
    contact: Option<PathBuf>,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let crate_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut args = Self {
            packages: std::env::temp_dir().join("ddpo-artwork-packages"),
            out: crate_folder.join("assets/artwork"),
            tokenizer: crate_folder.join("assets/model/tokenizer"),
            contact: None,
        };
        while let Some(word) = words.next() {
            let value = words
                .next()
                .with_context(|| format!("{word} needs a folder"))?
                .into();
            match word.as_str() {
                "--packages" => args.packages = value,
                "--out" => args.out = value,
                "--tokenizer" => args.tokenizer = value,
                "--contact" => args.contact = Some(value),
                _ => bail!(
                    "unknown argument {word}; known: --packages, --out, --tokenizer, --contact"
                ),
            }
        }
        Ok(args)
    }
}

fn build_sheet(set: ArtworkSet, listed: &[ListedEntity], folder: &Path) -> Result<RgbaImage> {
    let source = packages::ArtworkSource::open(set, folder)?;
    let cells: Vec<_> = cells_of(set, listed).collect();
    let (width, height) = sheet_size(cells.len());
    let mut sheet = RgbaImage::new(width as u32, height as u32);
    for (cell, (entity, codepoint)) in cells.into_iter().enumerate() {
        let drawing = source
            .drawing(codepoint)
            .and_then(|artwork| raster::drawing(&artwork, DRAWING_SIZE as u32))
            .with_context(|| format!("{} ({codepoint})", listed[entity].name))?;
        let (left, top) = cell_origin(cell);
        image::imageops::replace(&mut sheet, &drawing, left as i64, top as i64);
    }
    Ok(sheet)
}

fn write_webp(sheet: &RgbaImage, path: &Path) -> Result<()> {
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let (width, height) = sheet.dimensions();
    let color = image::ExtendedColorType::Rgba8;
    let encoder = image::codecs::webp::WebPEncoder::new_lossless(file);
    Ok(encoder.write_image(sheet.as_raw(), width, height, color)?)
}

fn on_grey(sheet: &RgbaImage) -> RgbaImage {
    let mut grey = RgbaImage::from_pixel(sheet.width(), sheet.height(), Rgba([150, 150, 150, 255]));
    image::imageops::overlay(&mut grey, sheet, 0, 0);
    grey
}
