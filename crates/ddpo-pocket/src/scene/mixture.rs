//! The proportions in which scenes are sampled.

use crate::error::{Error, Result};

/// The proportions in which scenes are sampled. Relative weights need not sum to one.
///
/// Scenes without an activity, a count, an attribute or a pair show a single entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// Relative weight of the training animals, all together.
    pub animals: f64,
    /// Relative weight of the unseen animals, all together.
    pub unseen_animals: f64,
    /// Relative weight of the objects, all together.
    pub objects: f64,
    /// Relative weight of each set, in the order of [`ArtworkSet::ALL`](crate::artwork::ArtworkSet::ALL), among those that have the entity.
    /// Judges are trained on other sets than each other.
    pub sets: [f64; 7],
    /// Share of scenes with an activity.
    pub activities: f64,
    /// Whether all animals, including unseen ones, may appear in activities, or only those two thirds of the training
    /// animals that [`prompts::active_animals`](crate::prompts::active_animals) lists.
    pub all_animals_active: bool,
    /// Share of scenes with two to eight of one training animal.
    pub counting: f64,
    /// Share of scenes like DPOK's prompts: an unusual colour, two animals, animals in the park, one on the moon.
    pub attributes: f64,
    /// Share of scenes on plain white; the rest is drawn from all other grounds.
    pub plain_white: f64,
    /// Share of captions of single entities that only name the entity.
    pub plain_caption: f64,
}

impl Default for Mixture {
    /// The whole world: a tenth of the scenes activities, a tenth counts, a twentieth attributes and pairs, and the
    /// rest as in [`Mixture::singles`].
    fn default() -> Self {
        Self {
            activities: 0.1,
            counting: 0.1,
            attributes: 0.05,
            ..Self::singles()
        }
    }
}

impl Mixture {
    /// Single entities only: the mixture of the first training stage of the shipped codec, VAE and UNet.
    ///
    /// Training animals 60 %, unseen animals and objects 20 % each; white 37.5 %, where JPEG sizes
    /// are smallest; plain captions 55 %, so that the model stays multi-modal on bare names.
    pub fn singles() -> Self {
        Self {
            animals: 0.6,
            unseen_animals: 0.2,
            objects: 0.2,
            sets: [1.0, 1.0, 1.0, 1.0, 1.0, 0.4, 0.4],
            activities: 0.0,
            all_animals_active: false,
            counting: 0.0,
            attributes: 0.0,
            plain_white: 0.375,
            plain_caption: 0.55,
        }
    }

    /// Share of scenes that show one entity and nothing else.
    pub fn single(&self) -> f64 {
        1.0 - self.activities - self.counting - self.attributes
    }

    pub(super) fn check(&self) -> Result<()> {
        let kinds = [
            ("animals", self.animals),
            ("unseen_animals", self.unseen_animals),
            ("objects", self.objects),
        ];
        let sets = self.sets.map(|weight| ("sets", weight));
        for (field, weight) in kinds.into_iter().chain(sets) {
            if !weight.is_finite() || weight < 0.0 {
                let reason = format!("{weight} is not a weight: expected a number from 0");
                return Err(Error::Mixture { field, reason });
            }
        }
        if kinds.iter().all(|(_, weight)| *weight == 0.0) {
            let reason = "all kinds of entities have weight zero".to_owned();
            return Err(Error::Mixture {
                field: "animals",
                reason,
            });
        }
        let shares = [
            ("activities", self.activities),
            ("counting", self.counting),
            ("attributes", self.attributes),
            ("plain_white", self.plain_white),
            ("plain_caption", self.plain_caption),
        ];
        for (field, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                let reason = format!("{share} is not a share: expected 0 to 1");
                return Err(Error::Mixture { field, reason });
            }
        }
        if self.single() < -1e-9 {
            let reason = format!(
                "activities {}, counting {} and attributes {} add up to more than 1",
                self.activities, self.counting, self.attributes
            );
            let field = "activities";
            return Err(Error::Mixture { field, reason });
        }
        Ok(())
    }
}
