//! The background of a scene.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{SCENE_BYTES, SCENE_SIDE, sin_cos};

/// A named colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Color {
    /// `#ffffff`
    White,
    /// `#969696`
    Gray,
    /// `#1e1e22`
    Black,
    /// `#d63e3a`
    Red,
    /// `#f29234`
    Orange,
    /// `#f6d64a`
    Yellow,
    /// `#58ac58`
    Green,
    /// `#4882d6`
    Blue,
    /// `#8e5cbe`
    Purple,
    /// `#f4a0be`
    Pink,
}

impl Color {
    /// The ten colours of grounds, white first.
    pub const GROUNDS: [Self; 10] = [
        Self::White,
        Self::Gray,
        Self::Black,
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::Pink,
    ];

    /// The word for it in captions.
    pub fn word(self) -> &'static str {
        match self {
            Self::White => "white",
            Self::Gray => "gray",
            Self::Black => "black",
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::Pink => "pink",
        }
    }

    /// Red, green, blue.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::White => [255, 255, 255],
            Self::Gray => [150, 150, 150],
            Self::Black => [30, 30, 34],
            Self::Red => [214, 62, 58],
            Self::Orange => [242, 146, 52],
            Self::Yellow => [246, 214, 74],
            Self::Green => [88, 172, 88],
            Self::Blue => [72, 130, 214],
            Self::Purple => [142, 92, 190],
            Self::Pink => [244, 160, 190],
        }
    }

    /// A lighter shade, or light gray for white: the second colour of a pattern.
    fn shade(self) -> [u8; 3] {
        match self {
            Self::White => [196, 196, 200],
            _ => self
                .rgb()
                .map(|c| c + ((255 - u16::from(c)) * 11 / 20) as u8),
        }
    }
}

/// How a ground is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// One colour.
    Plain,
    /// From the colour to its shade.
    Gradient,
    /// Bands of the colour and its shade.
    Striped,
    /// Squares of the colour and its shade.
    Checkered,
    /// Dots of the shade on the colour.
    Dotted,
    /// The colour with noise.
    Noisy,
}

impl Pattern {
    /// Every pattern.
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::Gradient,
        Self::Striped,
        Self::Checkered,
        Self::Dotted,
        Self::Noisy,
    ];

    /// The word for it in captions; `None` for plain.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gradient => Some("gradient"),
            Self::Striped => Some("striped"),
            Self::Checkered => Some("checkered"),
            Self::Dotted => Some("dotted"),
            Self::Noisy => Some("noisy"),
        }
    }
}

/// The ground of a scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Ground {
    /// How it is covered.
    pub pattern: Pattern,
    /// Its colour.
    pub color: Color,
    /// Direction of stripes and gradients, in radians.
    angle: f32,
    /// Period of stripes, squares and dots, or side of a grain of noise, in pixels.
    period: f32,
    /// Where the pattern starts, in pixels.
    phase: [f32; 2],
    /// Key of the noise.
    noise: u64,
}

impl Ground {
    /// One colour all over.
    pub fn plain(color: Color) -> Self {
        Self {
            pattern: Pattern::Plain,
            color,
            angle: 0.0,
            period: 1.0,
            phase: [0.0; 2],
            noise: 0,
        }
    }

    /// A pattern of drawn direction, period and phase.
    pub fn sample(pattern: Pattern, color: Color, rng: &mut ChaCha8Rng) -> Self {
        use std::f32::consts::{FRAC_PI_4, TAU};
        let (angle, period) = match pattern {
            Pattern::Plain => return Self::plain(color),
            Pattern::Gradient => (rng.random_range(0.0..TAU), 1.0),
            Pattern::Striped => (
                FRAC_PI_4 * rng.random_range(0..4) as f32,
                rng.random_range(9.0..18.0),
            ),
            Pattern::Checkered => (0.0, rng.random_range(14..=26) as f32),
            Pattern::Dotted => (0.0, rng.random_range(10.0..16.0)),
            Pattern::Noisy => (0.0, rng.random_range(1..=3) as f32),
        };
        let phase = [0, 1].map(|_| (rng.random_range(0.0..1.0f32) * period).floor());
        Self {
            pattern,
            color,
            angle,
            period,
            phase,
            noise: rng.random(),
        }
    }

