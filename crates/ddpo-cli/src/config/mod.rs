//! From files and `--set` to a [`Plan`].
//!
//! Layers, later ones over earlier ones: the preset and what it says for the algorithm (`[algorithms.NAME.…]`),
//! the experiment's file and what it says for the algorithm and for the preset (`[presets.NAME.…]`), what either says for
//! the variant of the experiment (`[variants.NAME.…]`), `--set`.
//! Every key is read through a reader, which collects all problems and remembers where each value came from.

mod ddpo;
mod document;
mod evals;
mod guidance;
pub mod keys;
mod layers;
mod method;
mod networks;
mod plan;
mod prompts;
mod reader;
pub mod resolved;
mod reward;
mod rwr;
mod sections;
mod services;

pub use ddpo::{BaselineKind, DdpoPlan};
pub use evals::{EvalPlan, Measure};
pub use guidance::GuidancePlan;
pub use layers::Source;
pub use method::{Algorithm, Method};
pub use networks::NetworkPlan;
pub use plan::{
    ClaimRow, DTYPES, ModelSource, POCKET, Plan, PolicyPlan, ProgressPlan, SamplerPlan, Train,
};
pub use prompts::Prompts;
pub use reader::Entry;
pub use reward::{RewardKind, RewardPlan};
pub use rwr::RwrPlan;
pub use services::{CachePlan, EncoderPlan, VlmPlan};

#[cfg(test)]
mod tests;
