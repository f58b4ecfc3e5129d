//! Parses prompts of the pocket world into the labels of scenes: the inverse of captioning.
//!
//! The grammar is that of [`caption`](crate::caption), and of the paper's prompts as far as there is artwork:
//!
//! ```text
//! prompt  = [article style "picture" "of"] (pair | one) [ground]
//! pair    = article noun "and" article noun
//! one     = (article | number) [size] [color ["colored"]] noun [activity | place]   | noun
//! ground  = "on" article color [pattern] "background"
//! ```
//!
//! A noun without an article in English ("scissors"), or a bare noun, has none.

use ddpo_reward::prompts::{COMMON_ANIMALS, EVERYDAY_OBJECTS, UNSEEN_ANIMALS};

use crate::artwork::{ArtworkSet, EntityKind, Pack, listed_entities};
use crate::caption::{NUMBERS, plural};
use crate::scene::{Activity, Color, FigureSize, Location, Pattern};
use crate::{Error, Result};

/// What a prompt asks for; `None` for everything that it does not mention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedPrompt {
    /// One entity or two of them: indices into [`Pack::entities`].
    pub entities: Vec<usize>,
    /// What it is doing.
    pub activity: Option<Activity>,
    /// How many there are, 1 to 8: given by a number, or 2 for a pair.
    pub count: Option<usize>,
    /// Its colour, if that is not its natural one.
    pub tint: Option<Color>,
    /// Where it is.
    pub location: Option<Location>,
    /// How large it is drawn.
    pub size: Option<FigureSize>,
    /// The set of drawings that its style word means.
    pub style: Option<ArtworkSet>,
    /// Colour and pattern of the ground; plain where a colour stands alone.
    pub ground: Option<(Color, Pattern)>,
}

/// Names and their plurals, ready to be found at the start of a text.
#[derive(Debug, Clone)]
pub struct Grammar {
    /// Singular, plural, entity; longest first, so that "coffee cup" is found before any "coffee".
    nouns: Vec<(String, String, usize)>,
}

impl Grammar {
    /// The names of everything in `pack` that scenes can be about.
    pub fn new(pack: &Pack) -> Self {
        Self::of(pack.entities().iter().map(|it| (it.name.as_str(), it.kind)))
    }

    /// The names of everything in the embedded artwork; decodes no drawings.
    ///
    /// # Errors
    /// If the embedded entity list is damaged.
    pub fn embedded() -> Result<Self> {
        let listed = listed_entities()?;
        Ok(Self::of(
            listed.iter().map(|it| (it.name.as_str(), it.kind)),
        ))
    }

    fn of<'a>(entities: impl Iterator<Item = (&'a str, EntityKind)>) -> Self {
        let mut nouns: Vec<_> = entities
            .enumerate()
            .filter(|(_, (_, kind))| *kind != EntityKind::Prop)
            .map(|(i, (name, _))| (name.to_owned(), plural(name), i))
            .collect();
        nouns.sort_by_key(|(name, _, _)| std::cmp::Reverse(name.len()));
        Self { nouns }
    }

    /// Parses a prompt, ignoring case as the tokenizer does.
    ///
    /// # Errors
    /// [`Error::Prompt`] if it mentions anything that has no label in this world.
    pub fn read(&self, prompt: &str) -> Result<ParsedPrompt> {
        let lower = prompt.to_lowercase();
        let mut words = Words {
            whole: prompt,
            left: lower.split_whitespace().collect(),
        };
        let mut parsed = ParsedPrompt {
            entities: Vec::new(),
            activity: None,
            count: None,
            tint: None,
            location: None,
            size: None,
            style: None,
            ground: None,
        };
        parsed.style = words.style();
        self.subject(&mut words, &mut parsed)?;
        parsed.ground = words.ground()?;
        match words.left.is_empty() {
            true => Ok(parsed),
            false => Err(words.unexpected("the end, an activity, a place or a ground")),
        }
    }

    fn subject(&self, words: &mut Words<'_>, parsed: &mut ParsedPrompt) -> Result<()> {
        let number = words.number();
        let article = number.is_none() && words.article();
        parsed.size = words.one_of(&FigureSize::ALL, |size| size.word());
        // "a pink colored pig", and an animal may be called by a colour alone.
        parsed.tint = words.one_of(&Color::TINTS, |color| Some(color.word()));
        if parsed.tint.is_some() {
            words.take("colored");
        }
        let many = number.is_some_and(|n| n > 1);
        let first = self.noun(words, many)?;
        parsed.entities.push(first);
        parsed.count = number;
        let bare = parsed.size.is_none() && parsed.tint.is_none() && number.is_none();
        if bare && article && words.take("and") {
            words.article();
            parsed.entities.push(self.noun(words, false)?);
            parsed.count = Some(2);
            return Ok(());
        }
        parsed.activity = Activity::ALL
            .into_iter()
            .find(|it| it.phrases().iter().any(|phrase| words.take(phrase)));
        if parsed.activity.is_none() {
            parsed.location = Location::ALL.into_iter().find(|it| words.take(it.phrase()));
        }
        Ok(())
    }

    fn noun(&self, words: &mut Words<'_>, many: bool) -> Result<usize> {
        let name =
            |(one, more, _): &&(String, String, usize)| words.take(if many { more } else { one });
        match self.nouns.iter().find(name) {
            Some((_, _, entity)) => Ok(*entity),
            None => Err(self.unknown(words, many)),
        }
    }

    fn unknown(&self, words: &Words<'_>, many: bool) -> Error {
        let listed = COMMON_ANIMALS
            .iter()
            .chain(&UNSEEN_ANIMALS)
            .chain(&EVERYDAY_OBJECTS);
        let undrawn = listed
            .map(|name| name.to_lowercase())
            .filter(|name| !self.nouns.iter().any(|(drawn, _, _)| drawn == name))
            .find(|name| words.starts_with(name));
        match undrawn {
            Some(name) => words.error(format!("there is no drawing of `{name}` to judge by")),
            None if many => words.unexpected("the plural of something that is drawn"),
            None => words.unexpected("a number, or the name of something that is drawn"),
        }
    }
}

