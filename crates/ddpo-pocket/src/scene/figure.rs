//! A drawing placed in a scene.

use super::{Color, SCENE_BYTES, SCENE_SIDE, sin_cos};
use crate::artwork::{ArtworkSet, Texture};

/// How much of the scene a single figure takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FigureSize {
    /// Six tenths of the scene.
    Small,
    /// Eight tenths of the scene.
    Medium,
    /// Nineteen twentieths of the scene.
    Large,
}

impl FigureSize {
    /// Every size, smallest first.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Longer side of the figure as a share of the scene's.
    pub fn share(self) -> f32 {
        match self {
            Self::Small => 0.6,
            Self::Medium => 0.8,
            Self::Large => 0.95,
        }
    }

    /// The word for this size in captions; none for the one between.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Small => Some("small"),
            Self::Medium => None,
            Self::Large => Some("big"),
        }
    }
}

/// The role of a figure in its scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FigureRole {
    /// What the scene is about: captions name it and judges count it.
    Subject,
    /// What a subject uses or stands next to: a bicycle, a tree.
    Prop,
}

/// One drawing with its position, size and transformation.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Index into [`Pack::entities`](crate::artwork::Pack::entities).
    pub entity: usize,
    /// The set of the drawing.
    pub set: ArtworkSet,
    /// Index into [`Pack::drawings`](crate::artwork::Pack::drawings).
    pub drawing: usize,
    /// How large it is, in words.
    pub size: FigureSize,
    /// Its middle, x and y, in pixels of the scene.
    pub center: [f32; 2],
    /// Side of its square, in pixels of the scene.
    pub side: f32,
    /// Clockwise rotation in radians.
    pub angle: f32,
    /// Mirrored left to right.
    pub flip: bool,
    /// Its role in the scene.
    pub role: FigureRole,
    /// A colour that replaces the drawing's own hues.
    pub tint: Option<Color>,
}

impl Figure {
    /// Paints the figure over what is in `pixels`.
    pub(super) fn paint(&self, texture: &Texture, pixels: &mut [u8; SCENE_BYTES]) {
        let mip = texture.level_for(texture.size() as f32 / self.side);
        let map = self.scene_to_texture(mip.size as f32);
        let (sin, cos) = sin_cos(self.angle);
        let reach = 0.5 * self.side * (cos.abs() + sin.abs()) + 1.0;
        let [columns, rows] = self.center.map(|at| covered(at, reach));
        for y in rows {
            for x in columns.clone() {
                // Four samples per pixel: a pixel covers one to two texels of the level.
                let mut sum = [0.0f32; 4];
                for [dx, dy] in [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]] {
                    let (px, py) = (x as f32 + dx, y as f32 + dy);
                    let u = map[0][0] * px + map[0][1] * py + map[0][2];
                    let v = map[1][0] * px + map[1][1] * py + map[1][2];
                    let texel = mip.sample(u, v);
                    for (total, value) in sum.iter_mut().zip(texel) {
                        *total += value;
                    }
                }
                if sum[3] > 0.0 {
                    if let Some(tint) = self.tint {
                        sum = tinted(sum, tint);
                    }
                    let at = (y * SCENE_SIDE + x) * 3;
                    let below = 1.0 - sum[3] / (4.0 * 255.0);
                    for (byte, over) in pixels[at..at + 3].iter_mut().zip(sum) {
                        *byte = (f32::from(*byte) * below + over / 4.0 + 0.5) as u8;
                    }
                }
            }
        }
    }

    /// Affine map, two rows of three, from scene pixels to pixels of a texture level of `size`.
    fn scene_to_texture(&self, size: f32) -> [[f32; 3]; 2] {
        let (sin, cos) = sin_cos(self.angle);
        let zoom = size / self.side;
        let mirror = if self.flip { -1.0 } else { 1.0 };
        let row = |a: f32, b: f32| [a, b, size / 2.0 - a * self.center[0] - b * self.center[1]];
        [
            row(mirror * zoom * cos, mirror * zoom * sin),
            row(-zoom * sin, zoom * cos),
        ]
    }
}

/// A premultiplied colour in the hue of `tint`: white is all tint, black a fifth of it, what is between nearer white
/// (a square root), since most drawings are darker than the colour that they are named by.
fn tinted([r, g, b, alpha]: [f32; 4], tint: Color) -> [f32; 4] {
    let luma = (0.299 * r + 0.587 * g + 0.114 * b) / alpha;
    let share = alpha / 255.0 * (0.2 + 0.8 * luma.min(1.0).sqrt());
    let [r, g, b] = tint.rgb().map(|c| f32::from(c) * share);
    [r, g, b, alpha]
}

/// Pixels of a row or column within `reach` of `at`.
fn covered(at: f32, reach: f32) -> std::ops::Range<usize> {
    let clamp = |edge: f32| edge.clamp(0.0, SCENE_SIDE as f32) as usize;
    clamp((at - reach).floor())..clamp((at + reach).ceil())
}
