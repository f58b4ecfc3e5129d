//! A weighted sum of rewards, for small but colourful images: `cargo run -p ddpo-reward --example composite`.

use ddpo_reward::{
    Colourfulness, Composite, Images, JpegCompressibility, Result, Reward, WeightedReward,
};

fn main() -> Result<()> {
    let parts = vec![
        WeightedReward {
            reward: Box::new(JpegCompressibility::new()?),
            weight: 1.0,
        },
        WeightedReward {
            reward: Box::new(Colourfulness),
            weight: 0.01,
        },
    ];
    let mut reward = Composite::new(parts)?;
    let names = reward.parts();
    let images = Images::from_bytes(2, 8, 8, [vec![30; 192], [200, 30, 90].repeat(64)].concat())?;
    let prompts = ddpo_reward::prompts::numbered(["fog", "a rose"]);
    reward.score_each(&images, &prompts, &mut |i, score| {
        println!(
            "{}: {} of {names:?} {:?}",
            prompts[i].text, score.value, score.parts
        );
    })
}
