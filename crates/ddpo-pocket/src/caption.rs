//! Captions of scenes, lower case, in the form of the paper's prompts first.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::artwork::Pack;
use crate::scene::{Ground, Scene};

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

/// The plural of an animal's name: "wolves", "sheep".
pub fn plural(noun: &str) -> String {
    match noun {
        "sheep" | "deer" | "fish" | "squid" | "moose" => noun.to_owned(),
        "mouse" => "mice".to_owned(),
        "goose" => "geese".to_owned(),
        "wolf" => "wolves".to_owned(),
        "butterfly" | "fly" => format!("{}ies", &noun[..noun.len() - 1]),
        "fox" | "ostrich" | "octopus" => format!("{noun}es"),
        _ => format!("{noun}s"),
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

pub(crate) fn of(scene: &Scene, pack: &Pack, plain_share: f64, rng: &mut ChaCha8Rng) -> String {
    let noun = pack.entities()[scene.entity()].name.as_str();
    if rng.random_bool(plain_share) {
        return if rng.random() {
            noun.to_owned()
        } else {
            with_article(noun)
        };
    }
    let figure = &scene.figures[0];
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
