//! The two questions about "six monkeys".

use super::Question;
use crate::{Prompt, Result, RewardError};

/// Numbers of the prompts (jannerm/ddpo `training/prompts.py`, `counting`: two to eight).
const NUMBERS: [&str; 7] = ["two", "three", "four", "five", "six", "seven", "eight"];

/// Irregular plurals of the 22 animals of the counting task and the paper's other sets.
const IRREGULAR: [(&str, &str); 11] = [
    ("sheep", "sheep"),
    ("deer", "deer"),
    ("fish", "fish"),
    ("wolves", "wolf"),
    ("mice", "mouse"),
    ("geese", "goose"),
    ("oxen", "ox"),
    ("squid", "squid"),
    ("foxes", "fox"),
    ("ostriches", "ostrich"),
    ("walruses", "walrus"),
];

/// "How many monkeys are there in this image?" (expects "six") and "What animal is in this image?" (expects
/// "monkey"), for a prompt of a number word from two to eight and a plural.
///
/// # Errors
/// [`RewardError::BadInput`] for any other prompt.
pub fn counting_questions(prompt: &Prompt) -> Result<Vec<Question>> {
    let text = prompt.text.trim();
    let parts = text
        .split_once(' ')
        .filter(|(number, _)| NUMBERS.contains(number));
    let found = parts.and_then(|(number, plural)| Some((number, plural, singular(plural)?)));
    let Some((number, plural, singular)) = found else {
        let expected = "a number from two to eight and a plural, such as \"six monkeys\"";
        return Err(RewardError::bad_input(
            "prompt",
            expected,
            format!("\"{text}\""),
        ));
    };
    Ok(vec![
        Question {
            ask: format!("How many {plural} are there in this image?"),
            expect: number.to_owned(),
        },
        Question {
            ask: "What animal is in this image?".to_owned(),
            expect: singular,
        },
    ])
}

fn singular(plural: &str) -> Option<String> {
    if let Some((_, singular)) = IRREGULAR.iter().find(|(many, _)| *many == plural) {
        return Some((*singular).to_owned());
    }
    let stem = plural.strip_suffix('s').filter(|stem| !stem.is_empty())?;
    Some(match stem.strip_suffix("ie") {
        Some(stem) => format!("{stem}y"),
        None => stem.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twenty_two_animals_are_known_in_the_plural() {
        // jannerm/ddpo `assets/very_simple_animals.txt`, plurals as the library inflect makes them.
        let animals = [
            "cats cat",
            "dogs dog",
            "horses horse",
            "monkeys monkey",
            "rabbits rabbit",
            "spiders spider",
            "birds bird",
            "sheep sheep",
            "cows cow",
            "lions lion",
            "tigers tiger",
            "bears bear",
            "raccoons raccoon",
            "foxes fox",
            "wolves wolf",
            "ants ant",
            "fish fish",
            "squirrels squirrel",
            "turtles turtle",
            "frogs frog",
            "chickens chicken",
            "pigs pig",
            "butterflies butterfly",
        ];
        for pair in animals {
            let (many, one) = pair.split_once(' ').unwrap();
            let questions = counting_questions(&Prompt::new(0, format!("eight {many}"))).unwrap();
            assert_eq!(
                questions[0].ask,
                format!("How many {many} are there in this image?")
            );
            assert_eq!(
                (questions[0].expect.as_str(), questions[1].expect.as_str()),
                ("eight", one)
            );
        }
    }

    #[test]
    fn other_prompts_are_refused_by_name() {
        for text in ["cat", "one cat", "nine cats", "six", "", "six cat"] {
            let error = counting_questions(&Prompt::new(0, text)).unwrap_err();
            assert!(matches!(error, RewardError::BadInput { .. }));
            assert!(
                error.to_string().contains(&format!("\"{text}\"")),
                "{error}"
            );
        }
    }
}
