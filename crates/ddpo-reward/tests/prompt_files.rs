//! Prompts from files as people write them: what is meant is read, and what is wrong is named with its line.

use std::path::Path;

use ddpo_reward::prompts::PromptList;

fn parse(text: &str) -> PromptList {
    PromptList::parse(text, "prompts.txt", false).unwrap()
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let error = PromptList::parse(text, "own.jsonl", true).unwrap_err();
    for part in parts {
        assert!(
            error.to_string().contains(part),
            "`{part}` is not in: {error}"
        );
    }
}

#[test]
fn a_plain_file_has_a_prompt_a_line_however_its_lines_end() {
    let list = parse("\u{feff}a cat\r\n\r\n  a dog \r\n\r\na cat\r\n");
    let texts: Vec<&str> = list.prompts.iter().map(|p| p.text.as_str()).collect();
    assert_eq!(texts, ["a cat", "a dog", "a cat"]);
    assert!((0..).zip(&list.prompts).all(|(id, p)| p.id == id));
    assert_eq!(
        list.warnings,
        [
            "prompts.txt: 2 empty lines skipped",
            "prompts.txt: 1 prompt there more than once, and drawn as often: \"a cat\" (lines 1 and 5)"
        ]
    );
    assert!(parse("a cat\na dog").warnings.is_empty());
}

#[test]
fn json_lines_have_weights_and_metadata() {
    let list =
        parse("{\"text\": \"a cat\"}\n{\"text\":\"a dog\",\"weight\":2.5,\"metadata\":{\"n\":1}}");
    let [cat, dog] = &list.prompts[..] else {
        unreachable!("{list:?}")
    };
    assert_eq!((cat.weight, cat.metadata.as_deref()), (1.0, None));
    assert_eq!(
        (dog.weight, dog.metadata.as_deref()),
        (2.5, Some("{\"n\":1}"))
    );
}

#[test]
fn a_bad_line_is_named_with_what_is_expected() {
    refused("a cat", &["own.jsonl, line 1", "\"text\": \"a cat\""]);
    let good = "{\"text\": \"a cat\"}\n\n";
    for (line, part) in [
        ("{\"text\": \"a dog\"", "EOF"),
        ("{\"txt\": \"a dog\"}", "unknown field `txt`"),
        ("{\"text\": 5}", "invalid type"),
        ("{\"text\": \" \"}", "an empty `text`"),
        ("{\"text\": \"a\", \"weight\": 0}", "above 0, got 0"),
        ("{\"text\": \"a\", \"weight\": -1.5}", "above 0, got -1.5"),
        ("{\"text\": \"a\", \"weight\": 1e999}", "out of range"),
        ("{\"text\": \"a\", \"metadata\": [1]}", "expected"),
    ] {
        refused(&format!("{good}{line}"), &["own.jsonl, line 3", part]);
    }
    refused("\n \n", &["at least one prompt"]);
}

#[test]
fn the_end_of_its_name_says_that_a_file_is_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        PromptList::read(&file)
    };
    assert!(read("a.txt", b"[a cat]").is_ok());
    assert!(read("a.jsonl", b"[a cat]").is_err());
    let error = read("latin.txt", b"a cat\nS\xe9gol\xe8ne").unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
    let error = PromptList::read(Path::new("nowhere.txt")).unwrap_err();
    assert!(error.to_string().contains("nowhere.txt"), "{error}");
}

#[test]
fn a_list_has_no_empty_texts() {
    let of = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        PromptList::of_texts(&texts, "prompts.texts")
    };
    let list = of(&["a cat", "a cat "]).unwrap();
    assert_eq!(list.prompts.len(), 2);
    assert!(list.warnings[0].contains("\"a cat\" (numbers 1 and 2)"));
    assert!(of(&[]).is_err());
    let error = of(&["a cat", ""]).unwrap_err();
    assert!(error.to_string().contains("number 2"), "{error}");
}
