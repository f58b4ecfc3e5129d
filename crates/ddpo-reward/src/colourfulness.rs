//! Colourfulness after Hasler and Süsstrunk (2003).

use crate::{Images, Prompt, Result, Reward, RewardInfo, reward::check_batch};

/// How colourful an image is: 0 for grey, about 109 for "extremely colourful" photographs.
///
/// With the opponent axes `rg = R − G` and `yb = (R + G) / 2 − B` of every pixel (0-255), their population
/// standard deviations σ and means μ, the score is
/// `sqrt(σ_rg² + σ_yb²) + 0.3 sqrt(μ_rg² + μ_yb²)`.
/// The weights were fitted to human ratings (D. Hasler and S. Süsstrunk, *Measuring colourfulness in
/// natural images*, Human Vision and Electronic Imaging VIII, 2003, equation for M̂⁽³⁾).
#[derive(Debug, Clone, Copy, Default)]
pub struct Colourfulness;

impl Colourfulness {
    /// The value of `reward.kind`.
    pub const NAME: &'static str = "colourfulness";
}

impl Reward for Colourfulness {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        check_batch(images, prompts)?;
        Ok(images
            .iter_bytes()
            .map(|rgb| colourfulness(rgb) as f32)
            .collect())
    }

    fn info(&self) -> RewardInfo {
        RewardInfo {
            quantity: "colourfulness".to_owned(),
            unit: String::new(),
        }
    }
}

/// The score of one image of interleaved RGB bytes; 0 if there is no pixel.
pub fn colourfulness(rgb: &[u8]) -> f64 {
    let n = (rgb.len() / 3) as f64;
    if n == 0.0 {
        return 0.0;
    }
    // Sums of integers (yb doubled) are exact in i64, so that the order of pixels does not matter.
    let (mut rg, mut rg2, mut yb, mut yb2) = (0_i64, 0_i64, 0_i64, 0_i64);
    for pixel in rgb.chunks_exact(3) {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(i64::from);
        let (d, e) = (r - g, r + g - 2 * b);
        rg += d;
        rg2 += d * d;
        yb += e;
        yb2 += e * e;
    }
    let variance = |sum: i64, squares: i64| {
        // n² var, exact up to 2^127: no cancellation on nearly flat images.
        let n_pixels = (rgb.len() / 3) as i128;
        let scaled = n_pixels * i128::from(squares) - i128::from(sum) * i128::from(sum);
        scaled as f64 / (n * n)
    };
    let spread = (variance(rg, rg2) + variance(yb, yb2) / 4.0).sqrt();
    let offset = (rg as f64 / n).hypot(yb as f64 / (2.0 * n));
    spread + 0.3 * offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_has_no_colour_and_flat_red_only_an_offset() {
        let grey: Vec<u8> = (0..=255).flat_map(|v| [v; 3]).collect();
        assert_eq!(colourfulness(&grey), 0.0);
        assert_eq!(colourfulness(&[]), 0.0);
        let red = [255, 0, 0].repeat(100);
        assert!((colourfulness(&red) - 0.3 * 255_f64.hypot(127.5)).abs() < 1e-12);
    }

    #[test]
    fn a_single_odd_pixel_in_a_large_flat_image_counts() {
        let mut image = [10, 200, 30].repeat(1 << 20);
        let flat = colourfulness(&image);
        image[0] = 11;
        assert!(colourfulness(&image) > flat);
    }
}
