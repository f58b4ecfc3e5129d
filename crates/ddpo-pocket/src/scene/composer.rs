//! Sampling of what a scene shows.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Activity, Location};
use super::{
    Color, Figure, FigureRole, FigureSize, Ground, Mixture, Pattern, SCENE_SIDE, Scene, SceneKind,
};
use crate::artwork::{ArtworkSet, EntityKind, Pack};
use crate::error::{Error, Result};
use crate::prompts::active_animals;

/// Samples scenes from a pack.
#[derive(Debug)]
pub struct Composer<'a> {
    pack: &'a Pack,
    mixture: Mixture,
    /// Entities of each kind that have a drawing in at least one set with a positive weight.
    kinds: [(f64, Vec<usize>); 3],
    /// Animals that may appear in activities, in weighted groups.
    active: Vec<(f64, Vec<usize>)>,
}

impl<'a> Composer<'a> {
    /// A composer of scenes from `pack`, in the proportions of `mixture`.
    ///
    /// # Errors
    /// [`Error::Mixture`] if a weight or share is out of range, or nothing is left to draw.
    pub fn new(pack: &'a Pack, mixture: Mixture) -> Result<Self> {
        mixture.check()?;
        let drawable = |kind: EntityKind| -> Vec<usize> {
            let entities = pack.entities().iter().enumerate();
            let of_kind = entities.filter(|(_, entity)| entity.kind == kind);
            of_kind
                .map(|(entity, _)| entity)
                .filter(|&entity| has_drawing(pack, &mixture, entity))
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
            let reason =
                "no set with a positive weight has an entity of a kind with a positive weight"
                    .to_owned();
            return Err(Error::Mixture {
                field: "sets",
                reason,
            });
        }
        let composer = Self {
            active: active(pack, &mixture, &kinds),
            pack,
            mixture,
            kinds,
        };
        composer.check()?;
        Ok(composer)
    }

    /// Refuses shares of scenes for which there is no drawing.
    fn check(&self) -> Result<()> {
        let refuse = |field, reason: String| Err(Error::Mixture { field, reason });
        let Mixture {
            activities,
            counting,
            attributes,
            ..
        } = self.mixture;
        if activities > 0.0
            && !self
                .active
                .iter()
                .any(|(weight, all)| *weight > 0.0 && !all.is_empty())
        {
            return refuse(
                "activities",
                "no animal with a positive weight may appear in activities".into(),
            );
        }
        if counting + attributes > 0.0 && self.kinds[0].1.len() < 2 {
            let field = if counting > 0.0 {
                "counting"
            } else {
                "attributes"
            };
            return refuse(
                field,
                "fewer than two training animals have a drawing in a set with a positive weight"
                    .into(),
            );
        }
        let props = |share: f64, names: &[&'static str]| {
            let lacking = names
                .iter()
                .find(|name| share > 0.0 && self.prop(name).is_none());
            lacking.map(|name| {
                format!("no set with a positive weight has a drawing of the prop `{name}`")
            })
        };
        let of_activities = Activity::ALL.map(|it| props(activities, it.props()));
        let of_places = Location::ALL.map(|it| props(attributes, it.props()));
        match of_activities.into_iter().chain(of_places).flatten().next() {
            Some(reason) => refuse("sets", reason),
            None => Ok(()),
        }
    }

