//! The lots that decide what a scene shows.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Color, Figure, Ground, Pattern, SCENE_SIDE, Scene, SceneKind, Size};
use crate::artwork::{EntityKind, Pack, Set};
use crate::error::{Error, Result};

/// How often what is drawn. Shares and weights need not sum to one where they are relative.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// Relative weight of the training animals, all together.
    pub animals: f64,
    /// Relative weight of the unseen animals, all together.
    pub unseen_animals: f64,
    /// Relative weight of the objects, all together.
    pub objects: f64,
    /// Relative weight of each set, in the order of [`Set::ALL`], among those that have the entity.
    /// A judge that must see other drawings than the model takes other sets.
    pub sets: [f64; 7],
    /// Share of scenes on plain white; the rest is drawn from all other grounds.
    pub plain_white: f64,
    /// Share of captions that name the entity and nothing else.
    pub plain_caption: f64,
}

impl Default for Mixture {
    /// Training animals 60 %, unseen animals and objects 20 % each; white 37.5 %, where JPEG sizes
    /// are smallest; plain captions 55 %, so that the model stays multi-modal on bare names.
    fn default() -> Self {
        Self {
            animals: 0.6,
            unseen_animals: 0.2,
            objects: 0.2,
            sets: [1.0, 1.0, 1.0, 1.0, 1.0, 0.4, 0.4],
            plain_white: 0.375,
            plain_caption: 0.55,
        }
    }
}

impl Mixture {
    fn check(&self) -> Result<()> {
        let kinds = [
            ("animals", self.animals),
            ("unseen_animals", self.unseen_animals),
            ("objects", self.objects),
        ];
        let sets = self.sets.map(|weight| ("sets", weight));
        for (field, weight) in kinds.into_iter().chain(sets) {
            if !weight.is_finite() || weight < 0.0 {
                let reason = format!("{weight} is no weight: expected a number from 0");
                return Err(Error::Mixture { field, reason });
            }
        }
        if kinds.iter().all(|(_, weight)| *weight == 0.0) {
            let reason = "all kinds of entities weigh nothing".to_owned();
            return Err(Error::Mixture {
                field: "animals",
                reason,
            });
        }
        let shares = [
            ("plain_white", self.plain_white),
            ("plain_caption", self.plain_caption),
        ];
        for (field, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                let reason = format!("{share} is no share: expected 0 to 1");
                return Err(Error::Mixture { field, reason });
            }
        }
        Ok(())
    }
}

/// Draws scenes by lot from a pack.
#[derive(Debug)]
pub struct Composer<'a> {
    pack: &'a Pack,
    mixture: Mixture,
    /// Entities of each kind that at least one set of weight has.
    kinds: [(f64, Vec<usize>); 3],
}

impl<'a> Composer<'a> {
    /// A composer of scenes from `pack` in the shares of `mixture`.
    ///
    /// # Errors
    /// [`Error::Mixture`] if a weight or share is out of range, or nothing is left to draw.
    pub fn new(pack: &'a Pack, mixture: Mixture) -> Result<Self> {
        mixture.check()?;
        let drawable = |kind: EntityKind| -> Vec<usize> {
            let has_drawing = |entity: usize| {
                Set::ALL.iter().any(|&set| {
                    mixture.sets[set.index()] > 0.0 && !pack.drawings_of(entity, set).is_empty()
                })
            };
            let entities = pack.entities().iter().enumerate();
            let of_kind = entities.filter(|(_, entity)| entity.kind == kind);
            of_kind
                .map(|(entity, _)| entity)
                .filter(|&entity| has_drawing(entity))
                .collect()
        };
        let kinds = [
            (mixture.animals, drawable(EntityKind::Animal)),
            (mixture.unseen_animals, drawable(EntityKind::UnseenAnimal)),
            (mixture.objects, drawable(EntityKind::Object)),
        ];
        if kinds
            .iter()
            .any(|(weight, entities)| *weight > 0.0 && entities.is_empty())
        {
            let reason = "no set of weight has an entity of a kind of weight".to_owned();
            return Err(Error::Mixture {
                field: "sets",
                reason,
            });
        }
        Ok(Self {
            pack,
            mixture,
            kinds,
        })
    }

    /// The drawings that scenes are made of.
    pub fn pack(&self) -> &'a Pack {
        self.pack
    }

    /// The shares that scenes are drawn in.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// Draws a scene by lot.
    pub fn sample(&self, rng: &mut ChaCha8Rng) -> Scene {
        let (_, entities) = &self.kinds[weighted(rng, &self.kinds.each_ref().map(|kind| kind.0))];
        let entity = entities[rng.random_range(0..entities.len())];
        let figure = self.figure(entity, rng);
        let ground = self.ground(rng);
        Scene {
            kind: SceneKind::Single,
            figures: vec![figure],
            ground,
        }
    }

    /// One figure of `entity` somewhere in the middle of the scene.
    fn figure(&self, entity: usize, rng: &mut ChaCha8Rng) -> Figure {
        let drawing = self.drawing(entity, rng);
        let size = Size::ALL[rng.random_range(0..Size::ALL.len())];
        let side = size.share() * SCENE_SIDE as f32;
        // Nearer the middle than the borders allow: the model learns shapes, not places.
        let room = 0.35 * (SCENE_SIDE as f32 - side);
        let mut offset = || rng.random_range(-room..=room);
        let center = [0, 1].map(|_| SCENE_SIDE as f32 / 2.0 + offset());
        Figure {
            entity,
            set: self.pack.drawings()[drawing].set,
            drawing,
            size,
            center,
            side,
            angle: rng.random_range(-10.0f32..=10.0).to_radians(),
            flip: rng.random(),
        }
    }

    /// A drawing of `entity`: first the set, by weight, then one of its drawings.
    fn drawing(&self, entity: usize, rng: &mut ChaCha8Rng) -> usize {
        let weights = Set::ALL.map(|set| match self.pack.drawings_of(entity, set) {
            [] => 0.0,
            _ => self.mixture.sets[set.index()],
        });
        let drawings = self
            .pack
            .drawings_of(entity, Set::ALL[weighted(rng, &weights)]);
        drawings[rng.random_range(0..drawings.len())]
    }

    fn ground(&self, rng: &mut ChaCha8Rng) -> Ground {
        if rng.random_bool(self.mixture.plain_white) {
            return Ground::plain(Color::White);
        }
        let pattern = Pattern::ALL[rng.random_range(0..Pattern::ALL.len())];
        // Plain white has its own share.
        let first = usize::from(pattern == Pattern::Plain);
        let color = Color::GROUNDS[rng.random_range(first..Color::GROUNDS.len())];
        Ground::sample(pattern, color, rng)
    }
}

/// Draws an index with the given relative weights, at least one of which is positive.
fn weighted(rng: &mut ChaCha8Rng, weights: &[f64]) -> usize {
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    let mut last = 0;
    for (index, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            if left < weight {
                return index;
            }
            last = index;
            left -= weight;
        }
    }
    last
}
