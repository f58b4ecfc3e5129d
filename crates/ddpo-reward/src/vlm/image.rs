//! Images as `data:` URLs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::jpeg::JpegSize;
use crate::png::encode;
use crate::{Images, Result};

/// Quality of the JPEG files that the reference sends (jannerm/ddpo `training/callbacks.py`, ddpo-pytorch
/// `rewards.py`).
const JPEG_QUALITY: i32 = 80;

/// Encoding of images in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// JPEG of quality 80, as in the reference.
    #[default]
    Jpeg,
    /// PNG: lossless, about ten times as many bytes.
    Png,
}

impl Encoding {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
        }
    }

    /// `data:image/…;base64,…` of every image.
    pub(super) fn data_urls(self, images: &Images) -> Result<Vec<String>> {
        let (height, width) = (images.height(), images.width());
        let mut jpeg = match self {
            Self::Jpeg => Some(JpegSize::new(JPEG_QUALITY)?),
            Self::Png => None,
        };
        let one = |rgb: &[u8]| -> Result<String> {
            let mut url = format!("data:image/{};base64,", self.name());
            match &mut jpeg {
                Some(jpeg) => STANDARD.encode_string(jpeg.encode(rgb, height, width)?, &mut url),
                None => STANDARD.encode_string(encode(rgb, height, width)?, &mut url),
            }
            Ok(url)
        };
        images.iter_bytes().map(one).collect()
    }
}
