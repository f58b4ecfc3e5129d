//! Drawings as SVG markup, and their rendering to pixels with a font that is compiled in.

use std::sync::{Arc, LazyLock};

use resvg::{tiny_skia, usvg};

use crate::{Error, Result};

/// A drawing made by this crate: its text is escaped, and it has no scripts and loads nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svg(String);

impl Svg {
    /// The markup.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn own(markup: String) -> Self {
        Self(markup)
    }

    /// The drawing as PNG, `scale` pixels per SVG unit.
    ///
    /// # Errors
    /// [`Error::Figure`] if the scale is not positive or the image too large to hold.
    pub fn png(&self, scale: f32) -> Result<Vec<u8>> {
        self.rasterize(scale)?.encode_png().map_err(Error::figure)
    }

    pub(crate) fn rasterize(&self, scale: f32) -> Result<tiny_skia::Pixmap> {
        static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
            let mut fonts = usvg::fontdb::Database::new();
            fonts.load_font_data(notosans::REGULAR_TTF.to_vec());
            fonts.load_font_data(notosans::BOLD_TTF.to_vec());
            fonts.set_sans_serif_family("Noto Sans");
            Arc::new(fonts)
        });
        let options = usvg::Options {
            fontdb: FONTS.clone(),
            font_family: "Noto Sans".to_owned(),
            ..usvg::Options::default()
        };
        let tree = usvg::Tree::from_str(&self.0, &options).map_err(Error::figure)?;
        let size = tree
            .size()
            .to_int_size()
            .scale_by(scale)
            .ok_or_else(|| Error::figure(format!("cannot be scaled by {scale}")))?;
        let mut pixmap = tiny_skia::Pixmap::new(size.width(), size.height())
            .ok_or_else(|| Error::figure("too large"))?;
        let transform = tiny_skia::Transform::from_scale(scale, scale);
        resvg::render(&tree, transform, &mut pixmap.as_mut());
        Ok(pixmap)
    }
}
