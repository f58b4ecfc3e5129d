//! Keys that only lists, reports and `ddpo reproduce` read.

use super::Key;
use super::Kind::{Count, Other};

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "reproduce.algorithms",
        Other("a list of algorithms or variants"),
        "What `ddpo reproduce` runs when the command line does not say.",
    )
    .default("[\"ddpo-is\"]")
    .may_change(),
    Key::new(
        "reproduce.seeds",
        Count(1, 1000),
        "Runs of each, with seeds from run.seed on.",
    )
    .may_change(),
    Key::new(
        "claims",
        Other("rows with algorithm and check = { kind, source, metric, standard_errors }"),
        "What must hold of finished runs; one that does not hold is exit code 10.",
    )
    .may_change(),
    Key::new(
        "about.paper",
        Other("a text"),
        "Figure or table of the paper.",
    )
    .may_change(),
    Key::new("about.shows", Other("a text"), "What the experiment shows.").may_change(),
    Key::new("about.found", Other("a text"), "What the paper found.").may_change(),
    Key::new(
        "about.replaced",
        Other("a text"),
        "What is not as in the paper.",
    )
    .may_change(),
    Key::new(
        "about.against",
        Other("a text"),
        "What speaks against the paper's finding here.",
    )
    .may_change(),
    Key::new(
        "about.minutes",
        Other("minutes on two cores, a number"),
        "How long all its runs take.",
    )
    .may_change(),
];
