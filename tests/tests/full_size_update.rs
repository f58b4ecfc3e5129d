//! A LoRA update of Stable Diffusion v1.4 at its own size against diffusers 0.42.1, peft and torch, in f32.
//!
//! Needs 12 GB of memory, and so runs only where `DDPO_FULL_SIZE` names the folder that
//! `tests/full_size/generate.py` and `tests/full_size/lora_update.py make` have written.

use std::path::PathBuf;

use ddpo_tests::full_size::{Distance, Layout, LoraUpdate};
use tch::Kind;

/// Largest difference of a gradient, relative to the largest value of its tensor.
const GRADIENT: f64 = 1e-3;

#[test]
fn an_update_of_full_size_has_the_gradients_of_the_reference_with_and_without_checkpointing() {
    let Some(folder) = std::env::var_os("DDPO_FULL_SIZE").map(PathBuf::from) else {
        println!("skipped: needs a model of full size; `python tests/full_size/generate.py DIR`,");
        println!("`python tests/full_size/lora_update.py make DIR`, then DDPO_FULL_SIZE=DIR");
        return;
    };
    tch::set_num_threads(2);
    let mut plain = None;
    for checkpointing in [false, true] {
        let update = LoraUpdate::open(&folder, Kind::Float, checkpointing).unwrap();
        let replayed = update.take().unwrap();
        let Distance { worst, norm } = update.distance(&replayed, Layout::ChannelsLast).unwrap();
        let other = update.distance(&replayed, Layout::Contiguous).unwrap();
        let own = update.own_distance().unwrap();
        println!(
            "from the reference in its other layout {other:?}, the reference from itself {own:?}"
        );
        println!(
            "checkpointing {checkpointing}: gradients within {worst:.2e} of their tensor's largest, {norm:.2e} in the norm of all"
        );
        assert!(
            replayed.grads.len() == 256 && worst <= GRADIENT,
            "{worst:.2e}"
        );
        // No further from diffusers' own layout than diffusers is, and a tenth.
        assert!(other.worst <= 1.1 * own.worst, "{other:?} {own:?}");
        match &plain {
            None => plain = Some(replayed.grads),
            Some(plain) => {
                for ((name, actual), (_, expected)) in replayed.grads.iter().zip(plain) {
                    assert!(actual.equal(expected), "{name} differs with checkpointing");
                }
            }
        }
    }
}
