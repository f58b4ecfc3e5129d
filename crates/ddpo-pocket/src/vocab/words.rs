//! Every word of the pocket world: of its scenes, and of prompts beyond them.

use std::collections::BTreeSet;

use ddpo_reward::prompts::{COMMON_ANIMALS, EVERYDAY_OBJECTS, UNSEEN_ANIMALS};

use crate::artwork::ArtworkSet;
use crate::caption::plural;
use crate::scene::{Color, FigureSize, Pattern};

/// Words of captions other than names, styles, colours and patterns.
const SCENE_WORDS: &str = "a an the of on in and with picture background \
     one two three four five six seven eight nine ten";

/// The paper's activities (appendix D.6) with the props that show them, and its DPOK prompts
/// (appendix C).
const PAPER_WORDS: &str = "washing dishes riding bike playing chess pawn plate sponge bubbles \
     green colored rabbit wolves park dog cat moon full earth tree trees";

/// The prompts by which the paper's website shows generalisation: other animals, other activities.
const WEBSITE_WORDS: &str = "capybara snail robot apple sandwich shoebill doing laundry \
     basketball driving taking exam fishing lake typing keyboard sewing clothes eating soccer";

/// Synonyms for what scenes show.
const SPARE_WORDS: &str = "brown photo drawing emoji image animal animals many";

/// Every word that is one token, lower case.
pub fn words() -> BTreeSet<String> {
    let mut text = [SCENE_WORDS, PAPER_WORDS, WEBSITE_WORDS, SPARE_WORDS].join(" ");
    let mut add = |words: &str| {
        text.push(' ');
        text.push_str(&words.to_lowercase());
    };
    COMMON_ANIMALS
        .iter()
        .chain(&UNSEEN_ANIMALS)
        .chain(&EVERYDAY_OBJECTS)
        .for_each(|name| add(name));
    COMMON_ANIMALS
        .iter()
        .for_each(|animal| add(&plural(animal)));
    ArtworkSet::ALL
        .iter()
        .filter_map(|set| set.style_word())
        .for_each(&mut add);
    FigureSize::ALL
        .iter()
        .filter_map(|size| size.word())
        .for_each(&mut add);
    Pattern::ALL
        .iter()
        .filter_map(|pattern| pattern.word())
        .for_each(&mut add);
    Color::GROUNDS.iter().for_each(|color| add(color.word()));
    // CLIP's tokenizer takes runs of letters as words; digits and hyphens stand alone.
    let letters = text.split(|c: char| !c.is_alphabetic());
    letters
        .filter(|word| word.len() > 1 || matches!(*word, "a"))
        .map(str::to_owned)
        .collect()
}
