//! From a drawing of any form to straight RGBA pixels, trimmed and centred.

use anyhow::{Context, Result, ensure};
use image::{ImageFormat, Rgba, Rgba32FImage, RgbaImage, imageops};
use resvg::{tiny_skia, usvg};

use crate::packages::Artwork;

/// Side of the first rendering of an SVG, from which the drawing is scaled down.
const RENDER_SIZE: u32 = 512;
/// Alpha below which a pixel does not count as part of the drawing when its borders are sought.
const VISIBLE: f32 = 8.0 / 255.0;

/// Renders `artwork`, trims it, and fits its longer side to a square of `size` pixels.
pub fn drawing(artwork: &Artwork, size: u32) -> Result<RgbaImage> {
    let large = match artwork {
        Artwork::Svg(text) => render_svg(text)?,
        Artwork::Webp(bytes) => decode_webp(bytes)?,
    };
    let square = trim_to_square(&large).context("nothing is visible")?;
    Ok(straight(&imageops::resize(
        &square,
        size,
        size,
        imageops::FilterType::CatmullRom,
    )))
}

/// Premultiplied pixels, 0 to 1.
fn render_svg(text: &str) -> Result<Rgba32FImage> {
    let tree = usvg::Tree::from_str(text, &usvg::Options::default())?;
    let scale = RENDER_SIZE as f32 / tree.size().width().max(tree.size().height());
    let mut pixmap = tiny_skia::Pixmap::new(RENDER_SIZE, RENDER_SIZE).context("no memory")?;
    let transform = tiny_skia::Transform::from_scale(scale, scale);
    resvg::render(&tree, transform, &mut pixmap.as_mut());
    let mut image = Rgba32FImage::new(RENDER_SIZE, RENDER_SIZE);
    for (to, from) in image.pixels_mut().zip(pixmap.pixels()) {
        let bytes = [from.red(), from.green(), from.blue(), from.alpha()];
        *to = Rgba(bytes.map(|byte| f32::from(byte) / 255.0));
    }
    Ok(image)
}

/// Premultiplied pixels, 0 to 1.
fn decode_webp(bytes: &[u8]) -> Result<Rgba32FImage> {
    let mut image = image::load_from_memory_with_format(bytes, ImageFormat::WebP)?.into_rgba32f();
    for Rgba([r, g, b, a]) in image.pixels_mut() {
        (*r, *g, *b) = (*r * *a, *g * *a, *b * *a);
    }
    Ok(image)
}

/// The smallest square around the visible part, with that part in its middle.
fn trim_to_square(image: &Rgba32FImage) -> Result<Rgba32FImage> {
    let visible: Vec<(u32, u32)> = image
        .enumerate_pixels()
        .filter(|(_, _, pixel)| pixel[3] > VISIBLE)
        .map(|(x, y, _)| (x, y))
        .collect();
    ensure!(!visible.is_empty(), "every pixel is transparent");
    let bounds = |of: fn(&(u32, u32)) -> u32| {
        let low = visible.iter().map(of).min().unwrap_or(0);
        (low, visible.iter().map(of).max().unwrap_or(0) + 1 - low)
    };
    let ((left, width), (top, height)) = (bounds(|at| at.0), bounds(|at| at.1));
    let side = width.max(height);
    let mut square = Rgba32FImage::new(side, side);
    let part = imageops::crop_imm(image, left, top, width, height).to_image();
    let (x, y) = (
        i64::from((side - width) / 2),
        i64::from((side - height) / 2),
    );
    imageops::replace(&mut square, &part, x, y);
    Ok(square)
}

fn straight(image: &Rgba32FImage) -> RgbaImage {
    let mut bytes = RgbaImage::new(image.width(), image.height());
    for (to, from) in bytes.pixels_mut().zip(image.pixels()) {
        let alpha = from[3].clamp(0.0, 1.0);
        let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
        if byte(alpha) > 0 {
            let colour =
                [from[0], from[1], from[2]].map(|premultiplied| byte(premultiplied / alpha));
            *to = Rgba([colour[0], colour[1], colour[2], byte(alpha)]);
        }
    }
    bytes
}
