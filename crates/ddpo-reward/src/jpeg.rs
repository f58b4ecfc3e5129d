//! Size of an image as a JPEG file: the paper's compressibility and incompressibility.
//!
//! The paper saves with Pillow at quality 95 (Black et al. 2023, section 5.1; jannerm/ddpo
//! `utils/hdf5.py`, `encode_jpeg`; ddpo-pytorch `rewards.py`, `jpeg_incompressibility`). What Pillow writes
//! by default is a baseline JFIF file with 4:2:0 chroma subsampling, the standard Huffman tables and no
//! metadata, so that is what is written here, by the same codec (libjpeg-turbo). An encoder that keeps full
//! chroma at high quality makes files about twice as large on noise.

use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use crate::{Images, Prompt, Result, Reward, RewardError, RewardInfo, reward::check_batch};

/// Quality of the paper's JPEG files.
pub const QUALITY: i32 = 95;

/// Minus the size as a JPEG file, in kB of 1000 bytes: at most about −0.6, higher for simpler images.
///
/// The smallest file is that of a flat image: 0.7 kB at 64×64, 4.7 kB at 512×512.
#[derive(Debug)]
pub struct JpegCompressibility(JpegSize);

/// The size as a JPEG file, in kB of 1000 bytes: higher for busier images.
#[derive(Debug)]
pub struct JpegIncompressibility(JpegSize);

/// Byte counts of images as JPEG files, equal to those that Pillow writes.
#[derive(Debug)]
pub struct JpegSize {
    compressor: Compressor,
    buffer: Vec<u8>,
}

impl JpegCompressibility {
    /// The value of `reward.kind`.
    pub const NAME: &'static str = "jpeg-compressibility";

    /// At quality 95.
    ///
    /// # Errors
    /// [`RewardError::Permanent`] if the codec cannot be set up.
    pub fn new() -> Result<Self> {
        JpegSize::new(QUALITY).map(Self)
    }
}

impl JpegIncompressibility {
    /// The value of `reward.kind`.
    pub const NAME: &'static str = "jpeg-incompressibility";

    /// At quality 95.
    ///
    /// # Errors
    /// [`RewardError::Permanent`] if the codec cannot be set up.
    pub fn new() -> Result<Self> {
        JpegSize::new(QUALITY).map(Self)
    }
}

impl JpegSize {
    /// An encoder of baseline 4:2:0 files at this quality, 1 to 100.
    ///
    /// # Errors
    /// [`RewardError::Permanent`] if the codec cannot be set up or refuses the quality.
    pub fn new(quality: i32) -> Result<Self> {
        let setup = || {
            let mut compressor = Compressor::new()?;
            compressor.set_quality(quality)?;
            compressor.set_subsamp(Subsamp::Sub2x2)?;
            Ok(compressor)
        };
        Ok(Self {
            compressor: setup().map_err(codec_error)?,
            buffer: Vec::new(),
        })
    }

    /// The file of one image: row-major RGB bytes of `height` rows of `width` pixels.
    ///
    /// # Errors
    /// [`RewardError::BadInput`] unless there are `height * width * 3` bytes, [`RewardError::Permanent`] if
    /// the codec fails (a side above 65,500 pixels).
    pub fn encode(&mut self, rgb: &[u8], height: usize, width: usize) -> Result<&[u8]> {
        if rgb.len() != height * width * 3 {
            return Err(RewardError::bad_input(
                "image",
                format!("{height} * {width} * 3 bytes"),
                format!("{} bytes", rgb.len()),
            ));
        }
        let image = Image {
            pixels: rgb,
            width,
            pitch: width * 3,
            height,
            format: PixelFormat::RGB,
        };
        let bound = self
            .compressor
            .buf_len(width, height)
            .map_err(codec_error)?;
        self.buffer.resize(bound.max(self.buffer.len()), 0);
        let n = self
            .compressor
            .compress_to_slice(image, &mut self.buffer)
            .map_err(codec_error)?;
        Ok(&self.buffer[..n])
    }

    /// File sizes in bytes, one for each image.
    ///
    /// # Errors
    /// Same as [`encode`](Self::encode).
    pub fn bytes(&mut self, images: &Images) -> Result<Vec<usize>> {
        let (height, width) = (images.height(), images.width());
        images
            .iter_bytes()
            .map(|rgb| Ok(self.encode(rgb, height, width)?.len()))
            .collect()
    }

    fn size_kb(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        check_batch(images, prompts)?;
        let sizes = self.bytes(images)?;
        Ok(sizes.iter().map(|&n| n as f32 / 1000.0).collect())
    }
}

impl Reward for JpegCompressibility {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        let sizes = self.0.size_kb(images, prompts)?;
        Ok(sizes.into_iter().map(|kb| -kb).collect())
    }

    fn info(&self) -> RewardInfo {
        RewardInfo {
            quantity: "negative JPEG size".to_owned(),
            unit: "kB".to_owned(),
        }
    }
}

impl Reward for JpegIncompressibility {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        self.0.size_kb(images, prompts)
    }

    fn info(&self) -> RewardInfo {
        RewardInfo {
            quantity: "JPEG size".to_owned(),
            unit: "kB".to_owned(),
        }
    }
}

fn codec_error(error: turbojpeg::Error) -> RewardError {
    RewardError::permanent("jpeg", error)
}
