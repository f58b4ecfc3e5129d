//! Bad input gets one clear message that names the file or key and the remedy, the documented exit code, and
//! leaves nothing written.

use std::fs;
use std::path::Path;

use ddpo_tests::{copy_of_tiny_model, ddpo, text};

const CONFIG: &str = "configs/compressibility.toml";

/// One message, in a line unless it lists several problems.
#[track_caller]
fn refused(args: &[&str], code: i32, parts: &[&str]) {
    let ended = ddpo(args).expect(code, parts);
    let messages = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("error:"))
        .count();
    assert_eq!(messages, 1, "{}", ended.stderr);
}

#[track_caller]
fn nothing_written(folder: &Path) {
    assert!(!folder.exists(), "{} was written", folder.display());
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    let out = tempfile::tempdir().expect("a folder");
    let out = out.path().join("run");
    let to = text(&out);
    let set = "rl.learning_rte=1";
    refused(
        &["run", CONFIG, "--set", set, "--out", to],
        2,
        &["rl.learning_rte", "--set"],
    );
    refused(
        &["run", CONFIG, "--set", "run.epoch=1", "--out", to],
        2,
        &["did you mean `run.epochs`?"],
    );
    nothing_written(&out);
}

#[test]
fn a_value_out_of_range_is_named_with_its_range() {
    refused(
        &["run", CONFIG, "--set", "sampler.n_steps=0"],
        2,
        &["sampler.n_steps", "is 0", "from 1 to 1000"],
    );
}

#[test]
fn several_problems_are_told_at_once() {
    let ended = ddpo([
        "run",
        CONFIG,
        "--set",
        "rl.lr=-1",
        "--set",
        "run.epochs=many",
    ]);
    ended.expect(
        2,
        &["2 problems", "`rl.lr` is -1", "`run.epochs` is \"many\""],
    );
}

#[test]
fn a_configuration_that_is_no_toml_is_told_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("broken.toml");
    fs::write(&file, "[run]\nepochs = \n").expect("a file");
    ddpo(["run", text(&file)]).expect(2, &["broken.toml", "line 2"]);
}

#[test]
fn missing_files_and_unknown_names_are_told() {
    refused(
        &["run", "configs/nowhere.toml"],
        2,
        &["configs/nowhere.toml"],
    );
    refused(
        &["run", CONFIG, "--preset", "pockett"],
        2,
        &["did you mean `pocket`?"],
    );
    refused(
        &["reproduce", CONFIG, "--algorithms", "ddpo-iss"],
        2,
        &["`ddpo-iss`", "did you mean `ddpo-is`?"],
    );
    refused(&["reprodce", CONFIG], 2, &["'reproduce'"]);
    refused(&["run", CONFIG, "--presett", "x"], 2, &["'--preset'"]);
    let score = [
        "score",
        "--images",
        "nowhere.png",
        "--out",
        "x.csv",
        "--reward",
    ];
    refused(
        &[&score[..], &["colorfulness"]].concat(),
        2,
        &["did you mean colourfulness?"],
    );
    refused(
        &[&score[..], &["colourfulness"]].concat(),
        3,
        &["nowhere.png"],
    );
    refused(&["report", "configs"], 3, &["configs is no run"]);
}

/// Damages one file of a copy of the tiny model, and wants the message to name what is wrong with it.
#[track_caller]
fn refused_model(file: &str, damage: impl Fn(&mut Vec<u8>), parts: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let model = copy_of_tiny_model(folder.path());
    let path = model.join(file);
    let mut bytes = fs::read(&path).expect(file);
    damage(&mut bytes);
    fs::write(&path, bytes).expect(file);
    let out = folder.path().join("run");
    let set = format!("model.path={}", text(&model));
    refused(
        &["run", CONFIG, "--set", &set, "--out", text(&out)],
        3,
        parts,
    );
    nothing_written(&out);
}

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

#[test]
fn truncated_weights_are_told() {
    refused_model(UNET, |bytes| bytes.truncate(1000), &[UNET]);
    refused_model(UNET, Vec::clear, &[UNET]);
    refused_model(UNET, |bytes| bytes[0] = 0xff, &[UNET]);
}

#[test]
fn a_misshapen_tensor_is_named() {
    let swap = |bytes: &mut Vec<u8>| {
        let (right, wrong) = (br#""shape":[8,4,3,3]"#, br#""shape":[4,8,3,3]"#);
        let at = bytes
            .windows(right.len())
            .position(|window| window == right)
            .expect("conv_in.weight");
        bytes[at..at + wrong.len()].copy_from_slice(wrong);
    };
    refused_model(
        UNET,
        swap,
        &["conv_in.weight", "[4, 8, 3, 3]", "[8, 4, 3, 3]"],
    );
}

#[test]
fn a_broken_file_beside_the_weights_is_named() {
    refused_model(
        "unet/config.json",
        |bytes| bytes.truncate(20),
        &["unet/config.json"],
    );
    refused_model(
        "tokenizer/vocab.json",
        |bytes| bytes.truncate(20),
        &["vocab.json"],
    );
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let set = "model.path=nowhere/model";
    refused(
        &["run", CONFIG, "--set", set],
        3,
        &["nowhere/model", "`pocket`"],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let set = format!("model.path={}", text(folder.path()));
    refused(
        &["run", CONFIG, "--set", &set],
        3,
        &["unet/config.json", "diffusers layout"],
    );
}

#[test]
fn an_unwritable_output_folder_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = copy_of_tiny_model(folder.path());
    let set = format!("model.path={}", text(&model));
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    let out = file.join("run");
    refused(
        &["run", CONFIG, "--set", &set, "--out", text(&out)],
        2,
        &["cannot write", text(&out), "--out"],
    );
}

#[test]
fn weights_that_are_not_numbers_are_told_with_their_tensor() {
    let not_a_number = |bytes: &mut Vec<u8>| {
        let n = bytes.len();
        bytes[n - 400..].fill(0xff);
    };
    refused_model(UNET, not_a_number, &[UNET, "`up_blocks.", "not finite"]);
}

#[test]
fn weights_that_are_numbers_too_large_end_as_a_numerical_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = copy_of_tiny_model(folder.path());
    let mut bytes = fs::read(model.join(UNET)).expect("weights");
    let n = bytes.len();
    // 0x7e7e7e7e is 8e37 in f32.
    bytes[n - 400..].fill(0x7e);
    fs::write(model.join(UNET), bytes).expect("weights");
    let set = format!("model.path={}", text(&model));
    let out = folder.path().join("run");
    let args = [
        "run",
        CONFIG,
        "--set",
        &set,
        "--set",
        "rl.samples_per_epoch=8",
        "--out",
        text(&out),
    ];
    refused(&args, 5, &["not finite"]);
}
