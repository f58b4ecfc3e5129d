//! Layout of scenes with several figures.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Activity, Color, Composer, Figure, FigureRole, Ground, Location, Pattern};
use super::{FigureSize, SCENE_SIDE, Scene, SceneKind};
use crate::artwork::ArtworkSet;

const SIDE: f32 = SCENE_SIDE as f32;

/// Position of a prop: name, centre, side; in pixels of a scene that faces left.
type Stand = (&'static str, [f32; 2], f32);

impl Activity {
    /// Centre and side of the animal, and the props in front of it, in painting order.
    fn staging(self) -> ([f32; 2], f32, &'static [Stand]) {
        match self {
            Self::Dishes => (
                [40.0, 24.0],
                42.0,
                &[
                    ("bubbles", [15.0, 15.0], 24.0),
                    ("plate", [19.0, 45.0], 32.0),
                    ("sponge", [33.0, 53.0], 17.0),
                ],
            ),
            Self::Bike => ([33.0, 19.0], 36.0, &[("bicycle", [32.0, 41.0], 50.0)]),
            Self::Chess => (
                [41.0, 25.0],
                42.0,
                &[
                    ("chess pawn", [9.0, 46.0], 24.0),
                    ("chess pawn", [24.0, 50.0], 24.0),
                    ("chess pawn", [39.0, 53.0], 20.0),
                ],
            ),
        }
    }
}

impl Composer<'_> {
    /// An animal in an activity: its props stay at fixed positions around it; the whole is mirrored, shifted and scaled.
    pub(super) fn activity(&self, rng: &mut ChaCha8Rng) -> Scene {
        let activity = Activity::ALL[rng.random_range(0..Activity::ALL.len())];
        let entity = self.active_animal(rng);
        let drawing = self.drawing(entity, rng);
        let set = self.pack().drawings()[drawing].set;
        let (center, side, stands) = activity.staging();
        let mut figures = vec![placed(
            self.actor(drawing, FigureRole::Subject),
            center,
            side,
            rng,
        )];
        for (name, center, side) in stands {
            let prop = self.prop(name).expect("the constructor found the prop");
            let drawing = self.drawing_like(prop, set, rng);
            figures.push(placed(
                self.actor(drawing, FigureRole::Prop),
                *center,
                *side,
                rng,
            ));
        }
        whole(&mut figures, rng);
        Scene {
            kind: SceneKind::Activity(activity),
            figures,
            ground: self.ground(rng),
        }
    }

    /// Two to eight of one drawing, in random cells of a grid.
    pub(super) fn several(&self, rng: &mut ChaCha8Rng) -> Scene {
        let n = rng.random_range(2..=8);
        // With the smallest possible grid, the size of the figures alone would tell the count.
        let roomy = n <= 4 && rng.random_bool(0.4);
        let cells = if n > 4 || roomy { 3 } else { 2 };
        let figures = self.crowd(self.animal(rng), n, cells, [0.0, 0.0, SIDE, SIDE], rng);
        Scene {
            kind: SceneKind::Several,
            figures,
            ground: self.ground(rng),
        }
    }

    /// Two animals side by side.
    pub(super) fn pair(&self, rng: &mut ChaCha8Rng) -> Scene {
        let first = self.animal(rng);
        let second = loop {
            let other = self.animal(rng);
            if other != first {
                break other;
            }
        };
        let drawing = self.drawing(first, rng);
        let set = self.pack().drawings()[drawing].set;
        let other = self.drawing_like(second, set, rng);
        let figures = [(drawing, 17.0), (other, 47.0)].map(|(drawing, x)| {
            let y = 34.0 + rng.random_range(-6.0..=6.0);
            let side = rng.random_range(29.0..=35.0);
            placed(self.actor(drawing, FigureRole::Subject), [x, y], side, rng)
        });
        let mut figures = figures.to_vec();
        if rng.random() {
            figures.iter_mut().for_each(mirror);
        }
        Scene {
            kind: SceneKind::Pair,
            figures,
            ground: self.ground(rng),
        }
    }

    /// One to four of an animal on green, with trees behind.
    pub(super) fn park(&self, rng: &mut ChaCha8Rng) -> Scene {
        let n = rng.random_range(1..=4);
        let entity = self.animal(rng);
        let tree = self.prop("tree").expect("the constructor found the prop");
        let mut figures = Vec::new();
        for x in [10.0, 31.0, 54.0] {
            let drawing = self.drawing(tree, rng);
            let center = [x + rng.random_range(-4.0..=4.0), 15.0];
            let side = rng.random_range(22.0..=30.0);
            figures.push(placed(
                self.actor(drawing, FigureRole::Prop),
                center,
                side,
                rng,
            ));
        }
        let (cells, below) = match n {
            1 => (1, [12.0, 22.0, 40.0, 40.0]),
            _ => (2, [4.0, 18.0, 56.0, 46.0]),
        };
        figures.extend(self.crowd(entity, n, cells, below, rng));
        let pattern = [Pattern::Plain, Pattern::Gradient, Pattern::Noisy][rng.random_range(0..3)];
        Scene {
            kind: SceneKind::Location(Location::Park),
            figures,
            ground: Ground::sample(pattern, Color::Green, rng),
        }
    }

    /// An animal on the full moon, in the dark.
    pub(super) fn moon(&self, rng: &mut ChaCha8Rng) -> Scene {
        let moon = self
            .prop("full moon")
            .expect("the constructor found the prop");
        let moon = self.drawing(moon, rng);
        let drawing = self.drawing(self.animal(rng), rng);
        let x = 32.0 + rng.random_range(-5.0..=5.0);
        let figures = vec![
            placed(self.actor(moon, FigureRole::Prop), [32.0, 52.0], 58.0, rng),
            placed(
                self.actor(drawing, FigureRole::Subject),
                [x, 22.0],
                34.0,
                rng,
            ),
        ];
        let color = if rng.random_bool(0.7) {
            Color::Black
        } else {
            Color::Blue
        };
        let pattern = [Pattern::Plain, Pattern::Gradient, Pattern::Dotted][rng.random_range(0..3)];
        Scene {
            kind: SceneKind::Location(Location::Moon),
            figures,
            ground: Ground::sample(pattern, color, rng),
        }
    }

    /// `n` of one drawing of `entity` on a grid of `cells` by `cells` in `[left, top, width, height]`.
    fn crowd(
        &self,
        entity: usize,
        n: usize,
        cells: usize,
        [left, top, width, height]: [f32; 4],
        rng: &mut ChaCha8Rng,
    ) -> Vec<Figure> {
        let drawing = self.drawing(entity, rng);
        let mut free: Vec<usize> = (0..cells * cells).collect();
        free.shuffle(rng);
        free.truncate(n);
        free.sort_unstable(); // lower figures are painted in front of upper ones
        let [across, down] = [width, height].map(|length| length / cells as f32);
        let side = across.min(down) * rng.random_range(0.82..=1.0);
        let place = |cell: usize| {
            let (column, row) = (cell % cells, cell / cells);
            let jitter = 0.08 * side;
            let mut at = |from: f32, step: f32, i: usize| {
                from + step * (i as f32 + 0.5) + rng.random_range(-jitter..=jitter)
            };
            let center = [at(left, across, column), at(top, down, row)];
            Figure {
                flip: rng.random(),
                ..placed(self.actor(drawing, FigureRole::Subject), center, side, rng)
            }
        };
        free.into_iter().map(place).collect()
    }

    /// A figure of `drawing` without a position yet.
    fn actor(&self, drawing: usize, role: FigureRole) -> Figure {
        let entry = &self.pack().drawings()[drawing];
        let set: ArtworkSet = entry.set;
        Figure {
            entity: entry.entity,
            set,
            drawing,
            size: FigureSize::Small,
            center: [SIDE / 2.0; 2],
            side: SIDE,
            angle: 0.0,
            flip: false,
            role,
            tint: None,
        }
    }
}

/// The figure near this position, of about this side, slightly rotated.
fn placed(figure: Figure, center: [f32; 2], side: f32, rng: &mut ChaCha8Rng) -> Figure {
    let center = center.map(|at| at + rng.random_range(-1.5f32..=1.5));
    Figure {
        center,
        side: side * rng.random_range(0.94f32..=1.06),
        angle: rng.random_range(-8.0f32..=8.0).to_radians(),
        ..figure
    }
}

/// Mirrors, scales and shifts all figures together.
fn whole(figures: &mut [Figure], rng: &mut ChaCha8Rng) {
    let flip: bool = rng.random();
    let zoom = rng.random_range(0.85f32..=1.0);
    let shift = [0, 1].map(|_| rng.random_range(-3.0f32..=3.0));
    for figure in figures {
        if flip {
            mirror(figure);
        }
        figure.side *= zoom;
        for (at, by) in figure.center.iter_mut().zip(shift) {
            *at = SIDE / 2.0 + (*at - SIDE / 2.0) * zoom + by;
        }
    }
}

/// Mirrors left and right.
fn mirror(figure: &mut Figure) {
    figure.center[0] = SIDE - figure.center[0];
    figure.flip = !figure.flip;
    figure.angle = -figure.angle;
}
