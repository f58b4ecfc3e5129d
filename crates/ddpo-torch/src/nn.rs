//! The five layers that all models here consist of, with diffusers' names for their tensors.

use tch::{Kind, Tensor};

use crate::weights::{Init, Scope};

/// `y = x Wᵀ + b`.
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Low-rank branch (LoRA), if there is one.
    pub low_rank: Option<LowRank>,
}

/// The low-rank branch of a linear layer, `scale · up down x` (LoRA, Hu et al. 2021).
pub struct LowRank {
    /// `[rank, in]`.
    pub down: Tensor,
    /// `[out, rank]`, of the kind and on the device of `down`.
    pub up: Tensor,
    /// α / rank.
    pub scale: f64,
}

impl LowRank {
    /// Computed in the dtype of the factors, so that small changes are not lost next to a half-precision weight; the
    /// result has the dtype of `x` (diffusers 0.17.1, `LoRALinearLayer.forward`).
    ///
    /// # Shapes
    /// - `x`: `[..., in]`
    /// - returns: `[..., out]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let none = None::<&Tensor>;
        let h = x.to_kind(self.down.kind()).linear(&self.down, none);
        self.scaled(h.linear(&self.up, none)).to_kind(x.kind())
    }

    /// The change of the weight, `scale · up down`, in the dtype of the factors.
    ///
    /// # Shapes
    /// - returns: `[out, in]`
    pub fn change(&self) -> Tensor {
        self.scaled(self.up.matmul(&self.down))
    }

    fn scaled(&self, t: Tensor) -> Tensor {
        match self.scale == 1.0 {
            true => t,
            false => t * self.scale,
        }
    }

    fn shallow_clone(&self) -> Self {
        Self {
            down: self.down.shallow_clone(),
            up: self.up.shallow_clone(),
            scale: self.scale,
        }
    }
}

impl Linear {
    /// With a bias.
    pub fn new(scope: &Scope<'_>, n_in: i64, n_out: i64) -> Self {
        let mut layer = Self::without_bias(scope, n_in, n_out);
        layer.bias = Some(scope.tensor("bias", &[n_out], default_init(n_in)));
        layer
    }

    /// Without a bias, as the query, key and value of attention in diffusers.
    pub fn without_bias(scope: &Scope<'_>, n_in: i64, n_out: i64) -> Self {
        Self {
            weight: scope.tensor("weight", &[n_out, n_in], default_init(n_in)),
            bias: None,
            low_rank: None,
        }
    }

    /// A copy of the layer that shares its tensors.
    pub fn shared(&self) -> Self {
        Self {
            weight: self.weight.shallow_clone(),
            bias: self.bias.as_ref().map(Tensor::shallow_clone),
            low_rank: self.low_rank.as_ref().map(LowRank::shallow_clone),
        }
    }

    /// A layer without gradient whose weight is the sum of this one's weight and its low-rank branch; this one is
    /// unchanged. Without a branch the weight is shared.
    ///
    /// The sum is computed in f32 and rounded to the weight's dtype once; with a half-precision weight, small changes
    /// are lost by this rounding.
    pub fn merged(&self) -> Self {
        let weight = match &self.low_rank {
            None => self.weight.shallow_clone(),
            Some(branch) => tch::no_grad(|| {
                let change = branch.change().to_kind(Kind::Float);
                let sum = self.weight.to_kind(Kind::Float) + change;
                sum.to_kind(self.weight.kind())
            }),
        };
        Self {
            weight,
            low_rank: None,
            ..self.shared()
        }
    }

    /// Whether its weight or its low-rank branch requires gradients.
    pub fn is_trained(&self) -> bool {
        let branch = self.low_rank.as_ref();
        self.weight.requires_grad() || branch.is_some_and(|branch| branch.up.requires_grad())
    }

    /// # Shapes
    /// - `x`: `[..., in]`
    /// - returns: `[..., out]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.linear(&self.weight, self.bias.as_ref());
        match &self.low_rank {
            Some(branch) => y + branch.forward(x),
            None => y,
        }
    }
}

/// A square two-dimensional convolution.
pub struct Conv2d {
    /// `[out, in, kernel, kernel]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// `kernel` 3 with padding 1 and stride 1 keeps height and width.
    pub fn new(
        scope: &Scope<'_>,
        n_in: i64,
        n_out: i64,
        kernel: i64,
        stride: i64,
        padding: i64,
    ) -> Self {
        let init = default_init(n_in * kernel * kernel);
        Self {
            weight: scope.tensor("weight", &[n_out, n_in, kernel, kernel], init),
            bias: scope.tensor("bias", &[n_out], init),
            stride,
            padding,
        }
    }

    /// # Shapes
    /// - `x`: `[batch, in, height, width]`
    /// - returns: `[batch, out, height', width']`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(
            &self.weight,
            Some(&self.bias),
            [self.stride; 2],
            [self.padding; 2],
            [1, 1],
            1,
        )
    }
}

/// Normalises over the channels of a group and all positions.
pub struct GroupNorm {
    /// `[channels]`.
    pub weight: Tensor,
    /// `[channels]`.
    pub bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// `channels` must be a multiple of `groups`.
    pub fn new(scope: &Scope<'_>, groups: i64, channels: i64, eps: f64) -> Self {
        Self {
            weight: scope.tensor("weight", &[channels], Init::Ones),
            bias: scope.tensor("bias", &[channels], Init::Zeros),
            groups,
            eps,
        }
    }

    /// # Shapes
    /// - `x`: `[batch, channels, ...]`
    /// - returns: the same
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(
            self.groups,
            Some(&self.weight),
            Some(&self.bias),
            self.eps,
            true,
        )
    }
}

/// Normalises over the last dimension.
pub struct LayerNorm {
    /// `[dim]`.
    pub weight: Tensor,
    /// `[dim]`.
    pub bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Torch's own epsilon is 1e-5.
    pub fn new(scope: &Scope<'_>, dim: i64, eps: f64) -> Self {
        Self {
            weight: scope.tensor("weight", &[dim], Init::Ones),
            bias: scope.tensor("bias", &[dim], Init::Zeros),
            eps,
        }
    }

    /// # Shapes
    /// - `x`: `[..., dim]`
    /// - returns: the same
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(
            self.weight.size(),
            Some(&self.weight),
            Some(&self.bias),
            self.eps,
            true,
        )
    }
}

/// A table of vectors looked up by index.
pub struct Embedding {
    /// `[entries, dim]`.
    pub weight: Tensor,
}

impl Embedding {
    /// Random tables start at N(0, 0.02²), as CLIP's.
    pub fn new(scope: &Scope<'_>, entries: i64, dim: i64) -> Self {
        Self {
            weight: scope.tensor("weight", &[entries, dim], Init::Normal(0.02)),
        }
    }

    /// # Shapes
    /// - `ids`: `[...]`, i64, each below `entries`
    /// - returns: `[..., dim]`
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        debug_assert_eq!(ids.kind(), Kind::Int64);
        Tensor::embedding(&self.weight, ids, -1, false, false)
    }
}

/// Torch's default for linear and convolution layers.
fn default_init(fan_in: i64) -> Init {
    Init::Uniform(1.0 / (fan_in as f64).sqrt())
}
