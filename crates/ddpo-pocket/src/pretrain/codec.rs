//! The VAE's encoder, computed instead of trained.
//!
//! Training an autoencoder of this size from scratch takes days on a laptop. What an encoder must do is known,
//! though: project 8×8 patches onto the directions in which they differ most. So its weights are *computed*: three stages of
//! principal components over exact 2×2 blocks, written into an ordinary `AutoencoderKL` encoder whose
//! convolutions, group norms and SiLUs are arranged to pass them through unchanged. Only the decoder is trained.

use std::collections::BTreeMap;
use std::path::Path;

use ddpo_model::VaeConfig;
use ddpo_torch::weights;
use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Size of the constant channels that pin the group norms, in units of the largest latent seen.
///
/// A group norm over {±y, ±K} divides by √(mean of squares), which y moves by y²/K² only; f32 has room for that.
const PIN: f64 = 200.0;

/// Log-variance that the encoder reports: latents are as good as exact (standard deviation 6.7e-3).
const LOG_VAR: f64 = -10.0;

/// Linear map from 2×2 blocks of `n_in` channels to `n_out` channels.
struct Stage {
    /// `[n_out, n_in, 2, 2]`.
    weight: Tensor,
    /// `[n_out]`.
    bias: Tensor,
}

impl Stage {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), [2, 2], [0, 0], [1, 1], 1)
    }
}

/// Hierarchical principal components of 8×8 patches.
pub struct PatchCodec {
    stages: [Stage; 3],
}

impl PatchCodec {
    /// Fits the components to images.
    ///
    /// The first stage only gathers 2×2 blocks (12 numbers); the second has as many components as the VAE's
    /// second level has channels; the third has the latents, each divided by the square root of its standard
    /// deviation (between the raw components, whose last ones would drown in noise, and whitening, which would
    /// give them the same variance as the first), and all by one number so that their mean square is 1.
    ///
    /// # Shapes
    /// - `images`: `[n, 3, height, width]` in [-1, 1], f32
    pub fn fit(images: &Tensor, config: &VaeConfig) -> Self {
        let gather = Stage {
            weight: Tensor::eye(12, f32_cpu())
                .view([12, 2, 2, 3])
                .permute([0, 3, 1, 2]),
            bias: Tensor::zeros([12], f32_cpu()),
        };
        let blocks = gather.forward(images);
        let middle = components(&blocks, config.block_out_channels[1], Scale::Keep);
        let quarters = middle.forward(&blocks);
        let last = components(&quarters, config.latent_channels, Scale::SquareRoot);
        Self {
            stages: [gather, middle, last],
        }
    }

    /// Writes the stages as a safetensors file.
    ///
    /// # Errors
    /// If writing fails.
    pub fn save(&self, path: &Path) -> Result<()> {
        let names: Vec<[String; 2]> = (0..3)
            .map(|i| ["weight", "bias"].map(|n| format!("stages.{i}.{n}")))
            .collect();
        let tensors = names
            .iter()
            .zip(&self.stages)
            .flat_map(|([weight, bias], stage)| {
                [
                    (weight.as_str(), &stage.weight),
                    (bias.as_str(), &stage.bias),
                ]
            });
        Ok(weights::save(path, tensors)?)
    }

    /// Reads what [`PatchCodec::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a stage is missing.
    pub fn load(path: &Path) -> Result<Self> {
        let file = weights::read_all(path)?;
        let get = |name: String| {
            let found = file.get(&name).map(Tensor::shallow_clone);
            found.ok_or_else(|| Error::Checkpoint {
                path: path.to_owned(),
                tensor: name,
            })
        };
        let stage = |i: usize| -> Result<Stage> {
            Ok(Stage {
                weight: get(format!("stages.{i}.weight"))?,
                bias: get(format!("stages.{i}.bias"))?,
            })
        };
        Ok(Self {
            stages: [stage(0)?, stage(1)?, stage(2)?],
        })
    }

    /// # Shapes
    /// - `images`: `[batch, 3, height, width]` in [-1, 1]
    /// - returns: latents `[batch, latent_channels, height / 8, width / 8]`
    pub fn encode(&self, images: &Tensor) -> Tensor {
        self.stages
            .iter()
            .fold(images.shallow_clone(), |x, stage| stage.forward(&x))
    }

