//! How much two texts say the same, with an encoder as transformers saves it:
//! `cargo run -p ddpo-encoder --example bert_score [-- FOLDER LAYER CANDIDATE REFERENCE]`, with layer 40 for
//! `microsoft/deberta-xlarge-mnli`.
//!
//! Without arguments it is the repository's tiny encoder with random weights, which knows no words but tells texts apart.

use std::error::Error;
use std::path::Path;

use ddpo_encoder::BertScore;
use tch::{Device, Kind};

const TINY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/golden/text_encoders/deberta"
);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        arguments = [
            TINY,
            "3",
            "A dog is riding a red bike.",
            "a dog riding a bike",
        ]
        .map(str::to_owned)
        .to_vec();
    }
    let [folder, layer, candidate, reference] = arguments.as_slice() else {
        return Err("expected FOLDER LAYER CANDIDATE REFERENCE".into());
    };
    let score = BertScore::open(Path::new(folder), layer.parse()?, Device::Cpu, Kind::Float)?;
    let agreement = score.compare(candidate, reference)?;
    println!(
        "precision {:.4}, recall {:.4}, F1 {:.4}",
        agreement.precision, agreement.recall, agreement.f1
    );
    Ok(())
}
