//! Pillow's bicubic resampling of bytes, bit for bit.
//!
//! Implemented here because no crate gives Pillow's bytes: `fast_image_resize` 6.1 has weights of 16 bits, which differs
//! by 1 or 2 of 255 on most of the test's images, and always starts horizontally, which differs by up to 18 where
//! Pillow 13 starts vertically; `image` 0.25 computes in f32 and does not round between the passes.
//! It follows Pillow 13's `src/libImaging/Resample.c`: weights in f64, rounded to 22 fractional bits, a horizontal and
//! a vertical pass, each rounded to bytes.

/// Fractional bits of a weight (Pillow's `PRECISION_BITS`).
const BITS: u32 = 22;
/// One half, added before truncation for rounding to nearest.
const HALF: i32 = 1 << (BITS - 1);
/// Support of the filter in pixels on either side, before it is widened.
const REACH: f64 = 2.0;

/// `rgb` of `from` (height, width), resized to `to`; all four at least 1, and as many bytes as that says.
pub(crate) fn bicubic(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    debug_assert_eq!(rgb.len(), from.0 * from.1 * 3);
    if is_across_first(from, to) {
        down(&across(rgb, from.1, to.1), to.1, from.0, to.0)
    } else {
        across(&down(rgb, from.1, from.0, to.0), from.1, to.1)
    }
}

/// Whether the horizontal pass comes first: unless the height shrinks by more than twice as many pixels as the width
/// (Pillow 13; older versions always start horizontally).
pub(crate) fn is_across_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let loss = |from: usize, to: usize| from as i64 - to as i64;
    let (height, width) = (loss(from.0, to.0), loss(from.1, to.1));
    height <= 0 || height <= 2 * width
}

/// Every row from `n_in` to `n_out` pixels.
fn across(rgb: &[u8], n_in: usize, n_out: usize) -> Vec<u8> {
    if n_in == n_out {
        return rgb.to_vec();
    }
    let taps = taps(n_in, n_out);
    let mut out = Vec::with_capacity(rgb.len() / n_in * n_out);
    for row in rgb.chunks_exact(n_in * 3) {
        for tap in &taps {
            let mut sums = [HALF; 3];
            let pixels = row[tap.first * 3..].chunks_exact(3);
            for (pixel, &weight) in pixels.zip(&tap.weights) {
                for (sum, &byte) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(byte) * weight;
                }
            }
            out.extend(sums.map(byte));
        }
    }
    out
}

/// `n_in` rows of `width` pixels to `n_out`.
fn down(rgb: &[u8], width: usize, n_in: usize, n_out: usize) -> Vec<u8> {
    if n_in == n_out {
        return rgb.to_vec();
    }
    let stride = width * 3;
    let mut out = Vec::with_capacity(n_out * stride);
    let mut sums = vec![0; stride];
    for tap in taps(n_in, n_out) {
        sums.fill(HALF);
        let rows = rgb[tap.first * stride..].chunks_exact(stride);
        for (row, &weight) in rows.zip(&tap.weights) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += i32::from(byte) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| byte(sum)));
    }
    out
}

fn byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// The weights of one output pixel.
struct Tap {
    /// The first input pixel.
    first: usize,
    /// Weights of it and the following pixels, with [`BITS`] fractional bits; they add up to one.
    weights: Vec<i32>,
}

/// The weights of each of `n_out` pixels along a side of `n_in`.
fn taps(n_in: usize, n_out: usize) -> Vec<Tap> {
    let scale = n_in as f64 / n_out as f64;
    // Antialias: the filter widens as it shrinks the image, and never narrows.
    let widening = scale.max(1.0);
    let reach = REACH * widening;
    let tap = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(n_in);
        let raw: Vec<f64> = (first..end)
            .map(|x| cubic((x as f64 - centre + 0.5) / widening))
            .collect();
        let sum: f64 = raw.iter().sum();
        let one = f64::from(1 << BITS);
        Tap {
            first,
            weights: raw.iter().map(|w| (w / sum * one).round() as i32).collect(),
        }
    };
    (0..n_out).map(tap).collect()
}

/// The cubic of a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < REACH {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
