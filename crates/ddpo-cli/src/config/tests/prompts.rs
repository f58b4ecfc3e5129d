//! Prompts of one's own: which of several sources counts, and what evaluations and progress images then use.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// A folder with a configuration that has these lines, and prompts beside it.
fn beside(lines: &str) -> (tempfile::TempDir, Source) {
    let folder = tempfile::tempdir().expect("a folder");
    let head = "experiment = \"own\"\ntitle = \"Own\"\nrun.epochs = 1\nreward.kind = \"colourfulness\"\n\
                reproduce.algorithms = []\n";
    let file = folder.path().join("own.toml");
    fs::write(&file, format!("{head}{lines}\n")).expect("a file");
    fs::write(folder.path().join("mine.txt"), "a cat\n\na dog\r\na cat\n").expect("a file");
    let file = Some(file);
    let source = Source {
        file,
        ..Source::default()
    };
    (folder, source)
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.eval.sets.iter().map(Prompts::name).collect()
}

fn texts(plan: &Plan) -> Vec<&str> {
    let prompts = plan.prompts.prompts().iter();
    prompts.map(|prompt| prompt.text.as_str()).collect()
}

#[test]
fn a_file_is_found_beside_its_configuration_and_evaluated_on() {
    let (folder, source) = beside("prompts.file = \"mine.txt\"");
    let plan = Plan::load(&source).expect("a plan");
    assert_eq!(plan.prompts.name(), "mine");
    assert_eq!(texts(&plan), ["a cat", "a dog", "a cat"]);
    assert_eq!(names(&plan), ["mine"]);
    assert_eq!(plan.progress.prompts, ["a cat", "a dog"]);
    // The resolved configuration finds it from elsewhere, and notices when it is another.
    let resolved = folder.path().join("elsewhere").join("config.toml");
    fs::create_dir(folder.path().join("elsewhere")).expect("a folder");
    fs::write(&resolved, crate::config::resolved::render(&plan.entries)).expect("a file");
    let again = Source {
        file: Some(resolved),
        ..Source::default()
    };
    let other = Plan::load(&again).expect("a plan");
    assert_eq!(other.entries.len(), plan.entries.len());
    assert_eq!((texts(&other), names(&other)), (texts(&plan), names(&plan)));
    fs::write(folder.path().join("mine.txt"), "a fox\n").expect("a file");
    let error = Plan::load(&again).expect_err("other prompts");
    assert!(
        error
            .to_string()
            .contains("`prompts.file` has other prompts"),
        "{error}"
    );
    // Named again, it is what was meant.
    let path = folder.path().join("mine.txt");
    let again = Source {
        set: vec![format!("prompts.file={}", path.display())],
        ..again
    };
    assert_eq!(texts(&Plan::load(&again).expect("a plan")), ["a fox"]);
}

#[test]
fn a_higher_layer_replaces_whatever_a_lower_one_draws_from() {
    let (folder, source) = beside("prompts.texts = [\"a fox\", \"a fish\"]");
    let plan = Plan::load(&source).expect("a plan");
    assert_eq!(
        (plan.prompts.name(), names(&plan)),
        ("prompts", vec!["prompts"])
    );
    let with = |set: &[&str]| {
        Plan::load(&Source {
            set: set.iter().map(|pair| (*pair).to_owned()).collect(),
            ..source.clone()
        })
    };
    let plan = with(&["prompts.set=wolf"]).expect("a plan");
    assert_eq!(
        (texts(&plan), names(&plan)),
        (vec!["wolf"], vec!["animals"])
    );
    let file = format!("prompts.file={}", folder.path().join("mine.txt").display());
    assert_eq!(texts(&with(&[&file]).expect("a plan")).len(), 3);
    // Sets that are named as high as the prompts are meant.
    let plan = with(&[&file, "eval.sets=[\"wolf\"]"]).expect("a plan");
    assert_eq!(names(&plan), ["wolf"]);
    assert!(names(&with(&["eval.sets=[]"]).expect("a plan")).is_empty());
    let error = with(&[&file, "prompts.set=wolf"]).expect_err("two of them");
    let told = "`prompts.file` is there beside `prompts.set`";
    assert!(error.to_string().contains(told), "{error}");
}

#[test]
fn evaluation_may_have_a_file_of_its_own() {
    let (_folder, source) = beside("prompts.set = \"wolf\"\neval.file = \"mine.txt\"");
    let plan = Plan::load(&source).expect("a plan");
    assert_eq!((texts(&plan), names(&plan)), (vec!["wolf"], vec!["mine"]));
    let both = "prompts.set = \"wolf\"\neval.file = \"mine.txt\"\neval.sets = [\"wolf\"]";
    let error = Plan::load(&beside(both).1).expect_err("two of them");
    let told = "`eval.file` is there beside `eval.sets`";
    assert!(error.to_string().contains(told), "{error}");
}

