//! `UNet2DConditionModel` as Stable Diffusion v1 uses it, from diffusers' `config.json`.

use ddpo_torch::Scope;
use ddpo_torch::nn::{Conv2d, GroupNorm, Linear};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::attention::SpatialTransformer;
use crate::resnet::{Downsample, ResnetBlock, ResnetShape, Upsample};
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

/// Residual blocks, each perhaps followed by attention: one level of the UNet.
struct Level {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<SpatialTransformer>,
}

impl Level {
    fn forward(&self, i: usize, x: &Tensor, time: &Tensor, cond: &Tensor) -> Tensor {
        let h = self.resnets[i].forward(x, Some(time));
        match self.attentions.get(i) {
            Some(attention) => attention.forward(&h, cond),
            None => h,
        }
    }
}

/// Predicts the noise in latents from the time step and the prompt.
pub struct Unet {
    config: UnetConfig,
    conv_in: Conv2d,
    time1: Linear,
    time2: Linear,
    down: Vec<(Level, Option<Downsample>)>,
    mid: Level,
    up: Vec<(Level, Option<Upsample>)>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Unet {
    /// Takes its tensors from `scope` under diffusers' names.
    ///
    /// # Errors
    /// [`Error::Config`] for what is not built.
    pub fn new(scope: &Scope<'_>, config: &UnetConfig) -> Result<Self> {
        config.check()?;
        let first = config.block_out_channels[0];
        let last = *config
            .block_out_channels
            .last()
            .expect("checked: at least one level");
        let time_dim = 4 * first;
        Ok(Self {
            conv_in: Conv2d::new(&(scope / "conv_in"), config.in_channels, first, 3, 1, 1),
            time1: Linear::new(&(scope / "time_embedding.linear_1"), first, time_dim),
            time2: Linear::new(&(scope / "time_embedding.linear_2"), time_dim, time_dim),
            down: down_levels(scope, config),
            mid: Level {
                resnets: (0..2)
                    .map(|i| {
                        resnet(
                            &(scope / format!("mid_block.resnets.{i}")),
                            config,
                            last,
                            last,
                        )
                    })
                    .collect(),
                attentions: vec![attention(&(scope / "mid_block.attentions.0"), config, last)],
            },
            up: up_levels(scope, config),
            norm_out: GroupNorm::new(
                &(scope / "conv_norm_out"),
                config.norm_num_groups,
                first,
                config.norm_eps,
            ),
            conv_out: Conv2d::new(&(scope / "conv_out"), first, config.out_channels, 3, 1, 1),
            config: config.clone(),
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// Queries, keys, values and outputs of every attention, under diffusers' module names.
    pub fn attention_linears(&mut self) -> Vec<(String, &mut Linear)> {
        let down = self.down.iter_mut().map(|(level, _)| level).enumerate();
        let up = self.up.iter_mut().map(|(level, _)| level).enumerate();
        let levels = down
            .map(|(i, level)| (format!("down_blocks.{i}"), level))
            .chain(std::iter::once(("mid_block".to_owned(), &mut self.mid)))
            .chain(up.map(|(i, level)| (format!("up_blocks.{i}"), level)));
        let mut all = Vec::new();
        for (name, level) in levels {
            for (j, attention) in level.attentions.iter_mut().enumerate() {
                all.extend(attention.linears(&format!("{name}.attentions.{j}")));
            }
        }
        all
    }

    /// # Shapes
    /// - `x_t`: `[batch, in_channels, height, width]`
    /// - `t`: `[batch]` or `[1]`, i64, training timesteps in 0..1000
    /// - `cond`: `[batch, tokens, cross_attention_dim]`
    /// - returns: as `x_t`
    pub fn forward(&self, x_t: &Tensor, t: &Tensor, cond: &Tensor) -> Tensor {
        let emb = time_embedding(t, &self.config).to_kind(x_t.kind());
        let time = self.time2.forward(&self.time1.forward(&emb).silu()).silu();
        let mut h = self.conv_in.forward(&channels_last(x_t));
        let mut skips = vec![h.shallow_clone()];
        for (level, downsample) in &self.down {
            for i in 0..level.resnets.len() {
                h = level.forward(i, &h, &time, cond);
                skips.push(h.shallow_clone());
            }
            if let Some(downsample) = downsample {
                h = downsample.forward(&h);
                skips.push(h.shallow_clone());
            }
        }
        h = self.mid.forward(0, &h, &time, cond);
        h = self.mid.resnets[1].forward(&h, Some(&time));
        for (level, upsample) in &self.up {
            for i in 0..level.resnets.len() {
                let skip = skips
                    .pop()
                    .expect("one skip a residual block, by construction");
                h = level.forward(i, &Tensor::cat(&[h, skip], 1), &time, cond);
            }
            if let (Some(upsample), Some(next)) = (upsample, skips.last()) {
                let size = next.size();
                h = upsample.forward(&h, [size[2], size[3]]);
            }
        }
        self.conv_out.forward(&self.norm_out.forward(&h).silu())
    }
}

fn resnet(scope: &Scope<'_>, config: &UnetConfig, n_in: i64, n_out: i64) -> ResnetBlock {
    let time_dim = Some(4 * config.block_out_channels[0]);
    ResnetBlock::new(
        scope,
        n_in,
        n_out,
        ResnetShape {
            groups: config.norm_num_groups,
            eps: config.norm_eps,
            time_dim,
        },
    )
}

fn attention(scope: &Scope<'_>, config: &UnetConfig, channels: i64) -> SpatialTransformer {
    let UnetConfig {
        cross_attention_dim,
        attention_head_dim,
        norm_num_groups,
        ..
    } = *config;
    SpatialTransformer::new(
        scope,
        channels,
        cross_attention_dim,
        attention_head_dim,
        norm_num_groups,
        1,
    )
}

fn down_levels(scope: &Scope<'_>, config: &UnetConfig) -> Vec<(Level, Option<Downsample>)> {
    let mut n_in = config.block_out_channels[0];
    let last = config.block_out_channels.len() - 1;
    let level = |(i, &n_out): (usize, &i64)| {
        let scope = scope / format!("down_blocks.{i}");
        let crossed = config.down_block_types[i].starts_with("CrossAttn");
        let resnets = (0..config.layers_per_block)
            .map(|j| {
                let block = resnet(&(&scope / format!("resnets.{j}")), config, n_in, n_out);
                n_in = n_out;
                block
            })
            .collect();
        let n_attentions = if crossed { config.layers_per_block } else { 0 };
        let attentions = (0..n_attentions)
            .map(|j| attention(&(&scope / format!("attentions.{j}")), config, n_out))
            .collect();
        let downsample =
            (i < last).then(|| Downsample::symmetric(&(&scope / "downsamplers.0"), n_out));
        let level = Level {
            resnets,
            attentions,
        };
        (level, downsample)
    };
    config
        .block_out_channels
        .iter()
        .enumerate()
        .map(level)
        .collect()
}

fn up_levels(scope: &Scope<'_>, config: &UnetConfig) -> Vec<(Level, Option<Upsample>)> {
    let reversed: Vec<i64> = config.block_out_channels.iter().rev().copied().collect();
    let last = reversed.len() - 1;
    let mut previous = reversed[0];
    let level = |(i, &n_out): (usize, &i64)| {
        let scope = scope / format!("up_blocks.{i}");
        let below = reversed[(i + 1).min(last)]; // channels of the level that is joined last
        let n_layers = config.layers_per_block + 1;
        let resnets = (0..n_layers)
            .map(|j| {
                let skip = if j == n_layers - 1 { below } else { n_out };
                let n_in = if j == 0 { previous } else { n_out };
                resnet(
                    &(&scope / format!("resnets.{j}")),
                    config,
                    n_in + skip,
                    n_out,
                )
            })
            .collect();
        previous = n_out;
        let n_attentions = match config.up_block_types[i].starts_with("CrossAttn") {
            true => n_layers,
            false => 0,
        };
        let attentions = (0..n_attentions)
            .map(|j| attention(&(&scope / format!("attentions.{j}")), config, n_out))
            .collect();
        let upsample = (i < last).then(|| Upsample::new(&(&scope / "upsamplers.0"), n_out));
        let level = Level {
            resnets,
            attentions,
        };
        (level, upsample)
    };
    reversed.iter().enumerate().map(level).collect()
}

/// The same values with the channels of a pixel side by side in memory.
///
/// Convolutions pass the layout on; it saves oneDNN and cuDNN the reordering before and after each of them, and
/// the transformers a copy. Measured once in diffusers
/// (one thread, a busy machine): 93 to 109 samples of the pocket UNet a CPU second.
fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Sinusoids of the time step (diffusers `get_timestep_embedding`), f32.
fn time_embedding(t: &Tensor, config: &UnetConfig) -> Tensor {
    let half = config.block_out_channels[0] / 2;
    let exponents = Tensor::arange(half, (Kind::Float, t.device())) * -(10_000f64.ln());
    let frequencies = (exponents / (half as f64 - config.freq_shift)).exp();
    let angles = t.to_kind(Kind::Float).unsqueeze(-1) * frequencies.unsqueeze(0);
    let (sin, cos) = (angles.sin(), angles.cos());
    match config.flip_sin_to_cos {
        true => Tensor::cat(&[cos, sin], -1),
        false => Tensor::cat(&[sin, cos], -1),
    }
}
