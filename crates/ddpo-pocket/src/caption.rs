//! Captions of scenes, lower case, in the form of the paper's prompts first.

pub use ddpo_reward::prompts::plural;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::artwork::Pack;
use crate::scene::{
    Activity, Color, Composer, Ground, Location, SCENE_BYTES, Scene, SceneKind, keyed,
};

/// The noun with its indefinite article: "an ant", "a cat", "scissors".
pub fn with_article(noun: &str) -> String {
    match noun {
        "scissors" | "sunglasses" | "bubbles" => noun.to_owned(),
        _ => format!("{} {noun}", article(noun)),
    }
}

/// "a" or "an", by the first letter; right for every word of the pocket world.
pub fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

/// The ground in words: "a blue striped background".
pub fn ground_phrase(ground: &Ground) -> String {
    let color = ground.color.word();
    match ground.pattern.word() {
        Some(pattern) => format!("{} {color} {pattern} background", article(color)),
        None => format!("{} {color} background", article(color)),
    }
}

/// The numbers that scenes can hold, one first.
pub const NUMBERS: [&str; 8] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight",
];

impl Scene {
    /// A caption for the scene, lower case, without a full stop; never empty.
    ///
    /// `plain_share` of the captions name the entity and nothing else (`Mixture::plain_caption`).
    pub fn caption(&self, pack: &Pack, plain_share: f64, rng: &mut ChaCha8Rng) -> String {
        of(self, pack, plain_share, rng)
    }
}

impl Composer<'_> {
    /// The caption of scene `index` of the stream of `seed`.
    pub fn caption(&self, scene: &Scene, seed: u64, index: u64) -> String {
        let rng = &mut keyed(seed, 2 * index + 1);
        scene.caption(self.pack(), self.mixture().plain_caption, rng)
    }

    /// Scene `index` of the stream of `seed`, drawn into `pixels`, with its caption.
    ///
    /// # Shapes
    /// - `pixels`: `[64, 64, 3]`, RGB, row by row
    pub fn compose(
        &self,
        seed: u64,
        index: u64,
        pixels: &mut [u8; SCENE_BYTES],
    ) -> (Scene, String) {
        let scene = self.scene(seed, index);
        scene.render_into(self.pack(), pixels);
        let caption = self.caption(&scene, seed, index);
        (scene, caption)
    }
}

fn of(scene: &Scene, pack: &Pack, plain_share: f64, rng: &mut ChaCha8Rng) -> String {
    let noun = pack.entities()[scene.entity()].name.as_str();
    let text = match scene.kind {
        SceneKind::Single => return of_single(scene, noun, plain_share, rng),
        SceneKind::Activity(activity) => doing(noun, activity, rng),
        SceneKind::Several => many(noun, scene.count()),
        SceneKind::Tinted(color) => colored(noun, color, rng),
        SceneKind::Pair => {
            let other = &pack.entities()[scene.other_entity()].name;
            let [first, second] = [noun, other].map(with_article);
            // The order of the names does not depend on the order of the figures.
            match rng.random() {
                true => format!("{first} and {second}"),
                false => format!("{second} and {first}"),
            }
        }
        SceneKind::Location(place) => return somewhere(noun, scene.count(), place),
    };
    // Only a tenth of these captions name the ground: the paper's prompts never do.
    match rng.random_bool(0.1) {
        true => format!("{text} on {}", ground_phrase(&scene.ground)),
        false => text,
    }
}

/// "a cat riding a bike".
fn doing(noun: &str, activity: Activity, rng: &mut ChaCha8Rng) -> String {
    let phrases = activity.phrases();
    let phrase = phrases[rng.random_range(0..phrases.len())];
    format!("{} {phrase}", with_article(noun))
}

/// "six monkeys", "a monkey".
fn many(noun: &str, count: usize) -> String {
    match count {
        1 => with_article(noun),
        _ => format!("{} {}", NUMBERS[count - 1], plural(noun)),
    }
}

/// "a green colored rabbit", "a green rabbit".
fn colored(noun: &str, color: Color, rng: &mut ChaCha8Rng) -> String {
    let color = color.word();
    let colored = if rng.random_bool(0.7) { "colored " } else { "" };
    match with_article(noun) == noun {
        true => format!("{color} {colored}{noun}"),
        false => format!("{} {color} {colored}{noun}", article(color)),
    }
}

/// "four wolves in the park".
fn somewhere(noun: &str, count: usize, place: Location) -> String {
    format!("{} {}", many(noun, count), place.phrase())
}

fn of_single(scene: &Scene, noun: &str, plain_share: f64, rng: &mut ChaCha8Rng) -> String {
    if rng.random_bool(plain_share) {
        return if rng.random() {
            noun.to_owned()
        } else {
            with_article(noun)
        };
    }
    let figure = scene.subject();
    let mut style = figure.set.style_word().filter(|_| rng.random_bool(0.6));
    let mut size = figure.size.word().filter(|_| rng.random_bool(0.35));
    let mut ground = rng.random_bool(0.6);
    if style.is_none() && size.is_none() && !ground {
        style = figure.set.style_word();
        size = figure.size.word();
        ground = style.is_none() && size.is_none();
    }
    let mut text = match size {
        Some(size) if with_article(noun) == noun => format!("{size} {noun}"),
        Some(size) => format!("{} {size} {noun}", article(size)),
        None => with_article(noun),
    };
    if let Some(style) = style {
        text = format!("{} {style} picture of {text}", article(style));
    }
    if ground {
        text = format!("{text} on {}", ground_phrase(&scene.ground));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_and_plurals_are_right() {
        for (noun, article, many) in [
            ("ant", "an ant", "ants"),
            ("cat", "a cat", "cats"),
            ("hedgehog", "a hedgehog", "hedgehogs"),
            ("wolf", "a wolf", "wolves"),
            ("fly", "a fly", "flies"),
            ("monkey", "a monkey", "monkeys"),
            ("sheep", "a sheep", "sheep"),
            ("goose", "a goose", "geese"),
            ("fox", "a fox", "foxes"),
        ] {
            assert_eq!(
                (with_article(noun), plural(noun)),
                (article.to_owned(), many.to_owned())
            );
        }
        assert_eq!(with_article("scissors"), "scissors");
    }
}
