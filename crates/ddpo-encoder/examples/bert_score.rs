//! How much two texts say the same, with an encoder as transformers saves it:
//! `cargo run -p ddpo-encoder --example bert_score -- FOLDER LAYER CANDIDATE REFERENCE`, with layer 40 for
//! `microsoft/deberta-xlarge-mnli`.

use std::error::Error;
use std::path::Path;

use ddpo_encoder::BertScore;
use tch::{Device, Kind};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
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
