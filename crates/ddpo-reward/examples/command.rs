//! A reward that is a program of ten lines of Python (`reward.py`, which needs Pillow), or another one:
//! `cargo run -p ddpo-reward --features command --example command [-- PROGRAM ARGUMENTS]`.

use std::time::Duration;

use ddpo_reward::{CommandConfig, CommandReward, Images, Result, Reward};

fn main() -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/reward.py");
    let mut command: Vec<String> = std::env::args().skip(1).collect();
    if command.is_empty() {
        command = ["python3", script].map(str::to_owned).into();
    }
    let mut reward = CommandReward::new(CommandConfig {
        command,
        deadline: Duration::from_secs(60),
    })?;
    let images = Images::from_bytes(2, 1, 1, vec![0, 0, 0, 255, 255, 255])?;
    let prompts = ddpo_reward::prompts::numbered(["night", "snow"]);
    for (prompt, score) in prompts.iter().zip(reward.score(&images, &prompts)?) {
        println!("{}: {score}", prompt.text);
    }
    Ok(())
}
