//! The size of images, where it is not the model's own.

use ddpo_model::StableDiffusion;

use crate::config::SamplerPlan;
use crate::failure::{Failure, Result};
use crate::notice;

/// Pixels that somebody asked for; the model's own where nobody did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    /// From top to bottom.
    pub height: Option<u64>,
    /// From left to right.
    pub width: Option<u64>,
}

impl Size {
    /// Of a run.
    pub fn of_plan(sampler: &SamplerPlan) -> Self {
        Self {
            height: sampler.height,
            width: sampler.width,
        }
    }

    /// Shape of one latent of that size, `[channels, height, width]`; `names` are what was typed, height first.
    ///
    /// Says so on standard error where the model was not trained for this size.
    ///
    /// # Errors
    /// Exit 2 with the nearest sizes that the autoencoder can decode.
    pub fn latent_shape(self, model: &StableDiffusion, names: [&str; 2]) -> Result<[i64; 3]> {
        let [channels, height, width] = model.latent_shape();
        let factor = model.images.vae.net.config.factor();
        let sides = [
            side(names[0], self.height, height, factor)?,
            side(names[1], self.width, width, factor)?,
        ];
        if sides != [height, width] {
            let pixels = |side: i64| side * factor;
            notice::once(&format!(
                "images of {}x{} pixels: the model was trained for {}x{}, and may draw them worse",
                pixels(sides[1]),
                pixels(sides[0]),
                pixels(width),
                pixels(height)
            ));
        }
        Ok([channels, sides[0], sides[1]])
    }
}

/// One side of the latent.
fn side(name: &str, pixels: Option<u64>, own: i64, factor: i64) -> Result<i64> {
    let Some(pixels) = pixels.map(|pixels| pixels as i64) else {
        return Ok(own);
    };
    if pixels > 0 && pixels % factor == 0 {
        return Ok(pixels / factor);
    }
    let (below, above) = (pixels / factor * factor, (pixels / factor + 1) * factor);
    let nearest = match below {
        0 => format!("such as {above}"),
        _ => format!("such as {below} or {above}"),
    };
    Err(Failure::config(format!(
        "{name} is {pixels}: expected a multiple of {factor}, by which the model's autoencoder shrinks images, {nearest}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_cannot_be_decoded_is_refused_with_the_nearest_that_can() {
        assert_eq!(side("--height", None, 8, 8).expect("its own"), 8);
        assert_eq!(side("--height", Some(96), 8, 8).expect("96"), 12);
        let error = side("--height", Some(100), 8, 8).expect_err("not 100");
        assert!(error.to_string().contains("96 or 104"), "{error}");
        let error = side("--width", Some(3), 8, 8).expect_err("not 3");
        assert!(error.to_string().ends_with("such as 8"), "{error}");
    }
}
