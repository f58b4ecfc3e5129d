//! Asks a chat server how many animals an image shows, and which:
//! `cargo run -p ddpo-reward --features vlm --example vlm -- http://127.0.0.1:8000 MODEL`.

use ddpo_reward::vlm::{Chat, ChatConfig, Encoding, Vqa};
use ddpo_reward::{Images, Result, Reward, RewardError};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(model)) = (arguments.next(), arguments.next()) else {
        return Err(RewardError::bad_input("arguments", "URL MODEL", "fewer"));
    };
    let chat = Chat::new(ChatConfig::new(url, model))?;
    let images = Images::from_bytes(1, 64, 64, [200, 30, 90].repeat(64 * 64))?;
    let prompts = ddpo_reward::prompts::numbered(["six monkeys"]);
    let mut reward = Vqa::counting(chat, Encoding::Jpeg);
    reward.score_each(&images, &prompts, &mut |_, score| {
        println!("{} for: {}", score.value, score.answer);
    })
}
