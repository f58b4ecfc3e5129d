//! Images as PNG files, for scoring elsewhere.

use crate::{Result, RewardError};

/// The file of one image of interleaved RGB bytes.
///
/// # Errors
/// [`RewardError::Permanent`] if the encoder fails.
pub(crate) fn encode(rgb: &[u8], height: usize, width: usize) -> Result<Vec<u8>> {
    let mut file = Vec::with_capacity(rgb.len() / 2);
    let failed = |error: png::EncodingError| RewardError::permanent("png", error);
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(rgb).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}
