//! A batch of images as bytes, and the prompts that they were made for.

use std::sync::Arc;

use ndarray::{Array4, ArrayView3, ArrayView4, Axis, concatenate};

use crate::{Result, RewardError};

/// A batch of RGB images.
///
/// Bytes rather than tensors: a reward needs no libtorch, and what it scores is what a viewer sees.
/// Always in standard (row-major) layout with three channels and at least one pixel.
///
/// # Shapes
/// `[batch, height, width, 3]`, u8, 0-255.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images(Array4<u8>);

impl Images {
    /// Checks the shape and makes the layout row-major.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] unless the last axis is 3 and height and width are at least 1.
    pub fn new(pixels: Array4<u8>) -> Result<Self> {
        let (_, height, width, channels) = pixels.dim();
        if channels != 3 || height == 0 || width == 0 {
            return Err(RewardError::bad_input(
                "images",
                "shape [batch, height >= 1, width >= 1, 3]",
                format!("{:?}", pixels.shape()),
            ));
        }
        Ok(Self(if pixels.is_standard_layout() {
            pixels
        } else {
            pixels.as_standard_layout().into_owned()
        }))
    }

    /// A batch from row-major bytes.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] unless `bytes` holds `batch * height * width * 3` values.
    pub fn from_bytes(batch: usize, height: usize, width: usize, bytes: Vec<u8>) -> Result<Self> {
        let n = bytes.len();
        let pixels = Array4::from_shape_vec((batch, height, width, 3), bytes).map_err(|_| {
            RewardError::bad_input(
                "images",
                format!("{batch} * {height} * {width} * 3 bytes"),
                format!("{n} bytes"),
            )
        })?;
        Self::new(pixels)
    }

    /// How many images.
    pub fn len(&self) -> usize {
        self.0.dim().0
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> usize {
        self.0.dim().1
    }

    /// Pixels from left to right.
    pub fn width(&self) -> usize {
        self.0.dim().2
    }

    /// All pixels, `[batch, height, width, 3]`.
    pub fn view(&self) -> ArrayView4<'_, u8> {
        self.0.view()
    }

    /// The images in turn, each `[height, width, 3]`.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ArrayView3<'_, u8>> {
        self.0.outer_iter()
    }

    /// The row-major bytes of each image in turn, `height * width * 3` each.
    pub fn iter_bytes(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let stride = self.height() * self.width() * 3;
        self.bytes().chunks_exact(stride)
    }

    /// All bytes, row-major.
    pub fn bytes(&self) -> &[u8] {
        self.0
            .as_slice()
            .expect("the constructor makes the layout row-major")
    }

    /// The images with these indices, in this order.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    pub fn select(&self, indices: &[usize]) -> Self {
        Self(self.0.select(Axis(0), indices))
    }

    /// One batch after another.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] if there is no batch, or heights or widths differ.
    pub fn concat(batches: &[Self]) -> Result<Self> {
        let views: Vec<_> = batches.iter().map(Images::view).collect();
        let sizes = || {
            batches
                .iter()
                .map(|b| format!("{}x{}", b.width(), b.height()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        concatenate(Axis(0), &views)
            .map(Self)
            .map_err(|_| RewardError::bad_input("image batches", "one size", sizes()))
    }

    /// The underlying array.
    pub fn into_inner(self) -> Array4<u8> {
        self.0
    }
}

/// What an image was asked to show.
///
/// The number is the prompt's place in its set; per-prompt statistics are kept by it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Place in the prompt set.
    pub id: u64,
    /// The exact text that the model reads.
    pub text: String,
    /// How often it is drawn beside others, relative to theirs; finite and above 0.
    pub weight: f64,
    /// A JSON object that only rewards read, as text: what they need to know beside the prompt.
    pub metadata: Option<Arc<str>>,
}

impl Prompt {
    /// A prompt with its place in the set, of weight 1 and without metadata.
    pub fn new(id: u64, text: impl Into<String>) -> Self {
        Self {
            id,
            text: text.into(),
            weight: 1.0,
            metadata: None,
        }
    }

    /// The same, drawn `weight` times as often as one of weight 1.
    pub fn with_weight(self, weight: f64) -> Self {
        Self { weight, ..self }
    }

    /// The same, with a JSON object for rewards.
    pub fn with_metadata(self, object: impl Into<Arc<str>>) -> Self {
        Self {
            metadata: Some(object.into()),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_shapes_are_refused_by_name() {
        let error = Images::new(Array4::zeros((2, 4, 4, 1))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "images: expected shape [batch, height >= 1, width >= 1, 3], got [2, 4, 4, 1]"
        );
        assert!(Images::new(Array4::zeros((2, 0, 4, 3))).is_err());
        assert!(Images::from_bytes(1, 2, 2, vec![0; 11]).is_err());
    }

    #[test]
    fn a_permuted_array_becomes_row_major() {
        let planes = Array4::from_shape_fn((1, 3, 2, 4), |(_, c, y, x)| (c * 10 + y * 4 + x) as u8);
        let images = Images::new(planes.permuted_axes([0, 2, 3, 1])).unwrap();
        assert_eq!((images.height(), images.width()), (2, 4));
        assert_eq!(&images.bytes()[..6], &[0, 10, 20, 1, 11, 21]);
    }

    #[test]
    fn select_and_concat_are_inverse() {
        let images = Images::from_bytes(3, 1, 2, (0..18).collect()).unwrap();
        let (a, b) = (images.select(&[0]), images.select(&[1, 2]));
        assert_eq!(Images::concat(&[a.clone(), b]).unwrap(), images);
        let wide = Images::from_bytes(1, 2, 2, vec![0; 12]).unwrap();
        assert!(Images::concat(&[a, wide]).is_err());
        assert!(Images::concat(&[]).is_err());
    }
}
