//! `AutoencoderKL` as Stable Diffusion v1 uses it: images to latents and back.

use ddpo_torch::Scope;
use ddpo_torch::nn::{Conv2d, GroupNorm};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::attention::VaeAttention;
use crate::resnet::{Downsample, ResnetBlock, ResnetShape, Upsample};
use crate::{Error, Result};

/// Epsilon of every group norm in the VAE (diffusers `Encoder`, `Decoder`).
const EPS: f64 = 1e-6;

/// The keys of `vae/config.json` that shape the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    /// Channels of an image, 3.
    pub in_channels: i64,
    /// Channels of the reconstruction, 3.
    pub out_channels: i64,
    /// Channels a level, highest resolution first (128, 256, 512, 512).
    pub block_out_channels: Vec<i64>,
    /// Residual blocks a level in the encoder; one more in the decoder.
    pub layers_per_block: i64,
    /// Channels of the latents (4).
    pub latent_channels: i64,
    /// Groups of every group norm (32).
    #[serde(default = "default_groups")]
    pub norm_num_groups: i64,
    /// Latents are multiplied by this before the UNet sees them (0.18215).
    #[serde(default = "default_scaling")]
    pub scaling_factor: f64,
}

fn default_groups() -> i64 {
    32
}
fn default_scaling() -> f64 {
    0.18215
}

impl VaeConfig {
    /// SD v1.4 (`vae/config.json` of `CompVis/stable-diffusion-v1-4`).
    pub fn v1_4() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
        }
    }

    /// Image pixels a latent, along one side (8 for four levels).
    pub fn factor(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }

    fn check(&self) -> Result<()> {
        let bad = self
            .block_out_channels
            .iter()
            .find(|&&c| c % self.norm_num_groups != 0);
        let reason = match (self.block_out_channels.is_empty(), bad) {
            (true, _) => "block_out_channels must name at least one level".to_owned(),
            (_, Some(c)) => format!(
                "block_out_channels {c} must divide by norm_num_groups {}",
                self.norm_num_groups
            ),
            _ => return Ok(()),
        };
        Err(Error::Config {
            file: "vae/config.json".into(),
            reason,
        })
    }
}

/// A diagonal Gaussian over latents, before scaling.
pub struct PosteriorParams {
    /// `[batch, latent_channels, h, w]`.
    pub mean: Tensor,
    /// The same, clamped to [-30, 20].
    pub log_var: Tensor,
}

struct Mid {
    resnets: [ResnetBlock; 2],
    attention: VaeAttention,
}

impl Mid {
    fn new(scope: &Scope<'_>, channels: i64, groups: i64) -> Self {
        Self {
            resnets: [0, 1].map(|i| {
                resnet(
                    &(scope / format!("resnets.{i}")),
                    channels,
                    channels,
                    groups,
                )
            }),
            attention: VaeAttention::new(&(scope / "attentions.0"), channels, groups),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.attention.forward(&self.resnets[0].forward(x, None));
        self.resnets[1].forward(&x, None)
    }
}

/// The half that reads images.
pub struct Encoder {
    conv_in: Conv2d,
    down: Vec<(Vec<ResnetBlock>, Option<Downsample>)>,
    mid: Mid,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    quant_conv: Conv2d,
}

impl Encoder {
    /// Takes its tensors from the VAE's root scope.
    pub fn new(root: &Scope<'_>, config: &VaeConfig) -> Self {
        let (scope, groups) = (root / "encoder", config.norm_num_groups);
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let mut n_in = first;
        let mut level = |i: usize, n_out: i64| {
            let scope = &scope / format!("down_blocks.{i}");
            let resnets = (0..config.layers_per_block)
                .map(|j| {
                    resnet(
                        &(&scope / format!("resnets.{j}")),
                        std::mem::replace(&mut n_in, n_out),
                        n_out,
                        groups,
                    )
                })
                .collect();
            let more = i + 1 < channels.len();
            (
                resnets,
                more.then(|| Downsample::asymmetric(&(&scope / "downsamplers.0"), n_out)),
            )
        };
        Self {
            conv_in: Conv2d::new(&(&scope / "conv_in"), config.in_channels, first, 3, 1, 1),
            down: channels
                .iter()
                .enumerate()
                .map(|(i, &n_out)| level(i, n_out))
                .collect(),
            mid: Mid::new(&(&scope / "mid_block"), last, groups),
            norm_out: GroupNorm::new(&(&scope / "conv_norm_out"), groups, last, EPS),
            conv_out: Conv2d::new(
                &(&scope / "conv_out"),
                last,
                2 * config.latent_channels,
                3,
                1,
                1,
            ),
            quant_conv: Conv2d::new(
                &(root / "quant_conv"),
                2 * config.latent_channels,
                2 * config.latent_channels,
                1,
                1,
                0,
            ),
        }
    }

