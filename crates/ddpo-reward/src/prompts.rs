//! The paper's prompt sets, letter by letter, and prompts of one's own.

#[cfg(feature = "prompt-files")]
mod list;
mod sets;

use crate::Prompt;
#[cfg(feature = "prompt-files")]
pub use list::PromptList;
pub use sets::PromptSet;

/// The 45 common animals, used bare ("cat", no article) for the aesthetic reward.
///
/// Black et al. 2023, appendix D.6; jannerm/ddpo `assets/common_animals.txt`, ddpo-pytorch
/// `assets/simple_animals.txt`.
pub const COMMON_ANIMALS: [&str; 45] = [
    "cat",
    "dog",
    "horse",
    "monkey",
    "rabbit",
    "zebra",
    "spider",
    "bird",
    "sheep",
    "deer",
    "cow",
    "goat",
    "lion",
    "tiger",
    "bear",
    "raccoon",
    "fox",
    "wolf",
    "lizard",
    "beetle",
    "ant",
    "butterfly",
    "fish",
    "shark",
    "whale",
    "dolphin",
    "squirrel",
    "mouse",
    "rat",
    "snake",
    "turtle",
    "frog",
    "chicken",
    "duck",
    "goose",
    "bee",
    "pig",
    "turkey",
    "fly",
    "llama",
    "camel",
    "bat",
    "gorilla",
    "hedgehog",
    "kangaroo",
];

/// The 38 animals that training never sees.
///
/// Black et al. 2023, appendix F ("38 additional animals"); jannerm/ddpo, first commit e0454b9,
/// `assets/uncommon_animals.txt`, capitals as there.
pub const UNSEEN_ANIMALS: [&str; 38] = [
    "Elephant",
    "Giraffe",
    "Hippopotamus",
    "Rhinoceros",
    "Ostrich",
    "Penguin",
    "Seal",
    "Otter",
    "Walrus",
    "Chimpanzee",
    "Orangutan",
    "Koala",
    "Platypus",
    "Crocodile",
    "Alligator",
    "Komodo dragon",
    "Anaconda",
    "Octopus",
    "Squid",
    "Lobster",
    "Crab",
    "Jellyfish",
    "Starfish",
    "Seahorse",
    "Pelican",
    "Flamingo",
    "Toucan",
    "Parrot",
    "Peacock",
    "Skunk",
    "Badger",
    "Porcupine",
    "Armadillo",
    "Sloth",
    "Beaver",
    "Moose",
    "Reindeer",
    "Shoebill stork",
];

/// The 50 everyday objects.
///
/// Black et al. 2023, appendix F ("50 objects"); jannerm/ddpo, first commit e0454b9,
/// `assets/everyday_objects.txt`, capitals as there.
pub const EVERYDAY_OBJECTS: [&str; 50] = [
    "Toaster",
    "Chair",
    "Car",
    "Coffee cup",
    "Refrigerator",
    "Lamp",
    "Television",
    "Sofa",
    "Computer",
    "Smartphone",
    "Bicycle",
    "Table",
    "Bookshelf",
    "Clock",
    "Microwave",
    "Blender",
    "Vacuum cleaner",
    "Iron",
    "Washing machine",
    "Dryer",
    "Oven",
    "Dishwasher",
    "Mirror",
    "Picture frame",
    "Trash can",
    "Plant pot",
    "Water bottle",
    "Backpack",
    "Umbrella",
    "Sunglasses",
    "Wallet",
    "Keychain",
    "Pen",
    "Pencil",
    "Notebook",
    "Stapler",
    "Scissors",
    "Tape dispenser",
    "Calculator",
    "Eraser",
    "Ruler",
    "Glue stick",
    "Highlighter",
    "Marker",
    "Post-it notes",
    "Envelope",
    "Stamp",
    "Key",
    "Skull",
    "Flower",
];

/// The three activities as both codebases write them ([`PAPER_ACTIVITIES`] as the paper's text does).
pub const ACTIVITIES: [&str; 3] = ["washing the dishes", "riding a bike", "playing chess"];

/// The three activities as the paper's text writes them: Black et al. 2023, section 6.2 and appendix D.6.
pub const PAPER_ACTIVITIES: [&str; 3] = ["washing dishes", "riding a bike", "playing chess"];

/// Prompts whose images the paper's website shows: a few animals with each of the activities.
///
/// <https://rl-diffusion.github.io>, section on prompt alignment.
pub const SHOWN_ACTIVITIES: [&str; 10] = [
    "a dolphin riding a bike",
    "a hedgehog riding a bike",
    "a dog riding a bike",
    "a lizard riding a bike",
    "a bear washing dishes",
    "a shark washing dishes",
    "a frog washing dishes",
    "a monkey washing dishes",
    "a chicken playing chess",
    "an ant playing chess",
];

