//! Latents to images, and images to latents.

use ddpo_train::{Images, LatentPosterior};
use tch::{Device, Kind, Tensor};

use crate::pipeline::Named;
use crate::{Error, Result, Vae};

/// Latents to images, and images to latents.
pub struct ImageCodec {
    /// The autoencoder.
    pub vae: Named<Vae>,
    /// Images that are decoded or encoded at a time: memory grows with it.
    pub slice: i64,
}

impl ImageCodec {
    /// Takes up to 64 images at once: small models can, a large one's caller sets `slice`.
    pub fn new(vae: Named<Vae>) -> Self {
        Self { vae, slice: 64 }
    }

    /// Images as tensors, with gradient where the latents ask for it: `clamp(image / 2 + 0.5, 0, 1)`, all at once.
    ///
    /// # Shapes
    /// - `latents`: `[batch, latent_channels, h, w]`, of the autoencoder's kind
    /// - returns: `[batch, 3, factor·h, factor·w]`, f32, in [0, 1]
    pub fn differentiable(&self, latents: &Tensor) -> Tensor {
        let images = self.vae.net.decode(latents).to_kind(Kind::Float);
        (images / 2.0 + 0.5).clamp(0.0, 1.0)
    }

    /// Without gradient: `round(255 · clamp(image / 2 + 0.5, 0, 1))`, as diffusers' pipeline (the JAX code
    /// truncates instead).
    ///
    /// # Shapes
    /// - `latents`: `[batch, latent_channels, h, w]`, f32
    /// - returns: `[batch, factor·h, factor·w, 3]`
    ///
    /// # Errors
    /// [`Error::Shape`] if the latents are not those of this autoencoder.
    pub fn decode(&self, latents: &Tensor) -> Result<Images> {
        let actual = latents.size();
        let channels = self.vae.net.config.latent_channels;
        if actual.len() != 4 || actual[1] != channels {
            return Err(Error::Shape {
                name: "latents",
                expected: format!("[batch, {channels}, h, w]"),
                actual,
            });
        }
        let _guard = tch::no_grad_guard();
        let kind = self
            .vae
            .tensors
            .values()
            .next()
            .map_or(Kind::Float, Tensor::kind);
        let parts: Vec<Tensor> = latents
            .split(self.slice.max(1), 0)
            .iter()
            .map(|part| {
                let images = self.vae.net.decode(&part.to_kind(kind));
                ((images.to_kind(Kind::Float) / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0)
                    .round()
                    .to_kind(Kind::Uint8)
            })
            .collect();
        let bytes = Tensor::cat(&parts, 0);
        let nhwc = bytes
            .permute([0, 2, 3, 1])
            .to_device(Device::Cpu)
            .contiguous();
        let size = nhwc.size();
        let mut pixels = vec![0; nhwc.numel()];
        nhwc.f_copy_data_u8(&mut pixels, nhwc.numel())?;
        let [batch, height, width] = [size[0], size[1], size[2]].map(|n| n as usize);
        Images::from_bytes(batch, height, width, pixels).map_err(|e| Error::Train(e.into()))
    }
}

impl ddpo_train::Decoder for ImageCodec {
    fn decode(&self, latents: &Tensor) -> ddpo_train::Result<Images> {
        ImageCodec::decode(self, latents).map_err(ddpo_train::Error::model)
    }
}

impl ddpo_train::Encoder for ImageCodec {
    /// Pixels as `2 · byte / 255 − 1`, the inverse of [`decode`](Self::decode); the posterior's log-variance as
    /// diffusers clamps it. What rounding to bytes lost is not there (the JAX code encodes floats).
    fn encode(&self, images: &Images) -> ddpo_train::Result<LatentPosterior> {
        let (n, height, width) = (images.len(), images.height(), images.width());
        let factor = self.vae.net.config.factor() as usize;
        if !height.is_multiple_of(factor) || !width.is_multiple_of(factor) {
            return Err(ddpo_train::Error::model(Error::Shape {
                name: "images",
                expected: format!("[batch, height, width, 3] in multiples of {factor} pixels"),
                actual: [n, height, width, 3].map(|n| n as i64).to_vec(),
            }));
        }
        let _guard = tch::no_grad_guard();
        let like = self.vae.tensors.values().next();
        let (kind, device) = like.map_or((Kind::Float, Device::Cpu), |t| (t.kind(), t.device()));
        let shape = [n, height, width, 3].map(|n| n as i64);
        // Bytes are all on the device at once: an image takes hundreds of times as much within the encoder.
        let bytes = Tensor::from_slice(images.bytes())
            .view(shape)
            .to_device(device)
            .permute([0, 3, 1, 2]);
        let scale = self.vae.net.config.scaling_factor;
        let (means, stds): (Vec<Tensor>, Vec<Tensor>) = bytes
            .split(self.slice.max(1), 0)
            .iter()
            .map(|part| {
                let pixels = part.to_kind(Kind::Float) * (2.0 / 255.0) - 1.0;
                let pixels = pixels.contiguous().to_kind(kind);
                let found = self.vae.net.encoder.forward(&pixels);
                let mean = found.mean.to_kind(Kind::Float) * scale;
                let std = (found.log_var.to_kind(Kind::Float) * 0.5).exp() * scale;
                (mean, std)
            })
            .unzip();
        Ok(LatentPosterior {
            mean: Tensor::cat(&means, 0),
            std: Tensor::cat(&stds, 0),
        })
    }
}
