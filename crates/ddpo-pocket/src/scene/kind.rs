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
    /// One entity in an unusual colour.
    Tinted(Color),
    /// Two animals side by side, of different kinds.
    Pair,
    /// One or several animals in a location.
    Location(Location),
}

impl SceneKind {
    /// What the subject is doing.
    pub fn activity(self) -> Option<Activity> {
        match self {
            Self::Activity(activity) => Some(activity),
            _ => None,
        }
    }

    /// The subject's colour, if it is an unusual one.
    pub fn tint(self) -> Option<Color> {
        match self {
            Self::Tinted(color) => Some(color),
            _ => None,
        }
    }

    /// Where the subject is.
    pub fn location(self) -> Option<Location> {
        match self {
            Self::Location(location) => Some(location),
            _ => None,
        }
    }
}

/// What an animal can be doing: the paper's three activities (appendix D.6).
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

    /// Its wording: first that of the paper's code, last that of its text.
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

/// Where animals can be other than on a plain ground: from DPOK's prompts (the paper's appendix C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Location {
    /// On green, with trees behind.
    Park,
    /// On the full moon, in the dark.
    Moon,
}

impl Location {
    /// Every location.
    pub const ALL: [Self; 2] = [Self::Park, Self::Moon];

    /// Position in [`Location::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its wording.
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
    /// The colours that a subject can be tinted with: the ground colours that are a hue.
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
