//! Images through training: a grid with one row per prompt and one column per epoch.

use base64::Engine;
use ddpo_reward::Images;
use image::{ImageFormat, RgbImage, imageops, imageops::FilterType};
use maud::{PreEscaped, html};

use crate::{Error, Result, Svg};

/// Small images are enlarged by a whole factor to at least this side, so that pixels stay square.
const LEAST_SIDE: u32 = 96;
/// Large images are reduced to this side.
const MOST_SIDE: u32 = 256;
const GAP: u32 = 4;
const LABEL_WIDTH: u32 = 132;
const LABEL_HEIGHT: u32 = 26;

/// The same prompts and the same noise, epoch by epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgressSheet {
    /// One row each.
    pub prompts: Vec<String>,
    /// Header of a column, such as `epoch 4`, and one image for each prompt.
    pub columns: Vec<(String, Images)>,
}

/// An image in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Png(Vec<u8>);

impl ProgressSheet {
    /// Draws the sheet as PNG, labels included.
    ///
    /// # Errors
    /// [`Error::Mismatch`] without rows or columns, or if a column does not have one image per prompt or
    /// differs in size from the first.
    pub fn png(&self) -> Result<Png> {
        let (width, height) = self.check()?;
        let (cell_w, cell_h) = shown_size(width, height);
        let (n_columns, n_rows) = (self.columns.len() as u32, self.prompts.len() as u32);
        let x_of = |column: u32| LABEL_WIDTH + column * (cell_w + GAP);
        let y_of = |row: u32| LABEL_HEIGHT + row * (cell_h + GAP);
        let size = (x_of(n_columns), y_of(n_rows));

        let labels = self.labels(size, cell_w, cell_h).rasterize(1.0)?;
        let mut sheet = RgbImage::from_fn(size.0, size.1, |x, y| {
            let p = labels.pixel(x, y).expect("as large as the sheet");
            image::Rgb([p.red(), p.green(), p.blue()])
        });
        for (column, (_, images)) in (0..).zip(&self.columns) {
            for (row, rgb) in (0..).zip(images.iter_bytes()) {
                let image = shown(rgb, width, height);
                imageops::replace(&mut sheet, &image, x_of(column).into(), y_of(row).into());
            }
        }
        Png::of(&sheet)
    }

    /// Width and height of every image.
    fn check(&self) -> Result<(u32, u32)> {
        let Some((_, first)) = self.columns.first().filter(|_| !self.prompts.is_empty()) else {
            let actual = format!("{} by {}", self.prompts.len(), self.columns.len());
            return Err(Error::mismatch(
                "progress sheet",
                "prompts and columns",
                actual,
            ));
        };
        let size = |i: &Images| (i.len(), i.width(), i.height());
        let expected = (self.prompts.len(), first.width(), first.height());
        for (header, images) in &self.columns {
            if size(images) != expected {
                let show = |(n, w, h)| format!("{n} images of {w}x{h}");
                return Err(Error::mismatch(
                    format!("progress sheet, column `{header}`"),
                    show(expected),
                    show(size(images)),
                ));
            }
        }
        Ok((first.width() as u32, first.height() as u32))
    }

    fn labels(&self, size: (u32, u32), cell_w: u32, cell_h: u32) -> Svg {
        let text = |x: u32, y: u32, anchor: &str, text: &str| {
            html! { text x=(x) y=(y) text-anchor=(anchor) { (text) } }
        };
        let markup = html! {
            svg xmlns="http://www.w3.org/2000/svg" width=(size.0) height=(size.1)
                font-family="sans-serif" font-size="14" fill="#222" {
                rect width="100%" height="100%" fill="#fff" {}
                @for (column, (header, _)) in (0..).zip(&self.columns) {
                    (text(LABEL_WIDTH + column * (cell_w + GAP) + cell_w / 2, 17, "middle", header))
                }
                @for (row, prompt) in (0..).zip(&self.prompts) {
                    @let middle = LABEL_HEIGHT + row * (cell_h + GAP) + cell_h / 2;
                    @let lines = wrapped(prompt, 17, 3);
                    @for (i, line) in (0..).zip(&lines) {
                        (text(LABEL_WIDTH - 10, middle + 5 + 18 * i - 9 * (lines.len() as u32 - 1), "end", line))
                    }
                }
            }
        };
        Svg::own(markup.into_string())
    }
}

impl Png {
    /// One image of a batch, enlarged to a side of at least 96 pixels or reduced to one of at most 256.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if there is no such image.
    pub fn of_image(images: &Images, index: usize) -> Result<Self> {
        let rgb = images
            .iter_bytes()
            .nth(index)
            .ok_or_else(|| Error::mismatch("image", format!("below {}", images.len()), index))?;
        Self::of(&shown(rgb, images.width() as u32, images.height() as u32))
    }

