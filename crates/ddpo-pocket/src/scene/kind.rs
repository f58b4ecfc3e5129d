//! What scenes can show.

use super::Color;

/// What a scene shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SceneKind {
    /// One entity on a ground.
    Single,
    /// One animal doing something with its prop.
    Activity(Activity),
    /// Two to eight of one animal.
    Several,
    /// One entity in a colour that is not its own.
    Tinted(Color),
    /// Two animals side by side, of different kinds.
    Pair,
    /// One animal or some, somewhere.
    Place(Place),
}

impl SceneKind {
    /// What the subject is doing.
    pub fn activity(self) -> Option<Activity> {
        match self {
            Self::Activity(activity) => Some(activity),
            _ => None,
        }
    }

    /// The colour that the subject has instead of its own.
    pub fn tint(self) -> Option<Color> {
        match self {
            Self::Tinted(color) => Some(color),
            _ => None,
        }
    }

    /// Where the subject is.
    pub fn place(self) -> Option<Place> {
        match self {
            Self::Place(place) => Some(place),
            _ => None,
        }
    }
}

/// What an animal can be seen doing: the paper's three activities (appendix D.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// With a plate, a sponge and bubbles.
    Dishes,
    /// On a bicycle.
    Bike,
    /// Before chess pawns.
    Chess,
}

impl Activity {
    /// Every activity, in the order of [`ddpo_reward::prompts::ACTIVITIES`].
    pub const ALL: [Self; 3] = [Self::Dishes, Self::Bike, Self::Chess];

    /// Position in [`Activity::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its words, as the paper's code has them first, as its text has them last.
    pub fn phrases(self) -> &'static [&'static str] {
        match self {
            Self::Dishes => &["washing the dishes", "washing dishes"],
            Self::Bike => &["riding a bike"],
            Self::Chess => &["playing chess"],
        }
    }

    /// Names of the props that show it.
    pub fn props(self) -> &'static [&'static str] {
        match self {
            Self::Dishes => &["plate", "sponge", "bubbles"],
            Self::Bike => &["bicycle"],
            Self::Chess => &["chess pawn"],
        }
    }
}

/// Where animals can be, beside on a ground: in DPOK's prompts (the paper's appendix C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// On green, before trees.
    Park,
    /// On the full moon, in the dark.
    Moon,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 2] = [Self::Park, Self::Moon];

    /// Position in [`Place::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its words.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Park => "in the park",
            Self::Moon => "on the moon",
        }
    }

    /// Names of the props that show it.
    pub fn props(self) -> &'static [&'static str] {
        match self {
            Self::Park => &["tree"],
            Self::Moon => &["full moon"],
        }
    }
}

impl Color {
    /// The colours that a subject can have instead of its own: those of the grounds that are a hue.
    pub const TINTS: [Self; 7] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::Pink,
    ];
}
