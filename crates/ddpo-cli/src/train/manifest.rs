//! `manifest.json`: what a reader must know to believe a run or to repeat it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::config::Plan;
use crate::failure::Result;
use crate::models;
use crate::output::{self, MANIFEST};

/// What is known of a run beside its configuration.
#[derive(Debug)]
pub struct Manifest {
    fields: Value,
    /// Time that the run has taken, over all its starts.
    pub seconds: f64,
}

impl Manifest {
    /// Of a run that is about to start.
    ///
    /// `reward_version` tells weights and wording of the reward from others ([`ddpo_reward::Reward::version`]).
    pub fn new(
        plan: &Plan,
        preset: &str,
        trained_parameters: usize,
        reward_version: Option<String>,
    ) -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let fields = json!({
            "format": 1,
            "ddpo": env!("CARGO_PKG_VERSION"),
            "commit": option_env!("DDPO_COMMIT"),
            "libtorch": "2.11.0",
            "experiment": plan.experiment,
            "preset": preset,
            "algorithm": plan.rl.algorithm.name(),
            "variant": plan.variant,
            "seed": plan.run.seed,
            "model": plan.model.source.path,
            "model_revision": models::revision(&plan.model.source),
            "device": format!("{:?}", plan.model.device).to_lowercase(),
            "threads": tch::get_num_threads(),
            "trained_parameters": trained_parameters,
            "reward": plan.reward.name(),
            "reward_version": reward_version,
            "stands_in_for": plan.stands_in_for,
            "command": arguments.join(" "),
            "arguments": arguments,
            "started_unix_s": started,
        });
        Self {
            fields,
            seconds: 0.0,
        }
    }

    /// Writes it with the run's state; time of earlier starts is added.
    pub fn write(&mut self, folder: &Path, status: &str) -> Result<()> {
        let path = folder.join(MANIFEST);
        if self.seconds == 0.0 {
            self.seconds = earlier_seconds(&path);
        }
        self.fields["status"] = status.into();
        self.fields["seconds"] = self.seconds.into();
        let text = serde_json::to_string_pretty(&self.fields).unwrap_or_default();
        output::write(&path, &(text + "\n"))
    }
}

fn earlier_seconds(path: &Path) -> f64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let earlier: Value = serde_json::from_str(&text).unwrap_or_default();
    earlier["seconds"].as_f64().unwrap_or(0.0)
}
