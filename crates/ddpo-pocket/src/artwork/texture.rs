//! A drawing as a chain of premultiplied images, each half the size of the one before, so that
//! sampling it at any smaller size does not alias.

/// Premultiplied RGBA pixels of one drawing at full, half, quarter, … size.
#[derive(Debug, Clone)]
pub struct Texture {
    levels: Vec<Level>,
}

/// Pixels with a transparent border of one, so that bilinear sampling need not look for the edge.
#[derive(Debug, Clone)]
struct Level {
    size: usize,
    texels: Vec<[u8; 4]>,
}

impl Texture {
    /// From straight (not premultiplied) RGBA bytes, `[size, size, 4]`.
    ///
    /// # Panics
    /// If `rgba` is not `size * size * 4` long.
    pub fn from_straight(rgba: &[u8], size: usize) -> Self {
        assert_eq!(
            rgba.len(),
            size * size * 4,
            "bytes of a {size} pixel drawing"
        );
        let pixel = |x: usize, y: usize| {
            let at = (y * size + x) * 4;
            premultiply([rgba[at], rgba[at + 1], rgba[at + 2], rgba[at + 3]])
        };
        let mut levels = vec![Level::new(size, pixel)];
        while let Some(half) = levels.last().and_then(Level::halved) {
            levels.push(half);
        }
        Self { levels }
    }

    /// Width and height of the full-size image in pixels.
    pub fn size(&self) -> usize {
        self.levels[0].size
    }

    /// Premultiplied RGBA of a pixel of the full-size image.
    ///
    /// # Panics
    /// If `x` or `y` is not below [`Texture::size`].
    pub fn premultiplied(&self, x: usize, y: usize) -> [u8; 4] {
        let size = self.size();
        assert!(
            x < size && y < size,
            "pixel ({x}, {y}) of a drawing of {size}"
        );
        self.levels[0].texel(x, y)
    }

    /// The level to sample where one pixel of the target covers `reduction` pixels of the
    /// full-size image in each direction: between one and two of that level's own pixels.
    pub(crate) fn level_for(&self, reduction: f32) -> Mip<'_> {
        let coarser = (1..self.levels.len()).take_while(|&n| reduction >= (1 << n) as f32);
        let level = &self.levels[coarser.count()];
        Mip {
            size: level.size,
            texels: &level.texels,
        }
    }
}

impl Level {
    fn new(size: usize, pixel: impl Fn(usize, usize) -> [u8; 4]) -> Self {
        let mut texels = vec![[0; 4]; (size + 2) * (size + 2)];
        for y in 0..size {
            for x in 0..size {
                texels[(y + 1) * (size + 2) + x + 1] = pixel(x, y);
            }
        }
        Self { size, texels }
    }

    fn texel(&self, x: usize, y: usize) -> [u8; 4] {
        self.texels[(y + 1) * (self.size + 2) + x + 1]
    }

    fn halved(&self) -> Option<Self> {
        if !self.size.is_multiple_of(2) || self.size < 12 {
            return None;
        }
        Some(Self::new(self.size / 2, |x, y| {
            let at = |dx, dy| self.texel(2 * x + dx, 2 * y + dy);
            let four = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
            std::array::from_fn(|c| {
                let sum: u16 = four.iter().map(|texel| u16::from(texel[c])).sum();
                ((sum + 2) / 4) as u8
            })
        }))
    }
}

/// One level of a [`Texture`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mip<'a> {
    pub(crate) size: usize,
    texels: &'a [[u8; 4]],
}

impl Mip<'_> {
    /// Bilinear sample at pixel coordinates (0 is the left edge); transparent outside.
    /// Premultiplied, 0 to 255.
    #[inline]
    pub(crate) fn sample(&self, x: f32, y: f32) -> [f32; 4] {
        // In the bordered image, from the middle of its first pixel.
        let (x, y) = (x + 0.5, y + 0.5);
        let limit = (self.size + 1) as f32;
        if !(x >= 0.0 && y >= 0.0 && x < limit && y < limit) {
            return [0.0; 4];
        }
        let (left, top) = (x as usize, y as usize);
        let (fx, fy) = (x - left as f32, y - top as f32);
        let stride = self.size + 2;
        let upper = top * stride + left;
        let [a, b] = [upper, upper + 1].map(|at| self.texels[at].map(f32::from));
        let [c, d] = [upper + stride, upper + stride + 1].map(|at| self.texels[at].map(f32::from));
        std::array::from_fn(|i| {
            let upper = a[i] + (b[i] - a[i]) * fx;
            let lower = c[i] + (d[i] - c[i]) * fx;
            upper + (lower - upper) * fy
        })
    }
}

fn premultiply([r, g, b, a]: [u8; 4]) -> [u8; 4] {
    let by_alpha = |c: u8| ((u16::from(c) * u16::from(a) + 127) / 255) as u8;
    [by_alpha(r), by_alpha(g), by_alpha(b), a]
}
