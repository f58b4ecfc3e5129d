//! The experiment in the paper and here.

use maud::{Markup, html};
use serde::{Deserialize, Serialize};

/// What the paper found, and what a preset reproduces; empty texts are not shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Where the experiment is in the paper, such as `Fig. 4`.
    pub paper: String,
    /// What the paper found, in a sentence or two.
    pub found: String,
    /// What the preset replaces, in a sentence or two.
    pub replaced: String,
    /// What the paper found and the preset does not reproduce, and why, in a sentence or two.
    pub against: String,
}

/// A reward that takes the place of the paper's, which cannot run on the preset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StandIn {
    /// What was trained on, such as `colourfulness (Hasler and Süsstrunk 2003)`.
    pub used: String,
    /// What it stands in for, such as `the LAION aesthetic score`.
    pub stands_for: String,
    /// Why, in a sentence.
    pub reason: String,
}

impl About {
    pub(super) fn list(&self) -> Markup {
        let rows = [
            ("Finding of the paper", &self.found),
            ("Replaced here", &self.replaced),
            ("Not reproduced here", &self.against),
        ];
        let said: Vec<_> = rows.iter().filter(|(_, text)| !text.is_empty()).collect();
        html! {
            @if !said.is_empty() {
                dl.facts { @for (name, text) in said { div { dt { (name) } dd { (text) } } } }
            }
        }
    }
}
