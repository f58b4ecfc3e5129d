//! The aesthetic score: LAION's linear predictor on CLIP's embedding of an image.

use std::path::Path;

use ddpo_clip::image::{MEAN, STD};
use ddpo_clip::{ClipImages, ClipVisionModel};
use ddpo_torch::Store;
use tch::{Device, Kind, Tensor};

use crate::{AffineHead, Error, Result};

/// Scale of the tower's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rescaling {
    /// Bytes divided by 255, as CLIP was trained.
    #[default]
    Once,
    /// Divided by 255 once more: what the JAX code of Black et al. did (jannerm/ddpo gives images in [0, 1] to the
    /// processor of transformers 4.28.1, which divides again), so that the tower saw nearly black images and
    /// scores are lower. Only to compare with curves made that way.
    Twice,
}

/// CLIP's image tower, normalisation, and LAION's head: a score of about 1 to 10, as people rated images; SD v1.4's
/// images of animals have 5 to 6.
///
/// Black et al. 2023, section 5.2; ddpo-pytorch `aesthetic_scorer.py`; christophschuhmann/improved-aesthetic-predictor.
pub struct AestheticModel {
    tower: ClipVisionModel,
    head: AffineHead,
    images: ClipImages,
    rescaling: Rescaling,
}

impl AestheticModel {
    /// From parts; `head` is on the tower's device.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the head does not fit the tower's embedding.
    pub fn new(tower: ClipVisionModel, head: AffineHead, rescaling: Rescaling) -> Result<Self> {
        let (gives, reads) = (tower.projection_dim(), head.weight.size()[0]);
        if gives != reads {
            let reason =
                format!("the image tower gives {gives} numbers, the aesthetic head reads {reads}");
            return Err(Error::Mismatch { reason });
        }
        let images = ClipImages::new(tower.image_size());
        Ok(Self {
            tower,
            head,
            images,
            rescaling,
        })
    }

    /// The tower from a folder in transformers' layout (`openai/clip-vit-large-patch14`), the head from LAION's
    /// `.pth` or the same as safetensors. `kind` is the tower's; the head is f32.
    ///
    /// # Errors
    /// Same as [`ClipVisionModel::open`]; [`Error::Torch`] with the file of the head; [`Error::Mismatch`].
    pub fn open(
        clip: &Path,
        head: &Path,
        rescaling: Rescaling,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        let store = Store::open(head, device, Kind::Float)?;
        let tower = ClipVisionModel::open(clip, device, kind)?;
        let head = AffineHead::new(&store.root(), tower.projection_dim());
        store.finish()?;
        Self::new(tower, head, rescaling)
    }

    /// The score of one image: `height` rows of `width` pixels, RGB.
    ///
    /// # Errors
    /// [`ddpo_clip::Error::Image`] unless there are `height * width * 3` bytes and at least one pixel.
    pub fn score(&self, rgb: &[u8], height: usize, width: usize) -> Result<f32> {
        let pixels = self.images.pixels(rgb, height, width)?;
        if pixels.size()[0] != 1 {
            let reason = format!("{} bytes are not one image of {width}x{height}", rgb.len());
            return Err(ddpo_clip::Error::Image { reason }.into());
        }
        let score = tch::no_grad(|| self.of_pixels(&pixels));
        Ok(score.double_value(&[0]) as f32)
    }

    /// Differentiable scores of images, for guidance. They differ from [`score`](Self::score) by the rounding to
    /// bytes.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]` in [0, 1], any device
    /// - returns: `[batch]`, f32, on the tower's device
    pub fn differentiable(&self, images: &Tensor) -> Tensor {
        self.of_pixels(&self.images.differentiable(images))
    }

    /// Scale of the tower's input.
    pub fn rescaling(&self) -> Rescaling {
        self.rescaling
    }

    fn of_pixels(&self, pixels: &Tensor) -> Tensor {
        let pixels = match self.rescaling {
            Rescaling::Once => pixels.shallow_clone(),
            Rescaling::Twice => {
                let black: Vec<f64> = (0..3).map(|c| -MEAN[c] / STD[c]).collect();
                let black = Tensor::from_slice(&black)
                    .to_kind(pixels.kind())
                    .to_device(pixels.device())
                    .view([1, 3, 1, 1]);
                (pixels - &black) / 255.0 + black
            }
        };
        let embeds = self.tower.forward(&pixels).to_kind(Kind::Float);
        let lengths = embeds.norm_scalaropt_dim(2.0, [-1_i64].as_slice(), true);
        self.head.forward(&(embeds / lengths))
    }
}
