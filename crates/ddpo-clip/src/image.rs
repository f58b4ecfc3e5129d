//! Image preprocessing: resize of the shorter side, centre crop, normalisation.
//!
//! There are two paths. The one from bytes equals the reference processors pixel by pixel: Pillow's antialiased bicubic
//! filter with rounding to bytes. The other is differentiable, for guidance by a score: libtorch's own antialiased
//! bicubic filter, which does not round.

use std::num::NonZero;

use tch::Tensor;

use crate::resample::{bicubic, is_across_first};
use crate::{Error, Result};

/// Means of red, green and blue in [0, 1] over CLIP's training data (transformers 5.23.0, `OPENAI_CLIP_MEAN`).
pub const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// Standard deviations of the same (`OPENAI_CLIP_STD`).
pub const STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// Position of the centre crop if the longer side has an odd number of surplus pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crop {
    /// Half of the surplus, rounded down: transformers.
    #[default]
    Floor,
    /// Half of the surplus, rounded to even: torchvision's `CenterCrop`, which ImageReward uses.
    HalfEven,
}

/// The preprocessing of a tower of one input size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipImages {
    /// Pixels along a side of the tower's input.
    pub size: NonZero<u32>,
    /// Position of the crop.
    pub crop: Crop,
}

impl ClipImages {
    /// As transformers' `CLIPImageProcessor`, for a tower of `size` pixels.
    ///
    /// # Panics
    /// If `size` is not positive.
    pub fn new(size: i64) -> Self {
        let size = u32::try_from(size).ok().and_then(NonZero::new);
        Self {
            size: size.expect("a size above zero"),
            crop: Crop::Floor,
        }
    }

    /// The square of an image as bytes: its shorter side resized to `size`, then the centre.
    ///
    /// `rgb` are the row-major bytes of `height` rows of `width` pixels; the result has `size * size * 3`.
    ///
    /// # Errors
    /// [`Error::Image`] unless there are `height * width * 3` bytes and at least one pixel.
    pub fn square(&self, rgb: &[u8], height: usize, width: usize) -> Result<Vec<u8>> {
        if height * width == 0 || rgb.len() != height * width * 3 {
            return Err(Error::Image {
                reason: format!("{} bytes are not an image of {width}x{height}", rgb.len()),
            });
        }
        let size = self.size.get() as usize;
        let (new_height, new_width) = self.resized(height, width);
        let resized = bicubic(rgb, (height, width), (new_height, new_width));
        let top = self.offset(new_height);
        let left = self.offset(new_width);
        let mut square = Vec::with_capacity(size * size * 3);
        for row in resized.chunks_exact(new_width * 3).skip(top).take(size) {
            square.extend_from_slice(&row[left * 3..(left + size) * 3]);
        }
        Ok(square)
    }

    /// The tower's input for several images of one size, concatenated in `rgb`.
    ///
    /// # Shapes
    /// - `rgb`: `n * height * width * 3` bytes
    /// - returns: `[n, 3, size, size]`, f32, on the CPU
    ///
    /// # Errors
    /// [`Error::Image`] if there is no pixel or the bytes are not a whole number of images.
    pub fn pixels(&self, rgb: &[u8], height: usize, width: usize) -> Result<Tensor> {
        let size = self.size.get() as usize;
        let one = height * width * 3;
        if one == 0 || !rgb.len().is_multiple_of(one) {
            return Err(Error::Image {
                reason: format!("{} bytes are not images of {width}x{height}", rgb.len()),
            });
        }
        let tables = tables();
        let n = rgb.len() / one;
        let mut values = vec![0_f32; n * 3 * size * size];
        for (image, out) in rgb
            .chunks_exact(one)
            .zip(values.chunks_exact_mut(3 * size * size))
        {
            let square = self.square(image, height, width)?;
            for (channel, plane) in out.chunks_exact_mut(size * size).enumerate() {
                for (value, pixel) in plane.iter_mut().zip(square.chunks_exact(3)) {
                    *value = tables[channel][usize::from(pixel[channel])];
                }
            }
        }
        let shape = [n as i64, 3, size as i64, size as i64];
        Ok(Tensor::from_slice(&values).view(shape))
    }