/// The part of a prompt that is not parsed yet.
struct Words<'a> {
    whole: &'a str,
    left: Vec<&'a str>,
}

impl Words<'_> {
    fn starts_with(&self, phrase: &str) -> bool {
        let mut left = self.left.iter();
        phrase.split(' ').all(|word| left.next() == Some(&word))
    }

    /// Removes these words from the front, if they are there.
    fn take(&mut self, phrase: &str) -> bool {
        let there = self.starts_with(phrase);
        if there {
            self.left.drain(..phrase.split(' ').count());
        }
        there
    }

    fn article(&mut self) -> bool {
        self.take("a") || self.take("an")
    }

    fn number(&mut self) -> Option<usize> {
        let at = NUMBERS.iter().position(|number| self.take(number))?;
        Some(at + 1)
    }

    fn one_of<T: Copy>(&mut self, all: &[T], word: fn(&T) -> Option<&'static str>) -> Option<T> {
        let found = all
            .iter()
            .find(|it| word(it).is_some_and(|word| self.take(word)));
        found.copied()
    }

    /// "a flat picture of".
    fn style(&mut self) -> Option<ArtworkSet> {
        let article = *self
            .left
            .first()
            .filter(|word| matches!(**word, "a" | "an"))?;
        ArtworkSet::ALL.into_iter().find(|set| {
            let word = set.style_word();
            word.is_some_and(|word| self.take(&format!("{article} {word} picture of")))
        })
    }

    /// "on a blue striped background".
    fn ground(&mut self) -> Result<Option<(Color, Pattern)>> {
        if !self.take("on") {
            return Ok(None);
        }
        self.article();
        let Some(color) = self.one_of(&Color::GROUNDS, |color| Some(color.word())) else {
            return Err(self.unexpected("the colour of a ground"));
        };
        let pattern = self.one_of(&Pattern::ALL, |pattern| pattern.word());
        match self.take("background") {
            true => Ok(Some((color, pattern.unwrap_or(Pattern::Plain)))),
            false => Err(self.unexpected("\"background\"")),
        }
    }

    fn unexpected(&self, expected: &str) -> Error {
        match self.left.as_slice() {
            [] => self.error(format!("expected {expected}, but it ends there")),
            left => self.error(format!("expected {expected} at `{}`", left.join(" "))),
        }
    }

    fn error(&self, reason: String) -> Error {
        Error::Prompt {
            prompt: self.whole.to_owned(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretrain::judges::labels;
    use crate::scene::{Composer, Mixture, SceneKind};

    #[test]
    fn every_caption_is_parsed_as_its_scene() -> Result<()> {
        let pack = Pack::embedded()?;
        let grammar = Grammar::new(&pack);
        let mixture = Mixture {
            activities: 0.2,
            counting: 0.2,
            attributes: 0.3,
            all_animals_active: true,
            plain_caption: 0.3,
            ..Mixture::default()
        };
        let composer = Composer::new(&pack, mixture)?;
        for index in 0..10_000 {
            let scene = composer.scene(8, index);
            let caption = composer.caption(&scene, 8, index);
            let parsed = grammar.read(&caption)?;
            let mut expected = vec![scene.entity()];
            if scene.kind == SceneKind::Pair {
                expected.push(scene.other_entity());
                expected.sort_unstable();
            }
            let mut named = parsed.entities.clone();
            named.sort_unstable();
            assert_eq!(named, expected, "{caption}");
            assert_eq!(parsed.activity, scene.kind.activity(), "{caption}");
            assert_eq!(parsed.tint, scene.kind.tint(), "{caption}");
            assert_eq!(parsed.location, scene.kind.location(), "{caption}");
            match parsed.count {
                Some(n) => assert_eq!(n, labels::count(&scene) + 1, "{caption}"),
                None => assert_eq!(scene.count(), 1, "{caption}"),
            }
            if let Some((color, pattern)) = parsed.ground {
                assert_eq!((color, pattern), (scene.ground.color, scene.ground.pattern));
            }
            if let Some(style) = parsed.style {
                assert_eq!(style, scene.set(), "{caption}");
            }
            if let Some(size) = parsed.size {
                assert_eq!(size, scene.subject().size, "{caption}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_prompt_outside_the_grammar_is_an_error_that_names_it() -> Result<()> {
        let grammar = Grammar::new(&Pack::embedded()?);
        for (prompt, reason) in [
            ("", "but it ends there"),
            ("a", "but it ends there"),
            ("a xylophone", "at `xylophone`"),
            ("an ostrich", "no drawing of `ostrich`"),
            ("a cat typing on a keyboard", "at `typing on a keyboard`"),
            ("two cat", "at `cat`"),
            ("a cat on a blue", "\"background\", but it ends there"),
            ("a cat and a", "but it ends there"),
        ] {
            let error = grammar.read(prompt).expect_err(prompt).to_string();
            assert!(error.contains(reason) && error.contains(prompt), "{error}");
        }
        assert_eq!(grammar.read("Coffee cup")?, grammar.read("coffee cup")?);
        Ok(())
    }
}
