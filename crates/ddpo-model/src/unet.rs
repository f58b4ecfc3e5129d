//! `UNet2DConditionModel` as Stable Diffusion v1 uses it, from diffusers' `config.json`.

use ddpo_torch::Scope;
use ddpo_torch::nn::{Conv2d, GroupNorm, Linear};
use tch::{Kind, Tensor};

use crate::Result;
use crate::attention::{AttentionContext, BlockCache, LoraMode, SpatialTransformer};
use crate::resnet::{Downsample, ResnetBlock, ResnetShape, Upsample};

mod checkpoint;
mod config;
mod walk;

pub use config::UnetConfig;
use walk::Segment;

/// Residual blocks, each perhaps followed by attention: one level of the UNet.
struct Level {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<SpatialTransformer>,
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
    /// [`crate::Error::Config`] for what is not built.
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
        self.forward_with(x_t, t, AttentionContext::Embeddings(cond))
    }

    /// The same with what [`precompute`](Self::precompute) computed before.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    pub fn forward_with(&self, x_t: &Tensor, t: &Tensor, context: AttentionContext<'_>) -> Tensor {
        let time = self.time(t, x_t.kind());
        self.walk(channels_last(x_t), &time, context, &mut |_| {})
    }

    /// What is the same at every time step, so that a rollout computes it once: keys and values of the prompt in
    /// every cross-attention, and weights with their low-rank branches added, if `mode` says so. No gradients.
    ///
    /// It is that of the weights as they are now; they, and the mode, stay as they are.
    ///
    /// # Shapes
    /// - `cond`: `[batch, tokens, cross_attention_dim]`
    /// - returns: one a transformer block, in the network's order
    pub fn precompute(&self, cond: &Tensor, mode: LoraMode) -> Vec<BlockCache> {
        let _no_grad = tch::no_grad_guard();
        let segments = self.segments();
        let attentions = segments.iter().filter_map(Segment::attention);
        attentions.flat_map(|a| a.precompute(cond, mode)).collect()
    }

    /// The time embedding as residual blocks take it, `[batch, 4 * channels of the first level]`.
    fn time(&self, t: &Tensor, kind: Kind) -> Tensor {
        let emb = time_embedding(t, &self.config).to_kind(kind);
        self.time2.forward(&self.time1.forward(&emb).silu()).silu()
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
/// On the CPU convolutions and group norms pass the layout on; it saves oneDNN the reordering before and after each
/// convolution, and the transformers a copy. Measured once in diffusers (one thread, a busy machine): 93 to 109
/// samples of the pocket UNet a CPU second.
///
/// On CUDA the first group norm undoes it: libtorch's makes its input contiguous there (`group_norm` in
/// ATen/native/group_norm.cpp), and what comes after is in torch's own layout. It then saves nothing, and costs the
/// copy of a latent; whether cuDNN would gain by a group norm that keeps it was never measured.
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