    /// The same of images in [0, 1], differentiable; [`pixels`](Self::pixels) differs by the rounding to bytes.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]` in [0, 1], any device
    /// - returns: `[batch, 3, size, size]`, of the same kind on the same device
    ///
    /// # Panics
    /// On other shapes.
    pub fn differentiable(&self, images: &Tensor) -> Tensor {
        let size = images.size();
        assert!(size.len() == 4 && size[1] == 3, "shape {size:?}");
        let from = (size[2] as usize, size[3] as usize);
        let (height, width) = self.resized(from.0, from.1);
        let pass = |images: &Tensor, height: usize, width: usize| {
            let target = [height as i64, width as i64];
            if images.size()[2..] == target {
                return images.shallow_clone();
            }
            // Overshoot at edges is clamped after each pass, as with bytes.
            images
                .internal_upsample_bicubic2d_aa(target, false, None, None)
                .clamp(0.0, 1.0)
        };
        let between = match is_across_first(from, (height, width)) {
            true => pass(images, from.0, width),
            false => pass(images, height, from.1),
        };
        let resized = pass(&between, height, width);
        let side = i64::from(self.size.get());
        let square = resized.narrow(2, self.offset(height) as i64, side).narrow(
            3,
            self.offset(width) as i64,
            side,
        );
        let column = |values: [f64; 3]| {
            Tensor::from_slice(&values)
                .to_kind(images.kind())
                .to_device(images.device())
                .view([1, 3, 1, 1])
        };
        (square - column(MEAN)) / column(STD)
    }

    /// Height and width with the shorter side at `size`, the longer rounded down (transformers,
    /// `get_resize_output_image_size`; torchvision's `Resize`).
    fn resized(&self, height: usize, width: usize) -> (usize, usize) {
        let size = self.size.get() as usize;
        let longer = |long: usize, short: usize| size * long / short.max(1);
        if height <= width {
            (size, longer(width, height))
        } else {
            (longer(height, width), size)
        }
    }

    fn offset(&self, side: usize) -> usize {
        let surplus = side - self.size.get() as usize;
        let half = surplus / 2;
        match self.crop {
            Crop::HalfEven if surplus % 4 == 3 => half + 1,
            _ => half,
        }
    }
}

/// Normalised value of each byte in each channel.
fn tables() -> [[f32; 256]; 3] {
    std::array::from_fn(|channel| {
        std::array::from_fn(|byte| ((byte as f64 / 255.0 - MEAN[channel]) / STD[channel]) as f32)
    })
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn an_odd_surplus_is_cut_as_each_reference_cuts_it() {
        let floor = ClipImages::new(224);
        let even = ClipImages {
            crop: Crop::HalfEven,
            ..floor
        };
        // torchvision: int(round(surplus / 2)), Python's round.
        for (surplus, down, half_even) in [
            (0, 0, 0),
            (1, 0, 0),
            (2, 1, 1),
            (3, 1, 2),
            (5, 2, 2),
            (7, 3, 4),
        ] {
            assert_eq!(floor.offset(224 + surplus), down, "{surplus}");
            assert_eq!(even.offset(224 + surplus), half_even, "{surplus}");
        }
    }

    #[test]
    fn a_image_without_pixels_or_with_others_bytes_is_refused() {
        let images = ClipImages::new(8);
        assert!(images.pixels(&[], 0, 4).is_err());
        assert!(images.pixels(&[0; 47], 4, 4).is_err());
        assert_eq!(images.pixels(&[], 4, 4).unwrap().size(), [0, 3, 8, 8]);
        assert!(images.square(&[0; 47], 4, 4).is_err());
        assert_eq!(images.pixels(&[0; 96], 4, 4).unwrap().kind(), Kind::Float);
    }
}
