//! Rewards that networks compute here: their files, found or asked for.

use std::path::{Path, PathBuf};

use ddpo_encoder::{AestheticModel, ImageReward, ImageRewardConfig, Rescaling};
use ddpo_reward::{Aesthetic, ImageRewardScore, Reward};
use tch::Device;

use crate::config::NetworkPlan;
use crate::failure::{Exit, Failure, OrExit, Result};

/// A file that a network needs.
struct Needed {
    /// Any of these, best first.
    names: &'static [&'static str],
    size: &'static str,
    from: &'static str,
}

const CLIP: &str = "openai/clip-vit-large-patch14 on the model hub";
const AESTHETIC: [Needed; 3] = [
    Needed {
        names: &["config.json"],
        size: "5 kB",
        from: CLIP,
    },
    Needed {
        names: &["model.safetensors", "pytorch_model.bin"],
        size: "1.7 GB",
        from: CLIP,
    },
    Needed {
        names: &["sac+logos+ava1-l14-linearMSE.pth", "aesthetic-model.pth"],
        size: "3.7 MB",
        from: "https://github.com/christophschuhmann/improved-aesthetic-predictor",
    },
];
const IMAGE_REWARD: [Needed; 2] = [
    Needed {
        names: &["ImageReward.pt", "ImageReward.safetensors"],
        size: "1.8 GB",
        from: "THUDM/ImageReward on the model hub",
    },
    Needed {
        names: &["vocab.txt", "tokenizer.json"],
        size: "230 kB",
        from: "bert-base-uncased on the model hub",
    },
];
/// LAION's score.
pub fn aesthetic(plan: &NetworkPlan, rescaling: Rescaling) -> Result<Box<dyn Reward>> {
    let key = "reward.weights.aesthetic";
    let found = find(Aesthetic::NAME, key, &plan.folder, &AESTHETIC)?;
    let device = device(plan)?;
    let model = AestheticModel::open(&plan.folder, &found[2], rescaling, device, plan.dtype)
        .or_exit(Exit::Data, doing(Aesthetic::NAME, plan))?;
    Ok(Box::new(Aesthetic::new(model, version(plan, &found))))
}

/// ImageReward-v1.0.
pub fn image_reward(plan: &NetworkPlan) -> Result<Box<dyn Reward>> {
    let key = "reward.weights.image_reward";
    let found = find(ImageRewardScore::NAME, key, &plan.folder, &IMAGE_REWARD)?;
    let config = ImageRewardConfig::v1_0();
    let model = ImageReward::open(&plan.folder, &config, device(plan)?, plan.dtype)
        .or_exit(Exit::Data, doing(ImageRewardScore::NAME, plan))?;
    Ok(Box::new(ImageRewardScore::new(
        model,
        version(plan, &found),
    )))
}

fn device(plan: &NetworkPlan) -> Result<Device> {
    ddpo_torch::device(&plan.device).or_exit(Exit::Config, "`reward.device`")
}

fn doing(reward: &str, plan: &NetworkPlan) -> String {
    format!(
        "cannot read the weights of {reward} in {}",
        plan.folder.display()
    )
}

/// Tells files from others by their names and sizes; hashing gigabytes at every start would cost more than it buys.
fn version(plan: &NetworkPlan, files: &[PathBuf]) -> String {
    let one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let size = path.metadata().map_or(0, |metadata| metadata.len());
        format!("{name}:{size}")
    };
    let files: Vec<String> = files.iter().map(one).collect();
    format!("{} {:?}", files.join(" "), plan.dtype)
}

/// A path for each file that is needed, or which are missing, from where, how large, and where to put them.
fn find(reward: &str, key: &str, folder: &Path, needed: &[Needed]) -> Result<Vec<PathBuf>> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for file in needed {
        let mut there = file.names.iter().map(|name| folder.join(name));
        match there.find(|path| path.is_file()) {
            Some(path) => found.push(path),
            None => {
                let names = file.names.join(" or ");
                missing.push(format!("{names} ({}; {})", file.size, file.from));
            }
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let folder = folder.display();
    Err(Failure::new(
        Exit::Data,
        format!(
            "reward {reward} needs files that are not in {folder}:\n  {}\nput them into {folder}, or name the \
             folder that has them by `{key}`",
            missing.join("\n  ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use ddpo_reward::{Images, Prompt};
    use tch::Kind;

    use super::*;

    fn golden(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden")
            .join(path)
    }

    fn plan(folder: &Path) -> NetworkPlan {
        NetworkPlan {
            folder: folder.to_owned(),
            device: "cpu".to_owned(),
            dtype: Kind::Float,
        }
    }

    #[test]
    fn without_weights_the_error_says_which_from_where_how_large_and_where_to_put_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let there = plan(folder.path());
        let place = folder.path().display().to_string();
        let rows: [(Option<Failure>, &[&str]); 2] = [
            (
                aesthetic(&there, Rescaling::Once).err(),
                &[
                    "model.safetensors or pytorch_model.bin (1.7 GB; openai/clip-vit-large-patch14",
                    "sac+logos+ava1-l14-linearMSE.pth",
                    "`reward.weights.aesthetic`",
                ],
            ),
            (
                image_reward(&there).err(),
                &[
                    "ImageReward.pt",
                    "(1.8 GB; THUDM/ImageReward",
                    "vocab.txt",
                    "`reward.weights.image_reward`",
                ],
            ),
        ];
        for (failure, needles) in rows {
            let failure = failure.expect("there is nothing");
            assert_eq!(failure.exit, Exit::Data);
            let text = failure.to_string();
            for needle in needles.iter().chain([&place.as_str()]) {
                assert!(text.contains(needle), "{needle} is not in: {text}");
            }
        }
        // What is there is not asked for.
        std::fs::write(folder.path().join("config.json"), "{}").expect("a file");
        let text = aesthetic(&there, Rescaling::Once)
            .err()
            .expect("more is missing");
        assert!(!text.to_string().contains("config.json ("), "{text}");
    }

    #[test]
    fn a_folder_with_both_makes_the_reward_and_damage_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for (from, to) in [
            ("clip_vision/config.json", "config.json"),
            ("clip_vision/model.safetensors", "model.safetensors"),
            ("aesthetic/head.safetensors", "aesthetic-model.pth"),
        ] {
            std::fs::copy(golden(from), folder.path().join(to)).expect("a copy");
        }
        let there = plan(folder.path());
        let mut reward = aesthetic(&there, Rescaling::Once).expect("a reward");
        let images = Images::from_bytes(1, 8, 8, vec![90; 192]).expect("a picture");
        let scores = reward
            .score(&images, &[Prompt::new(0, "")])
            .expect("a score");
        assert!(scores[0].is_finite());
        std::fs::write(folder.path().join("aesthetic-model.pth"), "no weights").expect("a file");
        let failure = aesthetic(&there, Rescaling::Once).err().expect("damage");
        assert_eq!(failure.exit, Exit::Data);
        assert!(
            failure.to_string().contains("aesthetic-model.pth"),
            "{failure}"
        );
    }
}
