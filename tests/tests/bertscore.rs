//! `ddpo score --reward vlm-bertscore`: a server describes images, and an encoder compares that with the prompts.

use std::fs;
use std::path::{Path, PathBuf};

use ddpo_tests::chat_server::{Asked, ChatServer, Reply};
use ddpo_tests::{Ended, ddpo, root, text, tiny_model};
use serde_json::Value;

/// Pairs of bert-score 0.3.13, with the encoder that it used. Files: tests/golden/text_encoders.py.
fn golden(net: &str) -> (PathBuf, i64, Vec<(String, String, f64)>) {
    let folder = root().join("tests/golden/text_encoders").join(net);
    let bytes = fs::read(folder.join("scores.json")).expect("golden scores");
    let all: Value = serde_json::from_slice(&bytes).expect("golden scores");
    let text = |pair: &Value, of: &str| pair[of].as_str().expect(of).trim().to_owned();
    let pairs = all["pairs"].as_array().expect("pairs").iter().map(|pair| {
        let recall = pair["scores"][1].as_f64().expect("recall");
        (text(pair, "candidate"), text(pair, "reference"), recall)
    });
    // A server that says nothing has no score, and a prompt is a line.
    let pairs = pairs
        .filter(|(said, asked, _)| !said.is_empty() && !asked.is_empty() && !asked.contains('\n'));
    let layer = all["n_layers"].as_i64().expect("a layer");
    (folder, layer, pairs.collect())
}

/// Any image, as often as asked.
fn images(folder: &Path, n: usize) -> Vec<PathBuf> {
    let (out, model) = (folder.join("sample"), tiny_model());
    let args = [
        "sample",
        "--prompt",
        "cat",
        "--steps",
        "1",
        "--seed",
        "1",
        "--model",
        text(&model),
    ];
    ddpo(args.into_iter().chain(["--out", text(&out)])).expect(0, &[]);
    let entries = fs::read_dir(&out).expect("a folder").flatten();
    let png = entries
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "png"));
    vec![png.expect("an image"); n]
}

fn score(folder: &Path, images: &[PathBuf], prompts: &[&str], set: &[String]) -> Ended {
    let (list, out) = (folder.join("prompts.txt"), folder.join("out.csv"));
    fs::write(&list, prompts.join("\n") + "\n").expect("a file");
    let mut args = vec!["score", "--reward", "vlm-bertscore", "--images"];
    args.extend(images.iter().map(|path| text(path)));
    args.extend(["--prompts", text(&list), "--out", text(&out)]);
    args.extend(set.iter().flat_map(|pair| ["--set", pair]));
    ddpo(args)
}

/// Rewards of the table; none of these texts has a comma before them in its row but the file's.
fn rewards(folder: &Path) -> Vec<f64> {
    let mut reader = csv::Reader::from_path(folder.join("out.csv")).expect("a table");
    let rows = reader.records().map(|row| row.expect("a row"));
    rows.map(|row| row[2].parse().expect("a number")).collect()
}

#[test]
fn recall_of_the_prompt_in_the_answer_is_that_of_bert_score() {
    let folder = tempfile::tempdir().expect("a folder");
    for net in ["bert", "deberta"] {
        let (encoder, layer, pairs) = golden(net);
        let says: Vec<String> = pairs.iter().map(|(said, ..)| said.clone()).collect();
        let server =
            ChatServer::start(move |asked: &Asked| Reply::Says(says[asked.number].clone()));
        let set = [
            format!("reward.vlm.url={}", server.url()),
            "reward.vlm.model=m".to_owned(),
            // One after the other, so that the server knows which image it is.
            "reward.vlm.in_flight=1".to_owned(),
            format!("reward.vlm.encoder={}", encoder.display()),
            format!("reward.vlm.encoder_layer={layer}"),
        ];
        let images = images(folder.path(), pairs.len());
        let prompts: Vec<&str> = pairs.iter().map(|(_, asked, _)| asked.as_str()).collect();
        score(folder.path(), &images, &prompts, &set).expect(0, &[]);
        let rewards = rewards(folder.path());
        assert_eq!(rewards.len(), pairs.len());
        for ((said, asked, expected), reward) in pairs.iter().zip(rewards) {
            assert!(
                (reward - expected).abs() <= 1e-4,
                "{net}: {said:?} of {asked:?}: {reward}, not {expected}"
            );
        }
        let question = &server.asked()[0].0.question;
        assert_eq!(question, "what is happening in this image?");
    }
}

#[test]
fn the_code_s_wording_asks_and_compares_as_the_code_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (encoder, layer, _) = golden("bert");
    let server = ChatServer::start(|_| Reply::Says("The image contains a dog".to_owned()));
    let set = [
        format!("reward.vlm.url={}", server.url()),
        "reward.vlm.model=m".to_owned(),
        "reward.vlm.wording=code".to_owned(),
        format!("reward.vlm.encoder={}", encoder.display()),
        format!("reward.vlm.encoder_layer={layer}"),
    ];
    let images = images(folder.path(), 2);
    score(folder.path(), &images, &["a dog", "a cat"], &set).expect(0, &[]);
    let rewards = rewards(folder.path());
    assert!(
        (rewards[0] - 1.0).abs() < 1e-5 && rewards[1] < 1.0 - 1e-3,
        "{rewards:?}"
    );
    let asked = server.asked();
    let question = "Answer concisely: what is going on in this image?";
    assert!(
        asked.iter().all(|(asked, _)| asked.question == question),
        "{asked:?}"
    );
}

#[test]
fn without_an_encoder_it_says_which_files_from_where_and_how_large() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = [folder.path().join("a.png")];
    let server = ["reward.vlm.url=http://127.0.0.1:1", "reward.vlm.model=m"].map(str::to_owned);
    let nowhere = format!(
        "reward.vlm.encoder={}",
        folder.path().join("nowhere").display()
    );
    fs::copy(&images(folder.path(), 1)[0], &image[0]).expect("a file");
    let ended = score(
        folder.path(),
        &image,
        &["a dog"],
        &[&server[..], &[nowhere]].concat(),
    );
    ended.expect(
        3,
        &[
            "nowhere",
            "microsoft/deberta-xlarge-mnli",
            "config.json",
            "pytorch_model.bin",
            "3 GB",
            "folder",
        ],
    );
}
