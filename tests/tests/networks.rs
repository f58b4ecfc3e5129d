//! Rewards that networks compute here through the program: `ddpo score` against transformers and torch on the golden
//! files' small networks, without any weights, and a run in which every one of them scores.
#[path = "../golden/clip_vision.rs"]
mod generated;

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ddpo_encoder::{AestheticModel, BertScore, ImageReward, ImageRewardConfig, Rescaling};
use ddpo_tests::chat_server::{Asked, ChatServer, Reply};
use ddpo_tests::scoring::{Scoring, small_aesthetic};
use ddpo_tests::{Ended, ddpo, ended, golden, text, tiny_model};
use image::RgbImage;
use serde_json::Value;
use tch::{Device, Kind};

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

fn command_with_model<'c>(command: &'c mut Command, weights: &Path) -> &'c mut Command {
    command.args(["--model", text(weights)])
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
    // The short way; a key counts more.
    let mut short = case.command("aesthetic", &[key("aesthetic", &case.path("nowhere"))]);
    ended(command_with_model(&mut short, weights.path())).expect(3, &["nowhere"]);
    let mut short = case.command("aesthetic", &[]);
    ended(command_with_model(&mut short, weights.path())).expect(0, &[]);
    assert_eq!(case.scores(), once);
    let mut none = case.command("colourfulness", &[]);
    ended(command_with_model(&mut none, weights.path())).expect(
        2,
        &["--model names weights of aesthetic, image-reward, vlm-bertscore"],
    );
    let twice = [set, vec!["reward.twice_rescaled=true".to_owned()]].concat();
    case.score("aesthetic", &twice).expect(0, &[]);
    assert_ne!(case.scores(), once);
}

/// Images of the golden files' generator.
fn generated(n: u32) -> Vec<RgbImage> {
    let one = |i| {
        let (height, width) = generated::size(i);
        let bytes = generated::image(i, height, width);
        RgbImage::from_raw(width, height, bytes).expect("an image")
    };
    (0..n).map(one).collect()
}

#[track_caller]
fn near(name: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{name}");
    for (i, (a, b)) in actual.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{name} {i}: {a}, not {b}");
    }
}

/// Scores of CLIP's processor, tower and head by transformers and torch. Files: tests/golden/aesthetic.py.
#[test]
fn aesthetic_scores_of_images_in_files_are_those_of_the_reference() {
    let scores = golden("aesthetic/scores.safetensors");
    let scores = ddpo_torch::weights::read_all(&scores).expect("golden scores");
    let case = Scoring::of(&generated(8), &vec![String::new(); 8]);
    small_aesthetic(&case.path("weights"));
    let set = vec![key("aesthetic", &case.path("weights"))];
    for (name, twice) in [("pictures", "false"), ("twice", "true")] {
        let twice = vec![format!("reward.twice_rescaled={twice}")];
        let set = [set.clone(), twice].concat();
        case.score("aesthetic", &set).expect(0, &[]);
        let expected = Vec::<f64>::try_from(&scores[name]).expect("numbers");
        near(name, &case.scores(), &expected, 1e-4);
    }
}

/// Scores of BLIP, its cross-attending text encoder and the head. Files: tests/golden/image_reward.py.
#[test]
fn image_reward_scores_of_images_in_files_are_those_of_the_reference() {
    let rows = fs::read(golden("image_reward/scores.json")).expect("golden scores");
    let rows: Vec<Value> = serde_json::from_slice(&rows).expect("golden scores");
    let prompts: Vec<String> = rows
        .iter()
        .map(|row| row["prompt"].as_str().expect("a prompt").to_owned())
        .collect();
    let expected: Vec<f64> = rows
        .iter()
        .map(|row| row["score"].as_f64().expect("a score"))
        .collect();
    let case = Scoring::of(&generated(12), &prompts);
    let set = [key("image_reward", &golden("image_reward"))];
    case.score("image-reward", &set).expect(0, &[]);
    near("image-reward", &case.scores(), &expected, 1e-4);
}

const ENCODER: (&str, i64) = ("text_encoders/bert", 3);

/// Right in every number or in none, as the image has it, and always with the image's own number.
fn answer(asked: &Asked) -> String {
    let hash = asked.hash();
    let text = match asked.question.as_str() {
        "what is happening in this image?" => "a dog riding a bike",
        "What animal is in this image?" => "it may be a cat",
        _ if hash.is_multiple_of(2) => "two three four five six seven eight",
        _ => "none",
    };
    format!("{text} #{hash}")
}

/// One epoch of eight samples on the tiny model.
fn run_shortly(out: &Path, set: &[String], fixed: &[&str]) -> Ended {
    let model = format!("model.path={}", tiny_model().display());
    let short = [
        model.as_str(),
        "run.epochs=1",
        "rl.samples_per_epoch=8",
        "rl.updates_per_epoch=1",
        "sampler.n_steps=3",
        "sampler.batch=4",
        "progress.prompts=[]",
    ];
    let mut args = vec!["run", "configs/compressibility.toml", "--out", text(out)];
    let pairs = short.iter().chain(fixed).copied();
    let pairs = pairs.chain(set.iter().map(String::as_str));
    args.extend(pairs.flat_map(|pair| ["--set", pair]));
    ddpo(args)
}