#[test]
fn files_of_a_program_are_found_beside_the_configuration() {
    let lines = "prompts.set = \"wolf\"\n[presets.pocket.reward]\nkind = \"command\"\ncommand = [\"cat\", \"mine.txt\"]";
    let (folder, source) = beside(lines);
    let plan = Plan::load(&source).expect("a plan");
    let RewardKind::Command(command) = &plan.reward.kind else {
        unreachable!("a program");
    };
    let file = folder.path().join("mine.txt").display().to_string();
    assert_eq!(command.config.command, ["cat", &file]);
}

#[track_caller]
fn beside_refused(lines: &str, parts: &[&str]) {
    let (folder, source) = beside(lines);
    fs::write(
        folder.path().join("bad.jsonl"),
        "{\"text\": \"a\", \"weight\": 0}",
    )
    .expect("a file");
    let error = Plan::load(&source).expect_err("bad prompts").to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn what_cannot_be_drawn_from_is_told_with_what_can() {
    beside_refused(
        "prompts.file = \"nowhere.txt\"",
        &["`prompts.file` cannot be read", "nowhere.txt"],
    );
    beside_refused(
        "prompts.file = \"bad.jsonl\"",
        &["bad.jsonl, line 1", "finite and above 0, got 0"],
    );
    beside_refused("prompts.texts = []", &["at least one prompt"]);
    beside_refused(
        "",
        &["`prompts.set` is missing", "prompts.file = \"prompts.txt\""],
    );
    refused(
        &["prompts.set=animal"],
        &[
            "did you mean \"animals\"?",
            "prompts.file",
            "prompts.texts = [\"a cat\"]",
        ],
    );
    beside_refused(
        "prompts.texts = [\"a capybara\"]\n[presets.pocket.reward]\nkind = \"judge\"",
        &[
            "`prompts.texts` has prompts",
            "judge cannot judge",
            "capybara",
        ],
    );
}

#[test]
fn old_names_of_variants_are_still_read() {
    let lines = "prompts.set = \"wolf\"\narm = \"slow\"\narms.slow.rl.lr = 1e-7\npresets.pocket.arms.slow.run.epochs = 3";
    let plan = Plan::load(&beside(lines).1).expect("a plan");
    assert_eq!(
        (plan.label(), plan.rl.lr, plan.run.epochs),
        ("slow", 1e-7, 3)
    );
    let error = Plan::load(&beside("arms.a.rl.lr = 1\nvariants.b.rl.lr = 1").1).expect_err("both");
    assert!(error.to_string().contains("remove `arms`"), "{error}");
}

#[test]
fn groups_come_out_even_and_have_more_than_one() {
    let group = "rl.baseline=group";
    refused(&[group], &["`rl.samples_per_prompt` is 1", "at least 2"]);
    refused(
        &[group, "rl.samples_per_prompt=3"],
        &["64 samples = 21 × 3 + 1"],
    );
    refused(&["rl.shared_noise=true"], &["`rl.shared_noise` is true"]);
    let plan = load(&[group, "rl.samples_per_prompt=4", "rl.shared_noise=true"]).expect("a plan");
    let Method::Ddpo(ddpo) = plan.method else {
        unreachable!("ddpo-is");
    };
    assert_eq!((ddpo.samples_per_prompt, ddpo.shared_noise), (4, true));
}

#[test]
fn the_judge_looks_at_images_of_its_own_size_only() {
    refused(
        &["reward.kind=judge", "sampler.height=96"],
        &["`sampler.height` is 96", "expected 64"],
    );
    let plan = load(&["sampler.width=96"]).expect("a plan");
    assert!(plan.eval.left_out.is_some_and(|why| why.contains("96")));
}

#[test]
fn paths_of_the_command_line_are_relative_to_where_we_are() {
    let (_folder, source) = beside("prompts.set = \"wolf\"");
    let file = Path::new("../../crates/ddpo-reward/assets/imagenet_animals.txt");
    let plan = Plan::load(&Source {
        set: vec![format!("prompts.file={}", file.display())],
        ..source
    })
    .expect("a plan");
    let found = plan.entries.iter().find(|it| it.key == "prompts.file");
    let path = PathBuf::from(found.expect("the file").value.trim_matches('"'));
    assert!(path.is_absolute(), "{}", path.display());
}