    /// Mean squared error of the best linear reconstruction from these components, in dB of a signal of range 2.
    pub fn linear_psnr(&self, images: &Tensor) -> f64 {
        let latents = self.encode(images).permute([0, 2, 3, 1]);
        let n_latents = latents.size()[3];
        let x = latents.reshape([-1, n_latents]).to_kind(Kind::Double);
        let x = Tensor::cat(
            &[
                &x,
                &Tensor::ones([x.size()[0], 1], (Kind::Double, x.device())),
            ],
            1,
        );
        let patches = images
            .unfold(2, 8, 8)
            .unfold(3, 8, 8)
            .permute([0, 2, 3, 1, 4, 5]);
        let y = patches.reshape([-1, 192]).to_kind(Kind::Double);
        let (gram, cross) = (x.tr().matmul(&x), x.tr().matmul(&y));
        let fit = Tensor::linalg_solve(&gram, &cross, true);
        let mse = (x.matmul(&fit) - y)
            .square()
            .mean(Kind::Double)
            .double_value(&[]);
        10.0 * (4.0 / mse).log10()
    }

    /// Writes the map into the encoder of an `AutoencoderKL` and zeroes the encoder's other weights; the decoder is unchanged.
    ///
    /// `tensors` must come from a [`ddpo_model::Vae`] of `config` with four levels and one residual block each.
    pub fn write(&self, tensors: &mut BTreeMap<String, Tensor>, config: &VaeConfig) {
        let _guard = tch::no_grad_guard();
        for (name, tensor) in tensors.iter_mut() {
            let norm = name.contains("norm") && name.ends_with("weight");
            if name.starts_with("encoder.") && !norm {
                let _ = tensor.zero_();
            }
        }
        let mut set = |name: &str, value: &Tensor| {
            tensors
                .get_mut(name)
                .unwrap_or_else(|| panic!("VAE has {name}"))
                .copy_(value)
        };
        let sizes: Vec<i64> = [
            vec![3],
            self.stages
                .iter()
                .map(|s| s.weight.size()[0])
                .collect::<Vec<_>>(),
        ]
        .concat();
        let channels = &config.block_out_channels;
        set(
            "encoder.conv_in.weight",
            &centred(channels[0], 3, &Tensor::eye(3, f32_cpu()), 3),
        );
        for (level, stage) in self.stages.iter().enumerate() {
            let width = channels[level];
            let weight = Tensor::zeros([width, width, 3, 3], f32_cpu());
            weight
                .narrow(0, 0, sizes[level + 1])
                .narrow(1, 0, sizes[level])
                .narrow(2, 0, 2)
                .narrow(3, 0, 2)
                .copy_(&stage.weight);
            let bias = Tensor::zeros([width], f32_cpu());
            bias.narrow(0, 0, sizes[level + 1]).copy_(&stage.bias);
            set(
                &format!("encoder.down_blocks.{level}.downsamplers.0.conv.weight"),
                &weight,
            );
            set(
                &format!("encoder.down_blocks.{level}.downsamplers.0.conv.bias"),
                &bias,
            );
            if level < 2 && channels[level + 1] != width {
                let shortcut = centred(
                    channels[level + 1],
                    width,
                    &Tensor::eye(sizes[level + 1], f32_cpu()),
                    1,
                );
                set(
                    &format!(
                        "encoder.down_blocks.{}.resnets.0.conv_shortcut.weight",
                        level + 1
                    ),
                    &shortcut,
                );
            }
        }
        let pinned = Pinned::new(config);
        set(
            "encoder.down_blocks.3.resnets.0.conv_shortcut.weight",
            &pinned.spread,
        );
        set(
            "encoder.down_blocks.3.resnets.0.conv_shortcut.bias",
            &pinned.constants,
        );
        set("encoder.conv_norm_out.weight", &pinned.restore);
        set("encoder.conv_out.weight", &pinned.collect);
        let n = 2 * config.latent_channels;
        set(
            "quant_conv.weight",
            &Tensor::eye(n, f32_cpu()).view([n, n, 1, 1]),
        );
        let log_var = Tensor::cat(
            &[
                Tensor::zeros([n / 2], f32_cpu()),
                Tensor::full([n / 2], LOG_VAR, f32_cpu()),
            ],
            0,
        );
        set("quant_conv.bias", &log_var);
    }
}

