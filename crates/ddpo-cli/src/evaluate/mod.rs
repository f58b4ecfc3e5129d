//! What a policy is worth on fixed prompts from fixed noise: drawn, scored, measured, and told side by side.

mod compare;
mod evaluation;
mod panel;

pub use compare::compare;
pub use evaluation::Evaluation;
pub use panel::Panel;