    /// The drawings that scenes are made of.
    pub fn pack(&self) -> &'a Pack {
        self.pack
    }

    /// The proportions in which scenes are sampled.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// Samples a scene.
    ///
    /// A mixture of single entities only draws no random number for the kind, so that its streams are the same as
    /// before there were other kinds.
    pub fn sample(&self, rng: &mut ChaCha8Rng) -> Scene {
        let Mixture {
            activities,
            counting,
            attributes,
            ..
        } = self.mixture;
        if activities + counting + attributes > 0.0 {
            let shares = [
                self.mixture.single().max(0.0),
                activities,
                counting,
                attributes,
            ];
            match weighted(rng, &shares) {
                1 => return self.activity(rng),
                2 => return self.several(rng),
                3 => return self.attribute(rng),
                _ => {}
            }
        }
        self.single(rng)
    }

    fn single(&self, rng: &mut ChaCha8Rng) -> Scene {
        let entity = pick(rng, &self.kinds);
        let figure = self.figure(entity, rng);
        let ground = self.ground(rng);
        Scene {
            kind: SceneKind::Single,
            figures: vec![figure],
            ground,
        }
    }

    /// Scenes like DPOK's four prompts, a quarter each.
    fn attribute(&self, rng: &mut ChaCha8Rng) -> Scene {
        match rng.random_range(0..4) {
            0 => {
                let color = Color::TINTS[rng.random_range(0..Color::TINTS.len())];
                let mut scene = self.single(rng);
                scene.kind = SceneKind::Tinted(color);
                scene.figures[0].tint = Some(color);
                while scene.ground.color == color {
                    scene.ground = self.ground(rng); // nobody sees a green rabbit on green
                }
                scene
            }
            1 => self.pair(rng),
            2 => self.park(rng),
            _ => self.moon(rng),
        }
    }

    /// A training animal.
    pub(super) fn animal(&self, rng: &mut ChaCha8Rng) -> usize {
        let animals = &self.kinds[0].1;
        animals[rng.random_range(0..animals.len())]
    }

    /// An animal that may appear in activities.
    pub(super) fn active_animal(&self, rng: &mut ChaCha8Rng) -> usize {
        pick(rng, &self.active)
    }

    /// The prop of that name, if a set with a positive weight has it.
    pub(super) fn prop(&self, name: &str) -> Option<usize> {
        let entities = self.pack.entities().iter();
        let is = |(_, it): &(usize, &crate::artwork::Entity)| {
            it.kind == EntityKind::Prop && it.name == name
        };
        let entity = entities.enumerate().find(is)?.0;
        has_drawing(self.pack, &self.mixture, entity).then_some(entity)
    }

    /// One figure of `entity` somewhere in the middle of the scene.
    fn figure(&self, entity: usize, rng: &mut ChaCha8Rng) -> Figure {
        let drawing = self.drawing(entity, rng);
        let size = FigureSize::ALL[rng.random_range(0..FigureSize::ALL.len())];
        let side = size.share() * SCENE_SIDE as f32;
        // Nearer the middle than the borders require: the model learns shapes, not positions.
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
            role: FigureRole::Subject,
            tint: None,
        }
    }

    /// A drawing of `entity`: first the set, by weight, then one of its drawings.
    pub(super) fn drawing(&self, entity: usize, rng: &mut ChaCha8Rng) -> usize {
        let weights = ArtworkSet::ALL.map(|set| match self.pack.drawings_of(entity, set) {
            [] => 0.0,
            _ => self.mixture.sets[set.index()],
        });
        let drawings = self
            .pack
            .drawings_of(entity, ArtworkSet::ALL[weighted(rng, &weights)]);
        drawings[rng.random_range(0..drawings.len())]
    }

    /// A drawing of `entity` from `set` if that has one, else from any set with a positive weight.
    pub(super) fn drawing_like(
        &self,
        entity: usize,
        set: ArtworkSet,
        rng: &mut ChaCha8Rng,
    ) -> usize {
        match self.pack.drawings_of(entity, set) {
            [] => self.drawing(entity, rng),
            drawings => drawings[rng.random_range(0..drawings.len())],
        }
    }

    pub(super) fn ground(&self, rng: &mut ChaCha8Rng) -> Ground {
        if rng.random_bool(self.mixture.plain_white) {
            return Ground::plain(Color::White);
        }
        let pattern = Pattern::ALL[rng.random_range(0..Pattern::ALL.len())];
        // Plain white has a share of its own.
        let first = usize::from(pattern == Pattern::Plain);
        let color = Color::GROUNDS[rng.random_range(first..Color::GROUNDS.len())];
        Ground::sample(pattern, color, rng)
    }
}

/// Whether a set with a positive weight has a drawing of `entity`.
fn has_drawing(pack: &Pack, mixture: &Mixture, entity: usize) -> bool {
    let mut sets = ArtworkSet::ALL.iter();
    sets.any(|&set| mixture.sets[set.index()] > 0.0 && !pack.drawings_of(entity, set).is_empty())
}

/// The animals that may appear in activities.
fn active(
    pack: &Pack,
    mixture: &Mixture,
    kinds: &[(f64, Vec<usize>); 3],
) -> Vec<(f64, Vec<usize>)> {
    if mixture.all_animals_active {
        return kinds[..2].to_vec();
    }
    let names = active_animals();
    let listed = |entity: &usize| names.contains(&pack.entities()[*entity].name);
    vec![(1.0, kinds[0].1.iter().copied().filter(listed).collect())]
}

/// An entity: first the group, by weight, then any entity of it.
fn pick(rng: &mut ChaCha8Rng, groups: &[(f64, Vec<usize>)]) -> usize {
    let weights: Vec<f64> = groups.iter().map(|group| group.0).collect();
    let entities = &groups[weighted(rng, &weights)].1;
    entities[rng.random_range(0..entities.len())]
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
