//! The head of LAION's predictor and ImageReward: five linear layers without activations.

use ddpo_torch::Scope;
use ddpo_torch::nn::Linear;
use tch::{Kind, Tensor};

/// Indices of the layers in the published files; the others are dropout, which does nothing here.
const PLACES: [i64; 5] = [0, 2, 4, 6, 7];

/// Five linear layers, collapsed into one affine map: `w · x + b`.
///
/// This is exact up to rounding, is done in f64, and takes 768 products per image instead of 0.9 million.
pub struct AffineHead {
    /// `[width]`, f32, on the device of the scope.
    pub weight: Tensor,
    /// b.
    pub bias: f64,
}

impl AffineHead {
    /// Reads `layers.{0,2,4,6,7}`: from `width` to 1,024, 128, 64, 16 and 1.
    ///
    /// Weights that are missing or misshapen are reported by the scope's [`finish`](ddpo_torch::Store::finish).
    pub fn new(scope: &Scope<'_>, width: i64) -> Self {
        let widths = [width, 1024, 128, 64, 16, 1];
        let layers = scope / "layers";
        let mut map = Tensor::eye(width, (Kind::Double, tch::Device::Cpu));
        let mut offset = Tensor::zeros([width], (Kind::Double, tch::Device::Cpu));
        let mut device = tch::Device::Cpu;
        let mut is_whole = true;
        for (place, pair) in PLACES.into_iter().zip(widths.windows(2)) {
            let layer = Linear::new(&(&layers / place), pair[0], pair[1]);
            device = layer.weight.device();
            let weight = layer
                .weight
                .to_device(tch::Device::Cpu)
                .to_kind(Kind::Double);
            // A placeholder for a missing tensor; `finish` reports it.
            is_whole &= weight.size() == [pair[1], pair[0]];
            if !is_whole {
                continue;
            }
            map = weight.matmul(&map);
            offset = weight.mv(&offset);
            if let Some(bias) = &layer.bias {
                offset += bias.to_device(tch::Device::Cpu).to_kind(Kind::Double);
            }
        }
        if !is_whole {
            map = Tensor::zeros([1, width], (Kind::Double, tch::Device::Cpu));
            offset = Tensor::zeros([1], (Kind::Double, tch::Device::Cpu));
        }
        Self {
            weight: map.get(0).to_kind(Kind::Float).to_device(device),
            bias: offset.double_value(&[0]),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, width]`, any kind, on the head's device
    /// - returns: `[batch]`, f32
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.to_kind(Kind::Float).mv(&self.weight) + self.bias
    }
}
