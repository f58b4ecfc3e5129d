//! `ddpo init`: a configuration to begin with, and the files that it names.

use std::fs;
use std::path::Path;

use crate::commands::args::InitArgs;
use crate::failure::{Exit, Failure, OrExit, Result};

/// Names and contents of what is written; the configuration first.
const FILES: [(&str, &str); 3] = [
    ("ddpo.toml", include_str!("ddpo.toml")),
    ("prompts.txt", include_str!("prompts.txt")),
    ("reward.py", include_str!("reward.py")),
];

/// Writes all files or none, and says what to type next.
pub fn run(args: &InitArgs) -> Result<Exit> {
    let folder = &args.folder;
    let there = FILES.iter().map(|(name, _)| folder.join(name));
    let there: Vec<String> = there
        .filter(|file| file.exists())
        .map(|file| file.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(Failure::config(format!(
            "{} already there, and not written over: choose another folder, or move what is in it",
            there.join(", ") + if there.len() == 1 { " is" } else { " are" }
        )));
    }
    let doing = || {
        format!(
            "cannot write to {}: choose another folder",
            folder.display()
        )
    };
    fs::create_dir_all(folder).or_exit(Exit::Config, doing())?;
    for (name, text) in FILES {
        fs::write(folder.join(name), text).or_exit(Exit::Config, doing())?;
    }
    println!("{}", next(folder));
    Ok(Exit::Done)
}

/// What was written, and what to do with it.
fn next(folder: &Path) -> String {
    let names = FILES.map(|(name, _)| name).join(", ");
    let (config, out) = (folder.join(FILES[0].0), folder.join("run"));
    let (config, out) = (config.display(), out.display());
    format!(
        "{names} in {}\n\
         change them as you like, then:\n  \
         ddpo plan {config}             what would be run; --keys says what every key is for\n  \
         ddpo run {config} --out {out}   trains, and writes {out}/report.html",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Plan, Source, Train};

    #[test]
    fn what_is_written_is_whole_as_it_is_and_with_its_commented_block() {
        let folder = tempfile::tempdir().expect("a folder");
        let args = InitArgs {
            folder: folder.path().join("mine"),
        };
        run(&args).expect("written");
        let error = run(&args).expect_err("there already");
        assert_eq!(error.exit, Exit::Config);
        assert!(
            error.to_string().contains("reward.py are already there"),
            "{error}"
        );
        let source = Source {
            file: Some(args.folder.join("ddpo.toml")),
            ..Source::default()
        };
        let plan = Plan::load(&source).expect("a plan");
        assert_eq!(
            (plan.prompts.prompts().len(), plan.prompts.name()),
            (12, "prompts")
        );
        // The block at the end is a section of its own once its marks are gone.
        let (head, block) = FILES[0]
            .1
            .split_once("#\n# [presets.lora]")
            .expect("a block");
        let block = block.replace("\n# ", "\n");
        let file = args.folder.join("gpu.toml");
        fs::write(&file, format!("{head}[presets.lora]{block}")).expect("a file");
        let plan = Plan::load(&Source {
            file: Some(file),
            preset: Some("lora".to_owned()),
            on_paper: true,
            ..source
        })
        .expect("a plan");
        assert_eq!(plan.model.source.path, "CompVis/stable-diffusion-v1-4");
        assert!(matches!(plan.policy.train, Train::Lora { .. }));
    }
}
