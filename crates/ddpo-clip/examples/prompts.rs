//! What Stable Diffusion is told of a prompt: `cargo run -p ddpo-clip --example prompts [-- MODEL A B]`.
//!
//! MODEL is a folder in the diffusers layout; without one it is the repository's tiny model, whose weights are random.
//! A token sees what stands before it and nothing after: up to the first difference two prompts are the same.

use std::error::Error;
use std::path::PathBuf;

use ddpo_clip::{ClipTextConfig, ClipTextModel, ClipTokenizer, files};
use ddpo_torch::Store;
use tch::{Device, Kind};

const TINY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/golden/sd_tiny/model"
);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| TINY.to_owned()));
    let [a, b] = [
        arguments
            .next()
            .unwrap_or_else(|| "a dog riding a bike".to_owned()),
        arguments
            .next()
            .unwrap_or_else(|| "a dog washing the dishes".to_owned()),
    ];
    let tokenizer = ClipTokenizer::from_folder(&folder.join("tokenizer"))?;
    let encoder = folder.join("text_encoder");
    let config = ClipTextConfig::from_file(&encoder.join("config.json"))?;
    let store = Store::open(&files::weights(&encoder), Device::Cpu, Kind::Float)?;
    let model = ClipTextModel::new(&store.root(), &config)?;
    store.finish()?;
    model.check(&tokenizer)?;

    let ids = tokenizer.encode(&[&a, &b])?;
    let embeddings = tch::no_grad(|| model.forward(&ids));
    println!("{:?}, one vector per token", embeddings.size());
    let [length, _] = [1, 2].map(|dim| embeddings.size()[dim]);
    let mut differ = false;
    for place in 0..length {
        let of = |row: i64| {
            (
                ids.int64_value(&[row, place]),
                embeddings.get(row).get(place),
            )
        };
        let ((id_a, token_a), (id_b, token_b)) = (of(0), of(1));
        let away = (token_a - token_b).norm().double_value(&[]);
        println!("token {place:2}: {id_a:5} and {id_b:5}, {away:.4} apart");
        differ |= id_a != id_b;
        if (away > 1e-4) != differ {
            return Err(format!("token {place} sees what comes after it").into());
        }
        if id_a == tokenizer.eos() && id_b == tokenizer.eos() {
            break; // the rest is padding
        }
    }
    Ok(())
}
