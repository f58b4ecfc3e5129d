//! What the paper has, and what becomes of it here.

use maud::{Markup, html};
use serde::{Deserialize, Serialize};

/// What the paper found, and how far a preset can go after it; a text that is empty is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Where the experiment stands in the paper, such as `Fig. 4`.
    pub paper: String,
    /// What the paper found, in a sentence or two.
    pub found: String,
    /// What the preset has in place of what the paper has, in a sentence or two.
    pub replaced: String,
    /// What the paper found and the preset does not, and why, in a sentence or two.
    pub against: String,
}

impl About {
    pub(super) fn list(&self) -> Markup {
        let rows = [
            ("The paper found", &self.found),
            ("Here instead", &self.replaced),
            ("Does not hold here", &self.against),
        ];
        let said: Vec<_> = rows.iter().filter(|(_, text)| !text.is_empty()).collect();
        html! {
            @if !said.is_empty() {
                dl.facts { @for (name, text) in said { div { dt { (name) } dd { (text) } } } }
            }
        }
    }
}
