//! WordPiece and byte-level BPE against Python's `tokenizers` (tests/golden/make_tokenizers.py); XLM-R's Unigram is
//! tested on the real one in `real_model.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use polygraft::text::Tokenizer as _;
use polygraft_formats::tokenizer::compact;
use polygraft_formats::{MemoryFiles, Tokenizer};

/// Ids without the two specials around them.
fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text).unwrap()
}

#[test]
fn ids_are_pythons_from_json_and_from_the_compact_form() {
    for kind in ["wordpiece", "wordpiece_cased", "bpe"] {
        let folder = support::folder(&support::repository("tests/golden/tokenizers").join(kind));
        let expected: Vec<(String, Vec<u32>)> = serde_json::from_slice(&folder.0["expected.json"]).unwrap();
        let json = Tokenizer::load(&folder, 1 << 20).unwrap();
        let kit = MemoryFiles::one("tokenizer.kit", compact(&folder).unwrap().unwrap());
        let kit = Tokenizer::load(&kit, 1 << 20).unwrap();
        let wrong: Vec<&String> = expected
            .iter()
            .filter(|(text, want)| ids(&json, text) != want[1..want.len() - 1] || ids(&kit, text) != ids(&json, text))
            .map(|(text, _)| text)
            .collect();
        assert!(wrong.is_empty(), "{kind}: {} of {}: {wrong:?}", wrong.len(), expected.len());
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let folder = support::folder(&support::repository("tests/golden/tokenizers/bpe"));
    let Err(error) = Tokenizer::load(&folder, 100) else { panic!("a vocabulary of 100 was enough") };
    assert_eq!(error.code(), "TOKENIZER");
    assert!(error.to_string().contains("another model"), "{error}");
}

#[derive(serde::Deserialize)]
struct Flags {
    cases: Vec<Case>,
    bpe: Vec<(String, Vec<u32>)>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    tokenizer: serde_json::Value,
    rows: Vec<(String, Vec<u32>)>,
}

/// A tokenizer from its JSON, and from the kit that is made of it.
fn both(json: &serde_json::Value) -> [Tokenizer; 2] {
    let folder = MemoryFiles::one("tokenizer.json", json.to_string().into_bytes());
    let kit = MemoryFiles::one("tokenizer.kit", compact(&folder).unwrap().unwrap());
    [folder, kit].map(|files| Tokenizer::load(&files, 1 << 20).unwrap())
}

/// `Strip`, Σ at a word's end, lists in lists, and the flags of added tokens.
#[test]
fn flags_and_folds_are_pythons() {
    let path = support::repository("tests/golden/tokenizers");
    let read = |name: &str| std::fs::read(path.join(name)).unwrap();
    let mut all: Flags = serde_json::from_slice(&read("flags/expected.json")).unwrap();
    let mut bpe: serde_json::Value = serde_json::from_slice(&read("bpe/tokenizer.json")).unwrap();
    for token in bpe["added_tokens"].as_array_mut().unwrap() {
        token["lstrip"] = (token["content"] == "<mask>").into();
    }
    all.cases.push(Case { name: "bpe".into(), tokenizer: bpe, rows: all.bpe });
    let mut wrong = Vec::new();
    for case in &all.cases {
        for tokenizer in both(&case.tokenizer) {
            for (text, want) in &case.rows {
                let got = ids(&tokenizer, text);
                if got != *want {
                    wrong.push(format!("{}: {text:?} is {got:?}, not {want:?}", case.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_whole_word_inside_of_a_word_is_refused() {
    let path = support::repository("tests/golden/tokenizers/flags/expected.json");
    let all: Flags = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = all.cases.iter().find(|case| case.name == "cased").unwrap();
    for tokenizer in both(&case.tokenizer) {
        let said = tokenizer.encode("an abcd").unwrap_err().to_string();
        assert!(said.contains("single_word") && said.contains("abc"), "{said}");
    }
}