/// The 22 animals that are counted.
///
/// jannerm/ddpo, commit f0b6ca7, `assets/very_simple_animals.txt`.
pub const COUNTED_ANIMALS: [&str; 22] = [
    "cat", "dog", "horse", "monkey", "rabbit", "spider", "bird", "sheep", "cow", "lion", "tiger",
    "bear", "raccoon", "fox", "wolf", "ant", "fish", "squirrel", "turtle", "frog", "chicken",
    "pig",
];

/// How many of them: two to eight, both ends included (jannerm/ddpo, commit f0b6ca7, `llava_counting`).
pub const COUNTS: [&str; 7] = ["two", "three", "four", "five", "six", "seven", "eight"];

/// Counts whose images the paper and its website show.
///
/// Black et al. 2023, fig. 7 (eight turtles); <https://rl-diffusion.github.io>, section on over-optimisation, the first
/// three of its 24.
pub const SHOWN_COUNTING: [&str; 4] =
    ["eight turtles", "six monkeys", "six tigers", "five turtles"];

/// The four prompts of the comparison with DPOK, for which one model is trained.
///
/// Black et al. 2023, appendix C: without DPOK's own capitals and full stops.
pub const DPOK: [&str; 4] = [
    "a green colored rabbit",
    "four wolves in the park",
    "a dog and a cat",
    "a dog on the moon",
];

/// The prompt of the comparison with universal guidance (Black et al. 2023, table 1), which pocket can draw too.
pub const WOLF: [&str; 1] = ["wolf"];

/// Scenarios by which the alignment model is shown to generalise: other animals, activities, and things.
///
/// rl-diffusion.github.io, and in part Black et al. 2023, figures 6 and 16. The paper has no figures for them.
pub const UNSEEN_SCENARIOS: [&str; 12] = [
    "a capybara washing dishes",
    "snail playing chess",
    "a dog doing laundry",
    "a giraffe playing basketball",
    "a parrot driving a car",
    "a duck taking an exam",
    "a robot fishing in a lake",
    "a horse typing on a keyboard",
    "a rabbit sewing clothes",
    "a tree riding a bike",
    "a car eating a sandwich",
    "an apple playing soccer",
];

/// Those 23 of [`UNSEEN_ANIMALS`] that the pocket world has drawings of, lower case as its tokenizer makes them.
pub const POCKET_UNSEEN_ANIMALS: [&str; 23] = [
    "elephant",
    "giraffe",
    "hippopotamus",
    "rhinoceros",
    "penguin",
    "seal",
    "otter",
    "orangutan",
    "koala",
    "crocodile",
    "octopus",
    "squid",
    "lobster",
    "crab",
    "jellyfish",
    "flamingo",
    "parrot",
    "peacock",
    "skunk",
    "badger",
    "sloth",
    "beaver",
    "moose",
];

/// Those 28 of [`EVERYDAY_OBJECTS`] that the pocket world has drawings of, lower case as its tokenizer makes them.
pub const POCKET_OBJECTS: [&str; 28] = [
    "chair",
    "car",
    "coffee cup",
    "lamp",
    "television",
    "sofa",
    "computer",
    "smartphone",
    "bicycle",
    "bookshelf",
    "clock",
    "mirror",
    "picture frame",
    "trash can",
    "plant pot",
    "backpack",
    "umbrella",
    "sunglasses",
    "wallet",
    "pen",
    "pencil",
    "notebook",
    "scissors",
    "ruler",
    "envelope",
    "key",
    "skull",
    "flower",
];

/// The 398 animals of ImageNet, with all their names: "tench, Tinca tinca" to "puffer, pufferfish, blowfish,
/// globefish".
///
/// Classes 0 to 397 (Black et al. 2023, section 6.1; jannerm/ddpo draws `randint(0, 397)`, ddpo-pytorch slices
/// `[0:398]`). Where they are from: `assets/LICENSES.md`.
pub fn imagenet_animals() -> impl ExactSizeIterator<Item = &'static str> {
    let lines: Vec<&str> = include_str!("../assets/imagenet_animals.txt")
        .lines()
        .collect();
    lines.into_iter()
}

/// Prompts in the order of their texts, numbered from 0.
pub fn numbered<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Vec<Prompt> {
    (0..)
        .zip(texts)
        .map(|(id, text)| Prompt::new(id, text))
        .collect()
}

/// "a cat", "an ant": by the first letter, which is right for every name in these sets.
pub fn with_article(noun: &str) -> String {
    let article = match noun.chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('a' | 'e' | 'i' | 'o' | 'u') => "an",
        _ => "a",
    };
    format!("{article} {noun}")
}

/// The plural of a name in [`COUNTED_ANIMALS`] or [`COMMON_ANIMALS`], as inflect makes it: "wolves", "sheep".
pub fn plural(noun: &str) -> String {
    match noun {
        "sheep" | "deer" | "fish" | "squid" | "moose" => noun.to_owned(),
        "mouse" => "mice".to_owned(),
        "goose" => "geese".to_owned(),
        "wolf" => "wolves".to_owned(),
        "butterfly" | "fly" => format!("{}ies", &noun[..noun.len() - 1]),
        "fox" | "ostrich" | "octopus" => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

#[cfg(test)]
mod tests;
