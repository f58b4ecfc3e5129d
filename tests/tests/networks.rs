//! `ddpo score` with rewards that networks compute here: with the small networks of the golden files, and without any.

use std::path::Path;

use ddpo_tests::scoring::{Scoring, small_aesthetic};

fn key(name: &str, folder: &Path) -> String {
    format!("reward.weights.{name}={}", folder.display())
}

#[test]
fn without_weights_the_command_says_which_files_from_where_how_large_and_where_to_put_them() {
    let case = Scoring::default();
    let nowhere = case.path("weights");
    let place = nowhere.display().to_string();
    for (kind, name, parts) in [
        (
            "aesthetic",
            "aesthetic",
            [
                "model.safetensors",
                "1.7 GB",
                "openai/clip-vit-large-patch14",
                "sac+logos+ava1",
            ],
        ),
        (
            "image-reward",
            "image_reward",
            ["ImageReward.pt", "1.8 GB", "THUDM/ImageReward", "vocab.txt"],
        ),
    ] {
        let outcome = case.score(kind, &[key(name, &nowhere)]);
        outcome.expect(3, &[&parts[..], &[place.as_str()]].concat());
        assert!(!case.path("out.csv").exists());
    }
}

#[test]
fn the_aesthetic_score_comes_from_the_folder_that_is_named() {
    let (case, weights) = (Scoring::default(), tempfile::tempdir().expect("a folder"));
    small_aesthetic(weights.path());
    let set = vec![key("aesthetic", weights.path())];
    let outcome = case.score("aesthetic", &set).expect(0, &[]);
    assert!(
        outcome.stdout.contains("mean LAION aesthetic score"),
        "{}",
        outcome.stdout
    );
    let once = case.scores();
    assert!(once.len() == 2 && once[0] != once[1], "{once:?}");
    let twice = [set, vec!["reward.twice_rescaled=true".to_owned()]].concat();
    case.score("aesthetic", &twice).expect(0, &[]);
    assert_ne!(case.scores(), once);
}
