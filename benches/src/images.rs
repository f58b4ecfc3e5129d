//! Images and prompts as in training.

use ddpo_pocket::artwork::Pack;
use ddpo_pocket::scene::{Composer, Mixture, SCENE_BYTES, SCENE_SIDE};
use ddpo_reward::prompts::COMMON_ANIMALS;
use ddpo_reward::{Images, Prompt};

use crate::Result;

/// `n` prompts, the 45 training animals in turn.
pub fn animals(n: usize) -> Vec<Prompt> {
    let names = COMMON_ANIMALS.iter().zip(0..).cycle();
    let prompt = |(name, id): (&&str, u64)| Prompt::new(id, *name);
    names.take(n).map(prompt).collect()
}

/// The first `n` scenes of the pocket world, 64×64.
///
/// # Errors
/// None, unless the crate was built from damaged assets.
pub fn scenes(n: usize) -> Result<Images> {
    let pack = Pack::embedded()?;
    let composer = Composer::new(&pack, Mixture::singles())?;
    let mut bytes = Vec::with_capacity(n * SCENE_BYTES);
    for index in 0..n as u64 {
        bytes.extend_from_slice(composer.scene(0, index).render(&pack).as_slice());
    }
    Ok(Images::from_bytes(n, SCENE_SIDE, SCENE_SIDE, bytes)?)
}
