//! The command line, as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Source;
use crate::failure::Exit;
use crate::models::SamplerName;

/// The whole line.
#[derive(Parser)]
#[command(
    name = "ddpo",
    about = "Reinforcement learning on diffusion models",
    version
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Writes a configuration for your own prompts and reward, with what it names, to begin with
    #[command(after_help = "Example: ddpo init mine")]
    Init(InitArgs),
    /// Prints a configuration as it would be run, with the source of every key and the derived counts
    #[command(
        after_help = "Example: ddpo plan configs/compressibility.toml --set rl.algorithm=rwr --keys"
    )]
    Plan(PlanArgs),
    /// Trains as a configuration says
    #[command(
        after_help = "Example: ddpo run configs/aesthetic.toml --set run.epochs=20 --out runs/longer"
    )]
    Run(RunArgs),
    /// Runs an experiment: every algorithm, every seed, one report, all claims
    #[command(
        after_help = "Example: ddpo reproduce configs/compressibility.toml --algorithms ddpo-is,rwr --seeds 3"
    )]
    Reproduce(ReproduceArgs),
    /// Samples images from a model
    #[command(
        after_help = "Example: ddpo sample --model pocket --prompt cat --prompt dog --negative blue --height 96 --steps 20 --out images"
    )]
    Sample(SampleArgs),
    /// Scores images with a reward
    #[command(
        after_help = "Example: ddpo score --reward jpeg-compressibility --images images --out scores.csv"
    )]
    Score(ScoreArgs),
    /// One update from a stored rollout, with its gradients
    #[command(
        after_help = "Example: ddpo replay --model pocket --rollout rollout.safetensors --set sampler.guidance_scale=5 --out update"
    )]
    Replay(ReplayArgs),
    /// Writes the report of one or several runs
    #[command(after_help = "Example: ddpo report runs/compressibility --out report.html")]
    Report(ReportArgs),
    /// Measures what a run has learned: before and after, on the same prompts from the same noise
    #[command(
        after_help = "Example: ddpo eval runs/aesthetic/ddpo-is/seed-42 --prompts pocket-unseen-animals"
    )]
    Eval(EvalArgs),
    /// Writes what a run has learned in the files that diffusers reads
    #[command(after_help = "Example: ddpo export runs/longer --format diffusers --out model")]
    Export(ExportArgs),
}

/// `ddpo init`.
#[derive(Args)]
pub struct InitArgs {
    /// Folder for the files; none of them is written over
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// A configuration and what is changed of it.
#[derive(Args, Clone)]
pub struct ConfigArgs {
    /// TOML file, such as configs/compressibility.toml
    pub config: PathBuf,
    /// Preset; `pocket` when not given
    #[arg(long)]
    pub preset: Option<String>,
    /// Overrides one key, as `rl.lr=1e-4`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// What the configuration is read from.
    pub fn source(&self) -> Source {
        Source {
            file: Some(self.config.clone()),
            preset: self.preset.clone(),
            set: self.set.clone(),
            ..Source::default()
        }
    }
}

/// `ddpo plan`.
#[derive(Args)]
pub struct PlanArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Says of every key that is read what it may be and what it is for
    #[arg(long)]
    pub keys: bool,
    /// Loads the model and takes one step on its device: bytes by kind, and the time of the run
    #[arg(long)]
    pub probe: bool,
}

/// `ddpo run`.
#[derive(Args)]
pub struct RunArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Output folder; runs/EXPERIMENT/ALGORITHM/seed-N when not given
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Goes on from the last checkpoint in the output folder
    #[arg(long)]
    pub resume: bool,
}