/// One run with all four as the parts of a sum, while the server fails on every fifth request: the answers say which
/// image a row is of, and each part is what the library makes of that image and prompt.
#[test]
fn a_run_trains_on_every_network_and_its_table_has_their_scores() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, weights) = (folder.path().join("run"), folder.path().join("weights"));
    small_aesthetic(&weights);
    let server = ChatServer::start(|asked| match asked.number % 5 {
        3 => Reply::Status(503, ""),
        _ => Reply::Says(answer(asked)),
    });
    let parts = "aesthetic = 0.5, image-reward = 2, vlm-bertscore = 1, vlm-counting = 1";
    let set = [
        format!("reward.vlm.url={}", server.url()),
        format!("reward.parts={{ {parts} }}"),
        key("aesthetic", &weights),
        key("image_reward", &golden("image_reward")),
        format!("reward.vlm.encoder={}", golden(ENCODER.0).display()),
        format!("reward.vlm.encoder_layer={}", ENCODER.1),
    ];
    let fixed = [
        "eval.sets=[]",
        "prompts.set=counting",
        "reward.kind=composite",
        "reward.vlm.model=tiny",
        "reward.vlm.encoding=png",
        "reward.vlm.backoff=0.01",
    ];
    run_shortly(&out, &set, &fixed).expect(0, &[]);

    let asked = server.asked();
    assert!(
        asked
            .iter()
            .any(|(_, reply)| matches!(reply, Reply::Status(..)))
    );
    check_rows(&out, &asked, &weights);
    let manifest = fs::read_to_string(out.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let version = manifest["reward_version"].as_str().expect("a version");
    for part in ["model.safetensors:", "ImageReward.safetensors:", "tiny"] {
        assert!(version.contains(part), "{part} in {version}");
    }
}

fn check_rows(out: &Path, asked: &[(Asked, Reply)], weights: &Path) {
    let cpu = Device::Cpu;
    let head = weights.join("sac+logos+ava1-l14-linearMSE.pth");
    let aesthetic = AestheticModel::open(weights, &head, Rescaling::Once, cpu, Kind::Float);
    let aesthetic = aesthetic.expect("a model");
    let there = golden("image_reward");
    let config = ImageRewardConfig::of_folder(&there).expect("sizes");
    let file = there.join("ImageReward.safetensors");
    let liked = ImageReward::open(&file, &there, &config, cpu, Kind::Float).expect("a model");
    let said = BertScore::open(&golden(ENCODER.0), ENCODER.1, cpu, Kind::Float).expect("a model");

    let mut table = csv::Reader::from_path(out.join("samples.csv")).expect("a table");
    let header = table.headers().expect("a header").clone();
    let rows: Vec<_> = table.records().map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let cell = |name: &str| {
            let at = header.iter().position(|column| column == name);
            &row[at.unwrap_or_else(|| panic!("no column {name}"))]
        };
        let number = |name: &str| cell(name).parse::<f64>().expect("a number");
        let (prompt, hash) = (cell("prompt"), cell("answer").split('#').nth(1));
        let digits = hash.expect("a number").split(' ').next().expect("digits");
        let hash: u32 = digits.parse().expect("digits");
        let of_image = asked.iter().map(|(asked, _)| asked);
        let (first, image) = of_image
            .filter(|asked| asked.hash() == hash)
            .map(|asked| (asked, decoded(asked)))
            .next()
            .expect("an image that was asked about");
        let (height, width) = (image.height() as usize, image.width() as usize);
        let counted = hash.is_multiple_of(2);
        let animal = prompt.ends_with(" cats");
        let describing = Asked {
            question: "what is happening in this image?".to_owned(),
            ..first.clone()
        };
        let agreement = said.compare(&answer(&describing), prompt);
        let expected = [
            (
                "reward/aesthetic",
                f64::from(aesthetic.score(&image, height, width).expect("a score")),
            ),
            (
                "reward/image-reward",
                f64::from(liked.score(prompt, &image, height, width).expect("a score")),
            ),
            (
                "reward/vlm-bertscore",
                f64::from(agreement.expect("a score").recall),
            ),
            (
                "reward/vlm-counting",
                f64::from(u8::from(counted) + u8::from(animal)) / 2.0,
            ),
        ];
        let mut sum = 0.0;
        for ((name, expected), weight) in expected.iter().zip([0.5, 2.0, 1.0, 1.0]) {
            near(name, &[number(name)], &[*expected], 1e-5);
            sum += weight * expected;
        }
        near("reward", &[number("reward")], &[sum], 1e-4);
    }
}

/// The score of an evaluation's panel is that of the reward of the same name, on the same images.
#[test]
fn the_panel_has_the_aesthetic_score_where_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, weights) = (folder.path().join("run"), folder.path().join("weights"));
    small_aesthetic(&weights);
    let run = |reward: &str, weights: &Path| {
        let set = [format!("reward.kind={reward}"), key("aesthetic", weights)];
        let fixed = [
            "eval.samples=3",
            "eval.panel=[\"edges\", \"aesthetic\"]",
            "eval.stop_rule.judge=aesthetic",
        ];
        run_shortly(&out, &set, &fixed)
    };
    let nowhere = folder.path().join("nowhere");
    run("jpeg-compressibility", &nowhere).expect(3, &["nowhere", "1.7 GB"]);
    assert!(!out.exists());
    run("aesthetic", &weights).expect(0, &[]);
    let mut table = csv::Reader::from_path(out.join("eval.csv")).expect("a table");
    let header = table.headers().expect("a header").clone();
    let at = |name: &str| {
        header
            .iter()
            .position(|column| column == name)
            .expect("a column")
    };
    let (reward, panel) = (at("reward"), at("aesthetic"));
    let rows: Vec<_> = table.records().map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 6);
    for row in rows {
        let of = |at: usize| row[at].parse::<f64>().expect("a number");
        near("aesthetic", &[of(panel)], &[of(reward)], 1e-6);
    }
}

/// The pixels that the server was sent.
fn decoded(asked: &Asked) -> RgbImage {
    let data = asked.image.strip_prefix("data:image/png;base64,");
    let bytes = STANDARD.decode(data.expect("a PNG")).expect("base64");
    image::load_from_memory(&bytes).expect("a PNG").into_rgb8()
}
