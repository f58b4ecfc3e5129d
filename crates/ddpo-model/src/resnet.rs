//! The residual block of UNet and VAE, and the changes of resolution.

use ddpo_torch::Scope;
use ddpo_torch::nn::{Conv2d, GroupNorm, Linear};
use tch::Tensor;

/// Two normalised convolutions around an optional time embedding, added to the input (diffusers `ResnetBlock2D`).
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

/// What all residual blocks of one network share.
#[derive(Clone, Copy, Debug)]
pub struct ResnetShape {
    /// Groups of the normalisations.
    pub groups: i64,
    /// Their epsilon: 1e-5 in the UNet, 1e-6 in the VAE.
    pub eps: f64,
    /// Width of the time embedding; none in the VAE.
    pub time_dim: Option<i64>,
}

impl ResnetBlock {
    /// A 1×1 shortcut exists where the number of channels changes.
    pub fn new(scope: &Scope<'_>, n_in: i64, n_out: i64, shape: ResnetShape) -> Self {
        let ResnetShape {
            groups,
            eps,
            time_dim,
        } = shape;
        Self {
            norm1: GroupNorm::new(&(scope / "norm1"), groups, n_in, eps),
            conv1: Conv2d::new(&(scope / "conv1"), n_in, n_out, 3, 1, 1),
            time: time_dim.map(|dim| Linear::new(&(scope / "time_emb_proj"), dim, n_out)),
            norm2: GroupNorm::new(&(scope / "norm2"), groups, n_out, eps),
            conv2: Conv2d::new(&(scope / "conv2"), n_out, n_out, 3, 1, 1),
            shortcut: (n_in != n_out)
                .then(|| Conv2d::new(&(scope / "conv_shortcut"), n_in, n_out, 1, 1, 0)),
        }
    }

    /// Whether its weights record gradients.
    pub(crate) fn is_trained(&self) -> bool {
        self.conv1.weight.requires_grad()
    }

    /// # Shapes
    /// - `x`: `[batch, in, height, width]`
    /// - `time`: `[batch, time_dim]`, already through SiLU; `None` in the VAE
    /// - returns: `[batch, out, height, width]`
    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Tensor {
        let mut h = self.conv1.forward(&self.norm1.forward(x).silu());
        if let (Some(layer), Some(time)) = (&self.time, time) {
            h += layer.forward(time).unsqueeze(-1).unsqueeze(-1);
        }
        let h = self.conv2.forward(&self.norm2.forward(&h).silu());
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(x) + h,
            None => x + h,
        }
    }
}

/// Halves height and width.
pub enum Downsample {
    /// The UNet's: padding 1 on every side.
    Symmetric(Conv2d),
    /// The VAE's: padding below and to the right only, so that exact 2×2 blocks are seen.
    Asymmetric(Conv2d),
}

impl Downsample {
    /// The UNet's.
    pub fn symmetric(scope: &Scope<'_>, channels: i64) -> Self {
        Self::Symmetric(Conv2d::new(&(scope / "conv"), channels, channels, 3, 2, 1))
    }

    /// The VAE's.
    pub fn asymmetric(scope: &Scope<'_>, channels: i64) -> Self {
        Self::Asymmetric(Conv2d::new(&(scope / "conv"), channels, channels, 3, 2, 0))
    }

    /// Its convolution.
    pub(crate) fn conv(&self) -> &Conv2d {
        match self {
            Self::Symmetric(conv) | Self::Asymmetric(conv) => conv,
        }
    }

    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`
    /// - returns: `[batch, channels, height / 2, width / 2]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Symmetric(conv) => conv.forward(x),
            Self::Asymmetric(conv) => conv.forward(&x.constant_pad_nd([0, 1, 0, 1])),
        }
    }
}

/// Doubles height and width by repetition, then convolves.
pub struct Upsample(Conv2d);

impl Upsample {
    /// Channels stay.
    pub fn new(scope: &Scope<'_>, channels: i64) -> Self {
        Self(Conv2d::new(&(scope / "conv"), channels, channels, 3, 1, 1))
    }

    /// Its convolution.
    pub(crate) fn conv(&self) -> &Conv2d {
        &self.0
    }

    /// # Shapes
    /// - `x`: `[batch, channels, h, w]`
    /// - `size`: `[height, width]` wanted: `[2h, 2w]`, or one less where an odd size was halved
    /// - returns: `[batch, channels, height, width]`
    pub fn forward(&self, x: &Tensor, size: [i64; 2]) -> Tensor {
        self.0.forward(&x.upsample_nearest2d(size, None, None))
    }
}