/// `ddpo reproduce`.
#[derive(Args)]
pub struct ReproduceArgs {
    /// TOML files of experiments, such as configs/compressibility.toml
    #[arg(required = true)]
    pub configs: Vec<PathBuf>,
    /// Preset; `pocket` when not given
    #[arg(long)]
    pub preset: Option<String>,
    /// Overrides one key, as `rl.lr=1e-4`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Algorithms, separated by commas; the configuration's when not given
    #[arg(long, value_delimiter = ',')]
    pub algorithms: Vec<String>,
    /// Seeds of each algorithm; the configuration's number when not given
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: Option<u64>,
    /// Runs at the same time; as many as the processor has cores for when not given
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub jobs: Option<u64>,
    /// Output folder; runs/EXPERIMENT when not given, a folder below it for each of several experiments
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// `ddpo sample`.
#[derive(Args)]
pub struct SampleArgs {
    /// `pocket`, a folder in the diffusers layout, or a name on the hub
    #[arg(long)]
    pub model: String,
    /// Commit of a model on the hub; those of Stable Diffusion v1.4 and v1.5 are known
    #[arg(long)]
    pub revision: Option<String>,
    /// What to show; repeatable
    #[arg(long, required = true)]
    pub prompt: Vec<String>,
    /// What not to show: guidance leads away from it
    #[arg(long, default_value = "")]
    pub negative: String,
    /// Height in pixels; the model's own when not given
    #[arg(long)]
    pub height: Option<u64>,
    /// Width in pixels; the model's own when not given
    #[arg(long)]
    pub width: Option<u64>,
    /// LoRA file, or a folder with one, that training, diffusers or peft wrote
    #[arg(long)]
    pub lora: Option<PathBuf>,
    /// Denoising steps
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub steps: u64,
    /// Strength of classifier-free guidance; 1 is none
    #[arg(long, default_value_t = 5.0)]
    pub guidance: f64,
    /// How latents are denoised
    #[arg(long, value_enum, default_value_t = SamplerName::Ddim)]
    pub sampler: SamplerName,
    /// Noise of a step of ddim, 0 to 1
    #[arg(long, default_value_t = 1.0)]
    pub eta: f64,
    /// Of the noise that --latents and --noise do not give
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    pub dtype: String,
    /// safetensors with `latents`, batch × c × h × w: the initial latent
    #[arg(long)]
    pub latents: Option<PathBuf>,
    /// safetensors with `noise`, steps × batch × c × h × w, in the order in which the steps consume it
    #[arg(long)]
    pub noise: Option<PathBuf>,
    /// Writes everything that the steps saw and made
    #[arg(long)]
    pub trace: Option<PathBuf>,
    /// Folder for the images
    #[arg(long)]
    pub out: PathBuf,
}

/// `ddpo score`.
#[derive(Args)]
pub struct ScoreArgs {
    /// Kind of the reward, as `reward.kind` in a configuration
    #[arg(long)]
    pub reward: String,
    /// Weights of aesthetic, image-reward, or vlm-bertscore's encoder: a folder, or a name on the hub as OWNER/NAME or
    /// OWNER/NAME@COMMIT
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub model: Option<String>,
    /// Sets one key of the reward, as `reward.threads=2`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Images, or folders of them
    #[arg(long, required = true, num_args = 1..)]
    pub images: Vec<PathBuf>,
    /// A line an image, in their order
    #[arg(long)]
    pub prompts: Option<PathBuf>,
    /// CSV file to write
    #[arg(long)]
    pub out: PathBuf,
}

/// `ddpo replay`.
#[derive(Args)]
pub struct ReplayArgs {
    /// `pocket`, a folder in the diffusers layout, or a name on the hub (its commit: --set model.revision=…)
    #[arg(long)]
    pub model: String,
    /// A trace of `ddpo sample` with one `advantages` value a sample
    #[arg(long)]
    pub rollout: PathBuf,
    /// Sets one key, as `rl.lr=1e-4`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder for weights, gradients and metrics
    #[arg(long)]
    pub out: PathBuf,
}

/// `ddpo export`.
#[derive(Args)]
pub struct ExportArgs {
    /// A run's folder
    pub run: PathBuf,
    /// What to write
    #[arg(long)]
    pub format: ExportFormat,
    /// Folder to write to; must be empty if it is there
    #[arg(long)]
    pub out: PathBuf,
    /// The checkpoint after so many epochs, where it is kept; the last when not given
    #[arg(long)]
    pub epoch: Option<u64>,
}

/// `ddpo eval`.
#[derive(Args)]
pub struct EvalArgs {
    /// A run's folder
    pub run: PathBuf,
    /// Prompt set, as `unseen-animals`, or a file with one prompt per line or JSON Lines; the run's own evaluations when not
    /// given
    #[arg(long, value_name = "SET|FILE")]
    pub prompts: Option<String>,
    /// Images of each set, before and after; as many as in the run's own evaluations when not given
    #[arg(long)]
    pub samples: Option<u64>,
    /// Seed of prompts' noise; the run's when not given
    #[arg(long)]
    pub seed: Option<u64>,
    /// The checkpoint after so many epochs, where it is kept; the last when not given
    #[arg(long)]
    pub epoch: Option<u64>,
    /// cpu or cuda:N; the run's when not given
    #[arg(long)]
    pub device: Option<String>,
    /// Folder to write to; RUN/evaluations/SET-seed-N when not given
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// What `ddpo export` writes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// The whole pipeline; of low-rank training the model as it was and the factors beside it
    Diffusers,
    /// Low-rank factors alone, for `load_lora_weights`
    Lora,
    /// The whole pipeline with the low-rank factors added to its weights
    Merged,
}

/// `ddpo report`.
#[derive(Args)]
pub struct ReportArgs {
    /// Run folders, or folders of them
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// File to write; report.html in the first folder when not given
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Prints what is wrong with the line in one line of its own; help and version as they are.
pub fn report(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // A closed pipe is the reader's choice.
        let _ = error.print();
        return Exit::Done;
    }
    let text = error.render().to_string();
    if text.starts_with("error:") {
        eprintln!("error: {}", one_line(&text));
    } else {
        eprint!("{text}");
    }
    Exit::Config
}

/// Joins clap's message, what is missing, and its tip.
fn one_line(text: &str) -> String {
    let message = ["\nUsage:", "\nFor more information"]
        .iter()
        .fold(text, |text, end| text.split(end).next().unwrap_or(text));
    let joined = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let joined = joined.strip_prefix("error: ").unwrap_or(&joined);
    format!("{}; see --help", joined.replace(" tip: ", "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_example_of_every_command_can_be_typed() {
        use clap::CommandFactory;
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let help = command.get_after_help().expect(name).to_string();
            let line = help.strip_prefix("Example: ").expect(name);
            assert!(line.starts_with(&format!("ddpo {name} ")), "{line}");
            if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
                unreachable!("{line}: {error}");
            }
        }
    }

    #[test]
    fn a_mistyped_flag_gets_one_line_with_the_one_that_was_meant() {
        let Err(error) = Cli::try_parse_from(["ddpo", "run", "x.toml", "--presett", "pocket"])
        else {
            unreachable!("--presett is no flag");
        };
        assert_eq!(
            one_line(&error.render().to_string()),
            "unexpected argument '--presett' found; a similar argument exists: '--preset'; see --help"
        );
    }
}
