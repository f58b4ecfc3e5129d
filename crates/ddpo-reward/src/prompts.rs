//! The paper's prompt sets, letter by letter.

use crate::Prompt;

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

/// The three activities as both codebases write them; the paper's text has "washing dishes".
pub const ACTIVITIES: [&str; 3] = ["washing the dishes", "riding a bike", "playing chess"];

/// Which set a prompt is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PromptSet {
    /// [`COMMON_ANIMALS`], bare.
    Animals,
    /// [`UNSEEN_ANIMALS`], bare.
    UnseenAnimals,
    /// [`EVERYDAY_OBJECTS`], bare.
    Objects,
    /// Every common animal with every activity: "a cat washing the dishes", 135 prompts, animal by animal.
    Activities,
}

impl PromptSet {
    /// All sets.
    pub const ALL: [Self; 4] = [
        Self::Animals,
        Self::UnseenAnimals,
        Self::Objects,
        Self::Activities,
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Animals => "animals",
            Self::UnseenAnimals => "unseen-animals",
            Self::Objects => "objects",
            Self::Activities => "activities",
        }
    }

    /// The set of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// The prompts, numbered from 0.
    pub fn prompts(self) -> Vec<Prompt> {
        match self {
            Self::Animals => numbered(COMMON_ANIMALS),
            Self::UnseenAnimals => numbered(UNSEEN_ANIMALS),
            Self::Objects => numbered(EVERYDAY_OBJECTS),
            Self::Activities => numbered(COMMON_ANIMALS.iter().flat_map(|animal| {
                ACTIVITIES.map(|activity| format!("{} {activity}", with_article(animal)))
            })),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn sets_have_the_paper_s_sizes_and_no_text_twice() {
        for (set, n) in PromptSet::ALL.into_iter().zip([45, 38, 50, 135]) {
            let prompts = set.prompts();
            let texts: HashSet<_> = prompts.iter().map(|p| p.text.to_lowercase()).collect();
            assert_eq!((prompts.len(), texts.len()), (n, n), "{}", set.name());
            assert!(prompts.iter().zip(0..).all(|(p, id)| p.id == id));
            assert_eq!(PromptSet::by_name(set.name()), Some(set));
        }
        assert_eq!(PromptSet::by_name("plants"), None);
    }

    #[test]
    fn unseen_sets_share_nothing_with_training() {
        let seen: HashSet<_> = COMMON_ANIMALS.into_iter().collect();
        for text in UNSEEN_ANIMALS.iter().chain(&EVERYDAY_OBJECTS) {
            assert!(!seen.contains(text.to_lowercase().as_str()), "{text}");
        }
    }

    #[test]
    fn articles_follow_the_first_letter() {
        let prompts = PromptSet::Activities.prompts();
        assert_eq!(prompts[0].text, "a cat washing the dishes");
        assert_eq!(with_article("ant"), "an ant");
        assert!(prompts.iter().any(|p| p.text == "an ant playing chess"));
    }
}
