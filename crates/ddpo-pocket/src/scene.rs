//! Scenes of the pocket world: sampled from a seed, rendered to 64×64 pixels, never stored.
//!
//! A [`Composer`] turns (seed, index) into a [`Scene`], which describes the image and renders
//! itself; [`caption`](crate::caption) captions it. Scenes do not depend on each other, so that any
//! process can compose any part of a stream in any order.

mod composer;
mod figure;
mod ground;
mod kind;
mod mixture;
mod staging;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::artwork::{ArtworkSet, Pack};
pub use composer::Composer;
pub use figure::{Figure, FigureRole, FigureSize};
pub use ground::{Color, Ground, Pattern};
pub use kind::{Activity, Location, SceneKind};
pub use mixture::Mixture;

/// Width and height of a scene in pixels.
pub const SCENE_SIDE: usize = 64;
/// Bytes of a rendered scene: `[64, 64, 3]`, RGB.
pub const SCENE_BYTES: usize = SCENE_SIDE * SCENE_SIDE * 3;

/// An image before it is drawn, and the labels of everything in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// What it shows.
    pub kind: SceneKind,
    /// The figures on the ground, back to front; at least one of them is a subject.
    pub figures: Vec<Figure>,
    /// The background.
    pub ground: Ground,
}

impl Scene {
    /// What the scene is about, back to front: everything but props.
    pub fn subjects(&self) -> impl Iterator<Item = &Figure> {
        let figures = self.figures.iter();
        figures.filter(|figure| figure.role == FigureRole::Subject)
    }

    /// The first subject.
    ///
    /// # Panics
    /// If there is none, which no composer makes.
    pub fn subject(&self) -> &Figure {
        self.subjects().next().expect("a scene has a subject")
    }

    /// The entity that the scene is about, the first of two: an index into [`Pack::entities`].
    pub fn entity(&self) -> usize {
        self.subject().entity
    }

    /// The other entity of a pair; [`Scene::entity`] again in any other scene.
    pub fn other_entity(&self) -> usize {
        self.subjects().last().map_or(self.entity(), |it| it.entity)
    }

    /// How many subjects there are, 1 to 8.
    pub fn count(&self) -> usize {
        self.subjects().count()
    }

    /// The set of the first subject.
    pub fn set(&self) -> ArtworkSet {
        self.subject().set
    }

    /// Draws the scene.
    ///
    /// # Shapes
    /// - returns: `[64, 64, 3]`, RGB, row by row
    ///
    /// # Panics
    /// If `pack` is not the one that the scene was sampled from.
    pub fn render(&self, pack: &Pack) -> Box<[u8; SCENE_BYTES]> {
        let mut pixels = Box::new([0; SCENE_BYTES]);
        self.render_into(pack, &mut pixels);
        pixels
    }

    /// Draws the scene into the caller's buffer, all of which is overwritten; allocates nothing.
    ///
    /// # Shapes
    /// - `pixels`: `[64, 64, 3]`, RGB, row by row
    ///
    /// # Panics
    /// If `pack` is not the one that the scene was sampled from.
    pub fn render_into(&self, pack: &Pack, pixels: &mut [u8; SCENE_BYTES]) {
        self.ground.paint(pixels);
        for figure in &self.figures {
            figure.paint(pack.texture(figure.drawing), pixels);
        }
    }
}

impl Composer<'_> {
    /// Scene `index` of the stream of `seed`.
    pub fn scene(&self, seed: u64, index: u64) -> Scene {
        self.sample(&mut keyed(seed, 2 * index))
    }
}

/// The random stream of one scene, or of its caption.
pub(crate) fn keyed(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// Sine and cosine in f64, rounded to f32: the last bit of f64 may differ between platforms, but not the f32, so a
/// scene has the same bytes everywhere.
fn sin_cos(angle: f32) -> (f32, f32) {
    let (sin, cos) = f64::from(angle).sin_cos();
    (sin as f32, cos as f32)
}

#[cfg(test)]
mod tests;
