//! Rewards that networks compute here: their files, found or fetched.

use std::path::PathBuf;

use ddpo_encoder::{AestheticModel, ImageReward, ImageRewardConfig, Rescaling};
use ddpo_reward::{Aesthetic, ImageRewardScore, Reward};
use tch::Device;

use crate::config::NetworkPlan;
use crate::failure::{Exit, OrExit, Result};
use crate::models::weights::{Found, Needed, Part, Wanted};

/// CLIP ViT-L/14 and LAION's head. Sizes: as the hub shows them.
const AESTHETIC: [Part; 2] = [
    Part {
        from: "openai/clip-vit-large-patch14",
        needed: &[
            Needed {
                any: &[&["config.json"]],
                size: "",
            },
            Needed {
                any: &[&["model.safetensors"], &["pytorch_model.bin"]],
                size: "about 1.7 GB",
            },
        ],
        optional: &[],
        also: "",
    },
    Part {
        from: "trl-lib/ddpo-aesthetic-predictor",
        needed: &[Needed {
            any: &[
                &["sac+logos+ava1-l14-linearMSE.pth"],
                &["aesthetic-model.pth"],
            ],
            size: "3.7 MB",
        }],
        optional: &[],
        also: ", or https://github.com/christophschuhmann/improved-aesthetic-predictor",
    },
];

/// ImageReward-v1.0 and the vocabulary of its text encoder.
const IMAGE_REWARD: [Part; 2] = [
    Part {
        from: "THUDM/ImageReward",
        needed: &[Needed {
            any: &[&["ImageReward.safetensors"], &["ImageReward.pt"]],
            size: "about 1.8 GB",
        }],
        optional: &["config.json", "med_config.json"],
        also: "",
    },
    Part {
        from: "google-bert/bert-base-uncased",
        needed: &[Needed {
            any: &[&["vocab.txt"], &["tokenizer.json"]],
            size: "about 230 kB",
        }],
        optional: &["tokenizer_config.json"],
        also: "",
    },
];

/// LAION's score.
pub fn aesthetic(plan: &NetworkPlan, rescaling: Rescaling) -> Result<Box<dyn Reward>> {
    let (model, found) = open_aesthetic(plan, rescaling)?;
    Ok(Box::new(Aesthetic::new(model, version(plan, &found.files))))
}

/// The networks of LAION's score by themselves.
pub fn aesthetic_model(plan: &NetworkPlan, rescaling: Rescaling) -> Result<AestheticModel> {
    open_aesthetic(plan, rescaling).map(|(model, _)| model)
}

fn open_aesthetic(plan: &NetworkPlan, rescaling: Rescaling) -> Result<(AestheticModel, Found)> {
    let found = find(Aesthetic::NAME, "aesthetic", plan, &AESTHETIC)?;
    let device = device(plan)?;
    let clip = &found.folders[0];
    let head = &found.files[found.files.len() - 1];
    let model = AestheticModel::open(clip, head, rescaling, device, plan.dtype)
        .or_exit(Exit::Data, doing(Aesthetic::NAME, plan))?;
    Ok((model, found))
}

/// ImageReward-v1.0, or one of other sizes that the folder's `config.json` says.
pub fn image_reward(plan: &NetworkPlan) -> Result<Box<dyn Reward>> {
    let found = find(ImageRewardScore::NAME, "image_reward", plan, &IMAGE_REWARD)?;
    let [weights, tokenizer] = [0, 1].map(|part| &found.folders[part]);
    let device = device(plan)?;
    let doing = || doing(ImageRewardScore::NAME, plan);
    let config = ImageRewardConfig::of_folder(weights).or_exit(Exit::Data, doing())?;
    let model = ImageReward::open(&found.files[0], tokenizer, &config, device, plan.dtype)
        .or_exit(Exit::Data, doing())?;
    Ok(Box::new(ImageRewardScore::new(
        model,
        version(plan, &found.files),
    )))
}

fn find(reward: &str, key: &str, plan: &NetworkPlan, parts: &[Part]) -> Result<Found> {
    let wanted = Wanted {
        reward,
        key: &format!("reward.weights.{key}"),
        named: &plan.weights,
        parts,
    };
    wanted.locate()
}

fn device(plan: &NetworkPlan) -> Result<Device> {
    ddpo_torch::device(&plan.device).or_exit(Exit::Config, "`reward.device`")
}

fn doing(reward: &str, plan: &NetworkPlan) -> String {
    format!("cannot read the weights of {reward} in {}", plan.weights)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ddpo_reward::{Images, Prompt};
    use tch::Kind;

    use crate::failure::Failure;

    use super::*;

    fn golden(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden")
            .join(path)
    }

    fn plan(folder: &Path) -> NetworkPlan {
        NetworkPlan {
            weights: folder.display().to_string(),
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
                    "model.safetensors or pytorch_model.bin (about 1.7 GB; openai/clip-vit-large-patch14",
                    "sac+logos+ava1-l14-linearMSE.pth",
                    "`reward.weights.aesthetic`",
                ],
            ),
            (
                image_reward(&there).err(),
                &[
                    "ImageReward.pt",
                    "(about 1.8 GB; THUDM/ImageReward",
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
        let images = Images::from_bytes(1, 8, 8, vec![90; 192]).expect("an image");
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
