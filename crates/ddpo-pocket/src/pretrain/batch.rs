//! Composed scenes as tensors.

use tch::{Kind, Tensor};

use crate::scene::{Composer, SCENE_BYTES, SCENE_SIDE, Scene};

/// Some scenes, drawn.
pub struct Scenes {
    /// `[n, 3, 64, 64]`, f32, in [-1, 1].
    pub images: Tensor,
    /// One per scene.
    pub captions: Vec<String>,
    /// What was drawn.
    pub scenes: Vec<Scene>,
}

/// Composes the scenes `indices` of the stream of `seed`.
pub fn compose(composer: &Composer<'_>, seed: u64, indices: impl Iterator<Item = u64>) -> Scenes {
    let (mut bytes, mut captions, mut scenes) = (Vec::new(), Vec::new(), Vec::new());
    let mut pixels = [0; SCENE_BYTES];
    for index in indices {
        let (scene, caption) = composer.compose(seed, index, &mut pixels);
        bytes.extend_from_slice(&pixels);
        captions.push(caption);
        scenes.push(scene);
    }
    Scenes {
        images: from_bytes(&bytes),
        captions,
        scenes,
    }
}

/// # Shapes
/// - `bytes`: `[n, 64, 64, 3]` one after the other
/// - returns: `[n, 3, 64, 64]`, f32, in [-1, 1]
pub fn from_bytes(bytes: &[u8]) -> Tensor {
    let side = SCENE_SIDE as i64;
    let nhwc = Tensor::from_slice(bytes).view([-1, side, side, 3]);
    nhwc.permute([0, 3, 1, 2]).to_kind(Kind::Float).contiguous() / 127.5 - 1.0
}
