//! A drawing as a chain of premultiplied images, each half the size of the one before, so that
//! sampling it at any smaller size does not alias.

/// Premultiplied RGBA pixels of one drawing at full, half, quarter, … size.
#[derive(Debug, Clone)]
pub struct Texture {
    levels: Vec<Level>,
}

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
        let texels = rgba
            .chunks_exact(4)
            .map(|px| premultiply([px[0], px[1], px[2], px[3]]));
        let mut levels = vec![Level {
            size,
            texels: texels.collect(),
        }];
        while let Some(half) = levels.last().and_then(Level::halved) {
            levels.push(half);
        }
        Self { levels }
    }

    /// Width and height of the full-size image in pixels.
    pub fn size(&self) -> usize {
        self.levels[0].size
    }

    /// Premultiplied pixels of the full-size image, row by row.
    pub fn premultiplied(&self) -> &[[u8; 4]] {
        &self.levels[0].texels
    }

    /// The level to sample where one pixel of the target covers `reduction` pixels of the
    /// full-size image in each direction: between one and two of that level's own pixels.
    pub(crate) fn level_for(&self, reduction: f32) -> Mip<'_> {
        let wanted = reduction.max(1.0).log2().floor() as usize;
        let level = &self.levels[wanted.min(self.levels.len() - 1)];
        Mip {
            size: level.size,
            texels: &level.texels,
        }
    }
}

impl Level {
    fn halved(&self) -> Option<Self> {
        if !self.size.is_multiple_of(2) || self.size < 12 {
            return None;
        }
        let size = self.size / 2;
        let mut texels = Vec::with_capacity(size * size);
        for y in 0..size {
            for x in 0..size {
                let at = |dx, dy| self.texels[(2 * y + dy) * self.size + 2 * x + dx];
                let four = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
                texels.push(std::array::from_fn(|c| {
                    let sum: u16 = four.iter().map(|texel| u16::from(texel[c])).sum();
                    ((sum + 2) / 4) as u8
                }));
            }
        }
        Some(Self { size, texels })
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
        let (x, y) = (x - 0.5, y - 0.5);
        let limit = self.size as f32;
        if x <= -1.0 || y <= -1.0 || x >= limit || y >= limit {
            return [0.0; 4];
        }
        // Both are above -1, so that truncation after adding one rounds down.
        let (left, top) = ((x + 1.0) as i32 - 1, (y + 1.0) as i32 - 1);
        let (fx, fy) = (x - left as f32, y - top as f32);
        let [a, b] = [self.texel(left, top), self.texel(left + 1, top)];
        let [c, d] = [self.texel(left, top + 1), self.texel(left + 1, top + 1)];
        std::array::from_fn(|i| {
            let upper = a[i] + (b[i] - a[i]) * fx;
            let lower = c[i] + (d[i] - c[i]) * fx;
            upper + (lower - upper) * fy
        })
    }

    #[inline]
    fn texel(&self, x: i32, y: i32) -> [f32; 4] {
        let size = self.size as i32;
        if x < 0 || y < 0 || x >= size || y >= size {
            return [0.0; 4];
        }
        self.texels[(y * size + x) as usize].map(f32::from)
    }
}

fn premultiply([r, g, b, a]: [u8; 4]) -> [u8; 4] {
    let by_alpha = |c: u8| ((u16::from(c) * u16::from(a) + 127) / 255) as u8;
    [by_alpha(r), by_alpha(g), by_alpha(b), a]
}
