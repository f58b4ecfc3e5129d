//! Keys of prompts, in training and beside it.

use super::Key;
use super::Kind::{Choice, Count, Number, Other};
use super::names;
use crate::config::Measure;

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "prompts.set",
        Other(
            "a prompt set, as animals; prompts of your own are prompts.file = \"prompts.txt\" or \
         prompts.texts = [\"a cat\"]",
        ),
        "One of the built-in sets that training draws from. Of set, file and texts the one in \
         the highest layer counts.",
    ),
    Key::new(
        "prompts.file",
        Other("a file with one prompt per line, or JSON Lines"),
        "Prompts of your own: one per line, or JSON Lines with `text`, and `weight` and \
         `metadata` where wanted. Relative to the configuration's folder.",
    ),
    Key::new(
        "prompts.texts",
        Other("a list of texts, as [\"a cat\", \"a dog\"]"),
        "Prompts of your own, as a list.",
    ),
    Key::new(
        "prompts.sha256",
        Other("what `ddpo run` wrote there"),
        "Checksum of the prompts of `prompts.file`, which a run writes: it is not taken on with \
         other prompts.",
    ),
    Key::new(
        "prompts.negative",
        Other("a text, or \"\" for none"),
        "The negative prompt, which the unconditional branch of guidance sees in training, \
         sampling and evaluation.",
    )
    .default("\"\""),
    Key::new(
        "eval.sets",
        Other("a list of prompt sets"),
        "Built-in prompt sets that the policy is measured on, none for no evaluation; prompts \
         of your own take the place of sets in lower layers.",
    ),
    Key::new(
        "eval.file",
        Other("a file with one prompt per line, or JSON Lines"),
        "Prompts of your own that the policy is measured on instead of those that it trains on.",
    ),
    Key::new(
        "eval.sha256",
        Other("what `ddpo run` wrote there"),
        "Checksum of the prompts of `eval.file`, which a run writes.",
    ),
    Key::new(
        "eval.samples",
        Count(2, 1_000_000),
        "Images of each set: its prompts over and over, or its first ones where there are more.",
    ),
    Key::new(
        "eval.every",
        Count(1, 1_000_000),
        "Evaluates every so many epochs, and at the first and the last.",
    ),
    Key::new(
        "eval.panel",
        Other("a list of measures"),
        "What is measured of evaluated images beside the reward: jpeg-size, colourfulness, \
         aesthetic, edges, diversity, held-out-judge, held-out-first.",
    ),
    Key::new(
        "eval.stop_rule.judge",
        Choice(|| names(&Measure::NAMES)),
        "The measure that should not fall while the reward rises: where it does, reward hacking \
         begins.",
    ),
    Key::new(
        "eval.stop_rule.standard_errors",
        Number(0.0, 100.0),
        "How many standard errors of paired differences make a change.",
    )
    .may_change(),
    Key::new(
        "progress.prompts",
        Other("a list of prompts"),
        "Prompts that are drawn again through training, each from its own fixed noise.",
    ),
    Key::new(
        "progress.every",
        Count(1, 1_000_000),
        "Draws them every so many epochs, and at the first and the last.",
    ),
];