    /// From a file's content, which must be a PNG.
    ///
    /// # Errors
    /// [`Error::Mismatch`] without a PNG's signature.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Ok(Self(bytes));
        }
        let n = bytes.len();
        Err(Error::mismatch(
            "image",
            "a PNG file",
            format!("{n} other bytes"),
        ))
    }

    /// The file's content.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The image as a `data:` URL.
    pub(crate) fn data_uri(&self) -> PreEscaped<String> {
        let text = base64::engine::general_purpose::STANDARD.encode(&self.0);
        PreEscaped(format!("data:image/png;base64,{text}"))
    }

    fn of(image: &RgbImage) -> Result<Self> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(Error::figure)?;
        Ok(Self(bytes.into_inner()))
    }
}

fn shown_size(width: u32, height: u32) -> (u32, u32) {
    let (short, long) = (width.min(height), width.max(height));
    if long > MOST_SIDE {
        let reduced = |side: u32| (side * MOST_SIDE / long).max(1);
        (reduced(width), reduced(height))
    } else {
        let times = LEAST_SIDE.div_ceil(short).min(MOST_SIDE / long).max(1);
        (width * times, height * times)
    }
}

fn shown(rgb: &[u8], width: u32, height: u32) -> RgbImage {
    let image = RgbImage::from_raw(width, height, rgb.to_vec()).expect("three bytes per pixel");
    let (w, h) = shown_size(width, height);
    let filter = if w < width {
        FilterType::Lanczos3
    } else {
        FilterType::Nearest
    };
    if (w, h) == (width, height) {
        image
    } else {
        imageops::resize(&image, w, h, filter)
    }
}

/// Breaks at spaces into lines of at most `width` letters; what does not fit in `most` lines is cut with "…".
fn wrapped(text: &str, width: usize, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("starts with one line");
        let joined = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line.push_str(word);
        } else if joined <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    let cut = lines.len() > most;
    lines.truncate(most);
    let n = lines.len();
    for (i, line) in lines.iter_mut().enumerate() {
        let too_long = line.chars().count() > width;
        if too_long || (cut && i + 1 == n) {
            *line = line.chars().take(width - 1).chain(['…']).collect();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(n: usize, side: usize, value: u8) -> Images {
        Images::from_bytes(n, side, side, vec![value; n * side * side * 3]).unwrap()
    }

    fn sheet(side: usize) -> ProgressSheet {
        ProgressSheet {
            prompts: vec![
                "cat".into(),
                "<b>a dog</b> & 'friends' riding a very long bike".into(),
            ],
            columns: vec![
                ("epoch 0".into(), column(2, side, 10)),
                ("epoch 9".into(), column(2, side, 200)),
            ],
        }
    }

    #[test]
    fn a_sheet_has_one_row_per_prompt_and_one_column_per_epoch() {
        let png = sheet(64).png().unwrap();
        let image = image::load_from_memory(png.bytes()).unwrap().to_rgb8();
        // 64 pixels are shown at twice their size.
        assert_eq!(image.dimensions(), (132 + 2 * 132, 26 + 2 * 132));
        assert_eq!(image.get_pixel(132 + 5, 26 + 5).0, [10; 3]);
        assert_eq!(image.get_pixel(132 + 132 + 5, 26 + 132 + 5).0, [200; 3]);
        let label = (0..132).flat_map(|x| (26..158).map(move |y| (x, y)));
        assert!(
            label
                .filter(|&(x, y)| image.get_pixel(x, y).0[0] < 160)
                .count()
                > 20
        );
    }

    #[test]
    fn labels_are_escaped() {
        let svg = sheet(64).labels((400, 300), 128, 128);
        assert!(!svg.as_str().contains("<b>"));
        roxmltree::Document::parse(svg.as_str()).unwrap();
    }

    #[test]
    fn images_of_any_size_are_shown_at_a_size_that_can_be_seen() {
        assert_eq!(shown_size(64, 64), (128, 128));
        assert_eq!(shown_size(1, 1), (96, 96));
        assert_eq!(shown_size(1, 200), (1, 200));
        assert_eq!(shown_size(128, 128), (128, 128));
        assert_eq!(shown_size(512, 256), (256, 128));
        for side in [1, 7, 300, 512] {
            sheet(side).png().unwrap();
        }
    }

    #[test]
    fn sheets_that_do_not_fit_together_are_refused() {
        let mut s = sheet(64);
        s.columns[1].1 = column(1, 64, 0);
        assert_eq!(
            s.png().unwrap_err().to_string(),
            "progress sheet, column `epoch 9`: expected 2 images of 64x64, got 1 images of 64x64"
        );
        s.columns.clear();
        assert!(s.png().is_err());
        assert!(Png::of_image(&column(1, 8, 0), 1).is_err());
        assert!(Png::from_bytes(b"<svg/>".to_vec()).is_err());
    }

    #[test]
    fn long_prompts_are_broken_and_then_cut() {
        assert_eq!(wrapped("cat", 17, 3), ["cat"]);
        assert_eq!(wrapped("", 17, 3), [""]);
        assert_eq!(
            wrapped("a cat washing the dishes", 17, 3),
            ["a cat washing the", "dishes"]
        );
        assert_eq!(wrapped(&"x".repeat(30), 5, 3), ["xxxx…"]);
        assert_eq!(wrapped("a b c d e f g h", 3, 3), ["a b", "c d", "e …"]);
    }
}
