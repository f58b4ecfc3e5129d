//! A test suite that every reward should pass.
//!
//! ```
//! ddpo_reward::dev::conforms(&mut ddpo_reward::Colourfulness);
//! ```

use crate::{Images, Prompt, Reward, RewardError};

/// Checks the contract of [`Reward`] on generated 64×64 images.
///
/// # Panics
/// With the name of the reward and the violated requirement.
pub fn conforms(reward: &mut dyn Reward) {
    let (images, prompts) = batch();
    conforms_on(reward, &images, &prompts);
}

/// [`conforms`] on a batch of the caller's: at least three images, one prompt each.
///
/// # Panics
/// With the name of the reward and the violated requirement.
pub fn conforms_on(reward: &mut dyn Reward, images: &Images, prompts: &[Prompt]) {
    let name = reward.name().to_owned();
    assert!(!name.is_empty(), "a reward has a name");
    assert!(images.len() >= 3, "the suite needs at least three images");
    let mut score = |images: &Images, prompts: &[Prompt]| {
        reward
            .score(images, prompts)
            .unwrap_or_else(|e| panic!("{name}: {e}"))
    };

    let whole = score(images, prompts);
    assert_eq!(whole.len(), images.len(), "{name}: one score per image");
    for (i, s) in whole.iter().enumerate() {
        assert!(s.is_finite(), "{name}: score {i} is {s}");
    }
    assert_eq!(
        score(images, prompts),
        whole,
        "{name}: the same batch twice has the same scores"
    );

    let one_by_one: Vec<f32> = (0..images.len())
        .flat_map(|i| score(&images.select(&[i]), &prompts[i..=i]))
        .collect();
    assert_eq!(
        one_by_one, whole,
        "{name}: a score does not depend on its batch"
    );

    let backwards: Vec<usize> = (0..images.len()).rev().collect();
    let turned: Vec<Prompt> = backwards.iter().map(|&i| prompts[i].clone()).collect();
    let mut scores = score(&images.select(&backwards), &turned);
    scores.reverse();
    assert_eq!(scores, whole, "{name}: a score does not depend on order");

    assert_eq!(
        score(&images.select(&[]), &[]),
        Vec::<f32>::new(),
        "{name}: no image, no score"
    );
    assert!(
        matches!(
            reward.score(images, &prompts[1..]),
            Err(RewardError::BadInput { .. })
        ),
        "{name}: a missing prompt is bad input"
    );
}

fn batch() -> (Images, Vec<Prompt>) {
    const SIDE: usize = 64;
    // Flat, a gradient, stripes, and noise by a small linear congruential generator.
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut bytes = Vec::with_capacity(4 * SIDE * SIDE * 3);
    for kind in 0..4 {
        for y in 0..SIDE {
            for x in 0..SIDE {
                bytes.extend(match kind {
                    0 => [200, 30, 90],
                    1 => [4 * x as u8, 4 * y as u8, 128],
                    2 => [if x / 8 % 2 == 0 { 255 } else { 0 }, 200, 40],
                    _ => [noise(), noise(), noise()],
                });
            }
        }
    }
    let images = Images::from_bytes(4, SIDE, SIDE, bytes).expect("four images");
    (
        images,
        crate::prompts::numbered(["cat", "dog", "cat", "ant"]),
    )
}