/// The last level: every latent as +y and -y next to constants, so that group norm and SiLU cancel out.
struct Pinned {
    spread: Tensor,
    constants: Tensor,
    restore: Tensor,
    collect: Tensor,
}

impl Pinned {
    fn new(config: &VaeConfig) -> Self {
        let (n_in, n_out) = (config.block_out_channels[2], config.block_out_channels[3]);
        let (groups, n) = (config.norm_num_groups, config.latent_channels);
        let width = n_out / groups;
        let per_group = (n + groups - 1) / groups;
        assert!(
            2 * per_group + 2 <= width,
            "a group of {width} channels holds {per_group} latents twice and two constants"
        );
        let mut spread = Tensor::zeros([n_out, n_in, 1, 1], f32_cpu());
        let mut constants = Tensor::zeros([n_out], f32_cpu());
        let mut collect = Tensor::zeros([2 * n, n_out, 3, 3], f32_cpu());
        let restore = Tensor::zeros([n_out], f32_cpu());
        for group in 0..groups {
            let mut latents = 0;
            for j in (group * per_group)..((group + 1) * per_group).min(n) {
                for sign in [1.0, -1.0] {
                    let channel = group * width + latents;
                    put(&mut spread, &[channel, j, 0, 0], sign);
                    put(&mut collect, &[j, channel, 1, 1], sign);
                    latents += 1;
                }
            }
            let pins = (width - latents) / 2 * 2;
            for i in 0..pins {
                put(
                    &mut constants,
                    &[group * width + latents + i],
                    if i % 2 == 0 { PIN } else { -PIN },
                );
            }
            let scale = PIN * (pins as f64 / width as f64).sqrt();
            let _ = restore.narrow(0, group * width, width).fill_(scale);
        }
        Self {
            spread,
            constants,
            restore,
            collect,
        }
    }
}

enum Scale {
    Keep,
    SquareRoot,
}

/// Principal components of the 2×2 blocks of a feature map, about their mean.
fn components(x: &Tensor, n_out: i64, scale: Scale) -> Stage {
    let n_in = x.size()[1];
    let blocks = x
        .unfold(2, 2, 2)
        .unfold(3, 2, 2)
        .permute([0, 2, 3, 1, 4, 5])
        .reshape([-1, 4 * n_in])
        .to_kind(Kind::Double);
    let mean = blocks.mean_dim([0i64].as_slice(), true, Kind::Double);
    let centred = &blocks - &mean;
    let covariance = centred.tr().matmul(&centred) / blocks.size()[0] as f64;
    let (values, vectors) = covariance.linalg_eigh("L"); // ascending
    let vectors = vectors.flip([1]).narrow(1, 0, n_out);
    let variances = values.flip([0]).narrow(0, 0, n_out);
    let rows = match scale {
        Scale::Keep => vectors.tr(),
        Scale::SquareRoot => {
            let sd = variances.sqrt();
            let rms = sd.mean(Kind::Double).sqrt(); // a component of variance v becomes √v: mean square = mean sd
            vectors.tr() / (sd.sqrt() * rms).unsqueeze(1)
        }
    };
    let bias = -rows.matmul(&mean.squeeze_dim(0));
    Stage {
        weight: rows.view([n_out, n_in, 2, 2]).to_kind(Kind::Float),
        bias: bias.to_kind(Kind::Float),
    }
}

/// A `[n_out, n_in, kernel, kernel]` convolution that applies `matrix` at its centre to the first channels.
fn centred(n_out: i64, n_in: i64, matrix: &Tensor, kernel: i64) -> Tensor {
    let weight = Tensor::zeros([n_out, n_in, kernel, kernel], f32_cpu());
    let (rows, columns) = matrix.size2().expect("a matrix");
    let mut centre = weight
        .narrow(0, 0, rows)
        .narrow(1, 0, columns)
        .select(2, kernel / 2)
        .select(2, kernel / 2);
    centre.copy_(matrix);
    weight
}

fn put(tensor: &mut Tensor, at: &[i64], value: f64) {
    let mut cell = tensor.shallow_clone();
    for &i in at {
        cell = cell.select(0, i);
    }
    let _ = cell.fill_(value);
}

fn f32_cpu() -> (Kind, tch::Device) {
    (Kind::Float, tch::Device::Cpu)
}
