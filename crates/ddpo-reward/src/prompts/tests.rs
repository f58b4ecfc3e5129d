use super::*;
use std::collections::HashSet;

#[test]
fn sets_have_the_paper_s_sizes_and_no_text_twice() {
    let sizes = [
        45, 398, 38, 50, 135, 135, 10, 45, 45, 45, 69, 154, 4, 4, 1, 12, 23, 28,
    ];
    for (set, n) in PromptSet::ALL.into_iter().zip(sizes) {
        let prompts = set.prompts();
        let texts: HashSet<_> = prompts.iter().map(|p| p.text.to_lowercase()).collect();
        assert_eq!((prompts.len(), texts.len()), (n, n), "{}", set.name());
        assert!(prompts.iter().zip(0..).all(|(p, id)| p.id == id));
        assert_eq!(PromptSet::by_name(set.name()), Some(set));
    }
    assert_eq!(PromptSet::by_name("plants"), None);
}

#[test]
fn unseen_sets_share_nothing_with_training() {
    let seen: HashSet<_> = COMMON_ANIMALS.into_iter().collect();
    for text in UNSEEN_ANIMALS.iter().chain(&EVERYDAY_OBJECTS) {
        assert!(!seen.contains(text.to_lowercase().as_str()), "{text}");
    }
}

#[test]
fn imagenet_s_animals_are_those_of_the_label_file() {
    let names: Vec<&str> = imagenet_animals().collect();
    let unique: HashSet<_> = names.iter().collect();
    let with_commas = names.iter().filter(|name| name.contains(',')).count();
    let longest = names.iter().map(|name| name.len()).max();
    assert_eq!((names.len(), unique.len(), with_commas), (398, 398, 225));
    assert_eq!(longest, Some(121));
    assert_eq!(names[0], "tench, Tinca tinca");
    assert_eq!(names[397], "puffer, pufferfish, blowfish, globefish");
    // Dogs are classes 151 to 268.
    assert_eq!((names[151], names[268]), ("Chihuahua", "Mexican hairless"));
}

#[test]
fn counts_and_activities_are_worded_as_the_codebases_do() {
    let texts = |set: PromptSet| -> Vec<String> {
        set.prompts()
            .into_iter()
            .map(|prompt| prompt.text)
            .collect()
    };
    let counting = texts(PromptSet::Counting);
    for text in [
        "six monkeys",
        "four wolves",
        "eight fish",
        "two sheep",
        "three foxes",
    ] {
        assert!(counting.iter().any(|known| known == text), "{text}");
    }
    let (code, paper) = (
        texts(PromptSet::Activities),
        texts(PromptSet::ActivitiesPaper),
    );
    let same = code.iter().zip(&paper).filter(|(a, b)| a == b).count();
    assert_eq!(same, 90);
    assert_eq!(paper[0], "a cat washing dishes");
}

#[test]
fn what_pocket_draws_is_a_part_of_the_paper_s_lists_in_their_order() {
    let part = |part: &[&str], whole: &[&str]| {
        let mut whole = whole.iter().map(|name| name.to_lowercase());
        part.iter().all(|name| whole.any(|known| known == *name))
    };
    assert!(part(&POCKET_UNSEEN_ANIMALS, &UNSEEN_ANIMALS));
    assert!(part(&POCKET_OBJECTS, &EVERYDAY_OBJECTS));
    let listed = |name| COMMON_ANIMALS.contains(name);
    assert!(COUNTED_ANIMALS.iter().chain(&WOLF).all(listed));
}

#[test]
fn articles_follow_the_first_letter() {
    let prompts = PromptSet::Activities.prompts();
    assert_eq!(prompts[0].text, "a cat washing the dishes");
    assert_eq!(with_article("ant"), "an ant");
    assert!(prompts.iter().any(|p| p.text == "an ant playing chess"));
}
