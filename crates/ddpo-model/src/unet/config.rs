//! The keys of diffusers' `unet/config.json`.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The keys of `unet/config.json` that shape the network; others must have the value of SD v1 (see [`UnetConfig::check`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnetConfig {
    /// Height and width of the latents (64 for SD v1).
    pub sample_size: i64,
    /// Channels of the latents (4 for SD v1).
    pub in_channels: i64,
    /// Channels of the predicted noise; equal to `in_channels`.
    pub out_channels: i64,
    /// Channels a level (320, 640, 1280, 1280).
    pub block_out_channels: Vec<i64>,
    /// `CrossAttnDownBlock2D` or `DownBlock2D` a level.
    pub down_block_types: Vec<String>,
    /// `CrossAttnUpBlock2D` or `UpBlock2D` a level, lowest resolution first.
    pub up_block_types: Vec<String>,
    /// Residual blocks a level going down; one more going up.
    pub layers_per_block: i64,
    /// Width of the prompt embeddings (768).
    pub cross_attention_dim: i64,
    /// Number of heads, in spite of its name (8): diffusers keeps the name for old files.
    pub attention_head_dim: i64,
    /// Groups of every group norm (32).
    #[serde(default = "default_groups")]
    pub norm_num_groups: i64,
    /// Epsilon of the group norms in residual blocks.
    #[serde(default = "default_eps")]
    pub norm_eps: f64,
    /// Order of the sinusoidal time embedding; SD has cosines first.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Shift of the frequencies; 0 in SD.
    #[serde(default)]
    pub freq_shift: f64,
    /// `true` in SD v2 only, which is not built.
    #[serde(default)]
    pub use_linear_projection: bool,
}

fn default_groups() -> i64 {
    32
}
fn default_eps() -> f64 {
    1e-5
}
fn yes() -> bool {
    true
}

impl UnetConfig {
    /// SD v1.4 (`unet/config.json` of `CompVis/stable-diffusion-v1-4`).
    pub fn v1_4() -> Self {
        let cross = |n: usize, of: &str, plain: &str, plain_first: bool| {
            let mut types = vec![of.to_owned(); n - 1];
            types.insert(if plain_first { 0 } else { n - 1 }, plain.to_owned());
            types
        };
        Self {
            sample_size: 64,
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            down_block_types: cross(4, "CrossAttnDownBlock2D", "DownBlock2D", false),
            up_block_types: cross(4, "CrossAttnUpBlock2D", "UpBlock2D", true),
            layers_per_block: 2,
            cross_attention_dim: 768,
            attention_head_dim: 8,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            use_linear_projection: false,
        }
    }

    /// Refuses what this network does not build.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn check(&self) -> Result<()> {
        let fail = |reason: String| {
            Err(Error::Config {
                file: "unet/config.json".into(),
                reason,
            })
        };
        let levels = self.block_out_channels.len();
        if levels == 0
            || self.down_block_types.len() != levels
            || self.up_block_types.len() != levels
        {
            return fail(format!(
                "block_out_channels has {levels} levels, down_block_types {}, up_block_types {}; they must agree",
                self.down_block_types.len(),
                self.up_block_types.len()
            ));
        }
        for (kinds, known) in [
            (
                &self.down_block_types,
                ["CrossAttnDownBlock2D", "DownBlock2D"],
            ),
            (&self.up_block_types, ["CrossAttnUpBlock2D", "UpBlock2D"]),
        ] {
            if let Some(kind) = kinds.iter().find(|k| !known.contains(&k.as_str())) {
                return fail(format!(
                    "block type `{kind}` is not built; known are {} and {}",
                    known[0], known[1]
                ));
            }
        }
        if self.use_linear_projection {
            return fail(
                "use_linear_projection = true (Stable Diffusion v2) is not built; v1 has false"
                    .into(),
            );
        }
        if self.in_channels != self.out_channels {
            return fail(format!(
                "in_channels {} and out_channels {} must agree",
                self.in_channels, self.out_channels
            ));
        }
        for &c in &self.block_out_channels {
            if c % self.norm_num_groups != 0 || c % self.attention_head_dim != 0 {
                return fail(format!(
                    "block_out_channels {c} must divide by norm_num_groups {} and attention_head_dim {}",
                    self.norm_num_groups, self.attention_head_dim
                ));
            }
        }
        Ok(())
    }
}
