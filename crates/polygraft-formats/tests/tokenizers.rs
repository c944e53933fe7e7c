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
