//! A custom reward: dark images score high.

use ddpo_reward::{Images, Prompt, Result, Reward, check_batch};

/// How far the mean byte is below white, 0 to 255.
struct Darkness;

impl Reward for Darkness {
    fn name(&self) -> &str {
        "darkness"
    }

    fn score(&mut self, images: &Images, prompts: &[Prompt]) -> Result<Vec<f32>> {
        check_batch(images, prompts)?;
        let mean = |rgb: &[u8]| rgb.iter().map(|&v| f32::from(v)).sum::<f32>() / rgb.len() as f32;
        Ok(images.iter_bytes().map(|rgb| 255.0 - mean(rgb)).collect())
    }
}

fn main() -> Result<()> {
    let images = Images::from_bytes(2, 1, 1, vec![0, 0, 0, 255, 255, 255])?;
    let prompts = ddpo_reward::prompts::numbered(["night", "snow"]);
    for (prompt, score) in prompts.iter().zip(Darkness.score(&images, &prompts)?) {
        println!("{}: {score}", prompt.text);
    }
    Ok(())
}
