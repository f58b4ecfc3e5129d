//! Prompt lists of the pocket world: the paper's, as far as there is artwork.
//!
//! Names are lower case, as the tokenizer makes them, and in the paper's order.

use ddpo_reward::prompts::{COMMON_ANIMALS, EVERYDAY_OBJECTS, UNSEEN_ANIMALS};

use crate::artwork::{EntityKind, listed_entities};
use crate::error::Result;

/// The 45 animals that the paper trains on, all of which have artwork.
pub fn training_animals() -> Vec<String> {
    COMMON_ANIMALS
        .iter()
        .map(|name| name.to_lowercase())
        .collect()
}

/// The 30 training animals that pretraining shows in activities, rarely: the paper's base model hardly knows its
/// activities, and RL has to generalise to the others (two of every three, in the paper's order).
pub fn active_animals() -> Vec<String> {
    let animals = training_animals().into_iter().enumerate();
    animals
        .filter(|(i, _)| i % 3 != 2)
        .map(|(_, name)| name)
        .collect()
}

/// The 23 of the paper's 38 unseen animals that have artwork.
///
/// # Errors
/// If the embedded entity list is damaged.
pub fn unseen_animals() -> Result<Vec<String>> {
    drawn(&UNSEEN_ANIMALS, EntityKind::UnseenAnimal)
}

/// The 28 of the paper's 50 everyday objects that have artwork.
///
/// # Errors
/// If the embedded entity list is damaged.
pub fn objects() -> Result<Vec<String>> {
    drawn(&EVERYDAY_OBJECTS, EntityKind::Object)
}

fn drawn(names: &[&str], kind: EntityKind) -> Result<Vec<String>> {
    let listed = listed_entities()?;
    let has_artwork = |name: &String| {
        listed
            .iter()
            .any(|entry| entry.kind == kind && entry.name == *name)
    };
    Ok(names
        .iter()
        .map(|name| name.to_lowercase())
        .filter(has_artwork)
        .collect())
}

#[cfg(test)]
mod tests {
    use ddpo_reward::prompts::{POCKET_OBJECTS, POCKET_UNSEEN_ANIMALS};

    use super::*;

    #[test]
    fn lists_hold_every_entity_of_their_kind() -> Result<()> {
        let listed = listed_entities()?;
        for (kind, names, n) in [
            (EntityKind::Animal, training_animals(), 45),
            (EntityKind::UnseenAnimal, unseen_animals()?, 23),
            (EntityKind::Object, objects()?, 28),
        ] {
            let mut entities: Vec<_> = listed
                .iter()
                .filter(|entry| entry.kind == kind)
                .map(|entry| &entry.name)
                .collect();
            let mut names: Vec<_> = names.iter().collect();
            entities.sort();
            names.sort();
            assert_eq!(names, entities, "{kind:?}");
            assert_eq!(names.len(), n, "{kind:?}");
        }
        // The sets that configurations can name are these lists.
        assert_eq!(unseen_animals()?, POCKET_UNSEEN_ANIMALS);
        assert_eq!(objects()?, POCKET_OBJECTS);
        Ok(())
    }
}