    /// Covers all of `pixels`.
    pub(super) fn paint(&self, pixels: &mut [u8; SCENE_BYTES]) {
        match self.pattern {
            Pattern::Plain => fill(pixels, |_, _| 0.0, self.color),
            Pattern::Gradient => {
                let (sin, cos) = sin_cos(self.angle);
                let length = SCENE_SIDE as f32 * (sin.abs() + cos.abs());
                fill(
                    pixels,
                    |x, y| 0.5 + (x * cos + y * sin) / length,
                    self.color,
                );
            }
            Pattern::Striped => {
                let (sin, cos) = sin_cos(self.angle);
                fill(
                    pixels,
                    |x, y| self.band(x * cos + y * sin + self.phase[0]),
                    self.color,
                );
            }
            Pattern::Checkered => {
                let square = |x: f32, y: f32| {
                    let across = self.band(x + self.phase[0]);
                    let down = self.band(y + self.phase[1]);
                    across + down - 2.0 * across * down
                };
                fill(pixels, square, self.color);
            }
            Pattern::Dotted => {
                let radius = 0.3 * self.period;
                let offset = |at: f32| at.rem_euclid(self.period) - 0.5 * self.period;
                let dot = |x: f32, y: f32| {
                    let (dx, dy) = (offset(x + self.phase[0]), offset(y + self.phase[1]));
                    let from_middle = (dx * dx + dy * dy).sqrt();
                    (radius - from_middle + 0.5).clamp(0.0, 1.0)
                };
                fill(pixels, dot, self.color);
            }
            Pattern::Noisy => self.paint_noise(pixels),
        }
    }

    /// How much of a pixel at `at` along the stripes lies in the second half of a period.
    fn band(&self, at: f32) -> f32 {
        let half = 0.5 * self.period;
        let from_middle = (at.rem_euclid(self.period) - half).abs();
        // Half the band lies within a quarter of a period of the middle.
        (0.5 * half - from_middle + 0.5).clamp(0.0, 1.0)
    }

    /// Grains of uniform noise, grey or coloured, up to 56 levels either way.
    fn paint_noise(&self, pixels: &mut [u8; SCENE_BYTES]) {
        let mut grains = [0u8; SCENE_BYTES];
        ChaCha8Rng::seed_from_u64(self.noise).fill_bytes(&mut grains);
        let side = self.period as usize;
        let coloured = self.noise.is_multiple_of(2);
        let strength = 24 + (self.noise / 2 % 33) as i16;
        let base = self.color.rgb().map(i16::from);
        for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            let (x, y) = (i % SCENE_SIDE / side, i / SCENE_SIDE / side);
            let grain = (y * SCENE_SIDE + x) * 3;
            for c in 0..3 {
                let level = i16::from(grains[if coloured { grain + c } else { grain }]) - 128;
                pixel[c] = (base[c] + level * strength / 128).clamp(0, 255) as u8;
            }
        }
    }
}

/// Mixes the colour (0) and its shade (1) by `share`, a function of the position from the middle.
fn fill(pixels: &mut [u8; SCENE_BYTES], share: impl Fn(f32, f32) -> f32, color: Color) {
    let (base, shade) = (color.rgb().map(f32::from), color.shade().map(f32::from));
    let middle = SCENE_SIDE as f32 / 2.0 - 0.5;
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (x, y) = (
            (i % SCENE_SIDE) as f32 - middle,
            (i / SCENE_SIDE) as f32 - middle,
        );
        let share = share(x, y);
        for c in 0..3 {
            pixel[c] = (base[c] + (shade[c] - base[c]) * share + 0.5) as u8;
        }
    }
}
