//! The prompt sets, by the names that configurations use.

use super::{
    ACTIVITIES, COMMON_ANIMALS, COUNTED_ANIMALS, COUNTS, DPOK, EVERYDAY_OBJECTS, PAPER_ACTIVITIES,
    POCKET_OBJECTS, POCKET_UNSEEN_ANIMALS, SHOWN_ACTIVITIES, SHOWN_COUNTING, UNSEEN_ANIMALS,
    UNSEEN_SCENARIOS, WOLF, imagenet_animals, numbered, plural, with_article,
};
use crate::Prompt;

/// Which set a prompt is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PromptSet {
    /// [`COMMON_ANIMALS`], bare.
    Animals,
    /// [`imagenet_animals`], bare, with all their names.
    ImagenetAnimals,
    /// [`UNSEEN_ANIMALS`], bare.
    UnseenAnimals,
    /// [`EVERYDAY_OBJECTS`], bare.
    Objects,
    /// Every common animal with every one of [`ACTIVITIES`]: "a cat washing the dishes", 135 prompts, animal by animal.
    Activities,
    /// The same with [`PAPER_ACTIVITIES`]: "a cat washing dishes".
    ActivitiesPaper,
    /// [`SHOWN_ACTIVITIES`].
    ShownActivities,
    /// The third of `activities-paper` that washes dishes: 45 prompts.
    WashingDishes,
    /// The third of `activities-paper` that rides a bike: 45 prompts.
    RidingABike,
    /// The third of `activities-paper` that plays chess: 45 prompts.
    PlayingChess,
    /// [`POCKET_UNSEEN_ANIMALS`] with every one of [`PAPER_ACTIVITIES`]: 69 prompts.
    PocketUnseenActivities,
    /// [`COUNTED_ANIMALS`], two to eight of them: "six monkeys", 154 prompts, animal by animal.
    Counting,
    /// [`SHOWN_COUNTING`].
    ShownCounting,
    /// [`DPOK`].
    Dpok,
    /// [`WOLF`].
    Wolf,
    /// [`UNSEEN_SCENARIOS`].
    UnseenScenarios,
    /// [`POCKET_UNSEEN_ANIMALS`], bare.
    PocketUnseenAnimals,
    /// [`POCKET_OBJECTS`], bare.
    PocketObjects,
}

impl PromptSet {
    /// All sets.
    pub const ALL: [Self; 18] = [
        Self::Animals,
        Self::ImagenetAnimals,
        Self::UnseenAnimals,
        Self::Objects,
        Self::Activities,
        Self::ActivitiesPaper,
        Self::ShownActivities,
        Self::WashingDishes,
        Self::RidingABike,
        Self::PlayingChess,
        Self::PocketUnseenActivities,
        Self::Counting,
        Self::ShownCounting,
        Self::Dpok,
        Self::Wolf,
        Self::UnseenScenarios,
        Self::PocketUnseenAnimals,
        Self::PocketObjects,
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Animals => "animals",
            Self::ImagenetAnimals => "imagenet-animals",
            Self::UnseenAnimals => "unseen-animals",
            Self::Objects => "objects",
            Self::Activities => "activities",
            Self::ActivitiesPaper => "activities-paper",
            Self::ShownActivities => "shown-activities",
            Self::WashingDishes => "washing-dishes",
            Self::RidingABike => "riding-a-bike",
            Self::PlayingChess => "playing-chess",
            Self::PocketUnseenActivities => "pocket-unseen-activities",
            Self::Counting => "counting",
            Self::ShownCounting => "shown-counting",
            Self::Dpok => "dpok",
            Self::Wolf => "wolf",
            Self::UnseenScenarios => "unseen-scenarios",
            Self::PocketUnseenAnimals => "pocket-unseen-animals",
            Self::PocketObjects => "pocket-objects",
        }
    }

    /// The set of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// The prompts, numbered from 0.
    pub fn prompts(self) -> Vec<Prompt> {
        let [dishes, bike, chess] = PAPER_ACTIVITIES;
        let common = COMMON_ANIMALS.as_slice();
        match self {
            Self::Animals => numbered(COMMON_ANIMALS),
            Self::ImagenetAnimals => numbered(imagenet_animals()),
            Self::UnseenAnimals => numbered(UNSEEN_ANIMALS),
            Self::Objects => numbered(EVERYDAY_OBJECTS),
            Self::Activities => doing(common, &ACTIVITIES),
            Self::ActivitiesPaper => doing(common, &PAPER_ACTIVITIES),
            Self::ShownActivities => numbered(SHOWN_ACTIVITIES),
            Self::WashingDishes => doing(common, &[dishes]),
            Self::RidingABike => doing(common, &[bike]),
            Self::PlayingChess => doing(common, &[chess]),
            Self::PocketUnseenActivities => doing(&POCKET_UNSEEN_ANIMALS, &PAPER_ACTIVITIES),
            Self::Counting => numbered(COUNTED_ANIMALS.iter().flat_map(|animal| {
                let many = plural(animal);
                COUNTS.map(|count| format!("{count} {many}"))
            })),
            Self::ShownCounting => numbered(SHOWN_COUNTING),
            Self::Dpok => numbered(DPOK),
            Self::Wolf => numbered(WOLF),
            Self::UnseenScenarios => numbered(UNSEEN_SCENARIOS),
            Self::PocketUnseenAnimals => numbered(POCKET_UNSEEN_ANIMALS),
            Self::PocketObjects => numbered(POCKET_OBJECTS),
        }
    }
}

/// Every animal with every activity, animal by animal.
fn doing(animals: &[&str], activities: &[&str]) -> Vec<Prompt> {
    numbered(animals.iter().flat_map(|animal| {
        let animal = with_article(animal);
        activities
            .iter()
            .map(move |activity| format!("{animal} {activity}"))
    }))
}