    /// # Shapes
    /// - `images`: `[batch, 3, height, width]` in [-1, 1]
    /// - returns: means and log-variances `[batch, latent_channels, height / factor, width / factor]`
    pub fn forward(&self, images: &Tensor) -> PosteriorParams {
        let mut h = self.conv_in.forward(images);
        for (resnets, downsample) in &self.down {
            h = resnets.iter().fold(h, |h, block| block.forward(&h, None));
            if let Some(downsample) = downsample {
                h = downsample.forward(&h);
            }
        }
        let h = self.norm_out.forward(&self.mid.forward(&h)).silu();
        let moments = self
            .quant_conv
            .forward(&self.conv_out.forward(&h))
            .chunk(2, 1);
        PosteriorParams {
            mean: moments[0].shallow_clone(),
            log_var: moments[1].clamp(-30.0, 20.0),
        }
    }
}

/// The half that draws images.
pub struct Decoder {
    post_quant_conv: Conv2d,
    conv_in: Conv2d,
    mid: Mid,
    up: Vec<(Vec<ResnetBlock>, Option<Upsample>)>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    /// Takes its tensors from the VAE's root scope.
    pub fn new(root: &Scope<'_>, config: &VaeConfig) -> Self {
        let (scope, groups) = (root / "decoder", config.norm_num_groups);
        let reversed: Vec<i64> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (reversed[0], reversed[reversed.len() - 1]);
        let mut n_in = first;
        let mut level = |i: usize, n_out: i64| {
            let scope = &scope / format!("up_blocks.{i}");
            let resnets = (0..=config.layers_per_block)
                .map(|j| {
                    resnet(
                        &(&scope / format!("resnets.{j}")),
                        std::mem::replace(&mut n_in, n_out),
                        n_out,
                        groups,
                    )
                })
                .collect();
            let more = i + 1 < reversed.len();
            (
                resnets,
                more.then(|| Upsample::new(&(&scope / "upsamplers.0"), n_out)),
            )
        };
        let latent = config.latent_channels;
        Self {
            post_quant_conv: Conv2d::new(&(root / "post_quant_conv"), latent, latent, 1, 1, 0),
            conv_in: Conv2d::new(&(&scope / "conv_in"), latent, first, 3, 1, 1),
            mid: Mid::new(&(&scope / "mid_block"), first, groups),
            up: reversed
                .iter()
                .enumerate()
                .map(|(i, &n_out)| level(i, n_out))
                .collect(),
            norm_out: GroupNorm::new(&(&scope / "conv_norm_out"), groups, last, EPS),
            conv_out: Conv2d::new(&(&scope / "conv_out"), last, config.out_channels, 3, 1, 1),
        }
    }

    /// # Shapes
    /// - `latents`: `[batch, latent_channels, h, w]`, not scaled
    /// - returns: `[batch, 3, factor·h, factor·w]`, about [-1, 1], not clamped
    pub fn forward(&self, latents: &Tensor) -> Tensor {
        let mut h = self
            .mid
            .forward(&self.conv_in.forward(&self.post_quant_conv.forward(latents)));
        for (resnets, upsample) in &self.up {
            h = resnets.iter().fold(h, |h, block| block.forward(&h, None));
            if let Some(upsample) = upsample {
                let size = h.size();
                h = upsample.forward(&h, [2 * size[2], 2 * size[3]]);
            }
        }
        self.conv_out.forward(&self.norm_out.forward(&h).silu())
    }
}

/// Both halves, and the scale of the latents.
pub struct Vae {
    /// Its configuration.
    pub config: VaeConfig,
    /// Images to latents.
    pub encoder: Encoder,
    /// Latents to images.
    pub decoder: Decoder,
}

impl Vae {
    /// Takes its tensors from `scope` under diffusers' names.
    ///
    /// # Errors
    /// [`Error::Config`] for shapes that do not divide.
    pub fn new(scope: &Scope<'_>, config: &VaeConfig) -> Result<Self> {
        config.check()?;
        Ok(Self {
            config: config.clone(),
            encoder: Encoder::new(scope, config),
            decoder: Decoder::new(scope, config),
        })
    }

    /// The names under which the VAE of SD v1.4 on the hub keeps its attention.
    pub fn aliases(name: &str) -> Vec<String> {
        const PAIRS: [(&str, &str); 4] = [
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ];
        PAIRS
            .iter()
            .filter(|(new, _)| name.contains(new))
            .map(|(new, old)| name.replace(new, old))
            .collect()
    }

    /// Mean of the posterior, scaled for the UNet.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]` in [-1, 1]
    /// - returns: `[batch, latent_channels, height / factor, width / factor]`
    pub fn encode(&self, images: &Tensor) -> Tensor {
        self.encoder.forward(images).mean * self.config.scaling_factor
    }

    /// # Shapes
    /// - `latents`: `[batch, latent_channels, h, w]`, scaled
    /// - returns: `[batch, 3, factor·h, factor·w]`, not clamped
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        self.decoder
            .forward(&(latents / self.config.scaling_factor))
    }
}

fn resnet(scope: &Scope<'_>, n_in: i64, n_out: i64, groups: i64) -> ResnetBlock {
    ResnetBlock::new(
        scope,
        n_in,
        n_out,
        ResnetShape {
            groups,
            eps: EPS,
            time_dim: None,
        },
    )
}
