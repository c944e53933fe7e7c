//! What a stranger may send for a tokenizer, and texts that a stranger may give one: an error or ids, soon, never a panic.
//! `tests/attacks/README.md` says which row of which table is where.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use polygraft::text::Tokenizer as _;
use polygraft_formats::tokenizer::LONGEST_WORD;
use polygraft_formats::{FormatError, MemoryFiles, Tokenizer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn golden(kind: &str) -> MemoryFiles {
    support::folder(&support::repository("tests/golden/tokenizers").join(kind))
}

/// A tokenizer of the golden fixtures, its `tokenizer.json` changed.
fn tokenizer(kind: &str, change: impl FnOnce(&mut Value)) -> Result<Tokenizer, FormatError> {
    let mut files = golden(kind);
    let mut json: Value = serde_json::from_slice(&files.0["tokenizer.json"]).unwrap();
    change(&mut json);
    files.0.insert("tokenizer.json".into(), json.to_string().into_bytes());
    Tokenizer::load(&files, 1 << 20)
}

/// P13 to P15: what made readers of such files panic, loop, or give wrong ids.
#[test]
fn tokenizers_from_strangers_end() {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change)] = &[
        ("P13 a template without its token", |t| {
            t["post_processor"] = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[GONE]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [], "special_tokens": {}});
        }),
        ("P13 pieces of no length", |t| t["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0})),
        ("P13 a map that is none", |t| {
            t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})
        }),
        ("P13 a map that points outside", |t| {
            t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8AAAAA"});
        }),
        ("P13 a map without an array", |t| {
            t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAA"});
        }),
        ("P13 a map of more than there is, inside", |t| {
            t["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "/////wAAAAAA"}]});
        }),
        ("P13 strips more than there is", |t| {
            t["decoder"] = json!({"type": "Strip", "content": "a", "start": 1_000_000, "stop": 1_000_000})
        }),
        ("P13 a merge of nothing", |t| t["model"]["merges"] = json!([["", ""], ["a", ""]])),
        ("P13 a merge of what is not there", |t| t["model"]["merges"] = json!([["zzzz", "yyyy"]])),
        ("P13 merges that are no pairs", |t| t["model"]["merges"] = json!(["a", "a b c d"])),
        ("P14 a pattern that explodes", |t| {
            t["pre_tokenizer"] =
                json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": false});
        }),
        ("P14 a replacement that explodes", |t| {
            t["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "(a|a)*b"}, "content": "x"});
        }),
        ("P14 a pattern that goes back over and over", |t| {
            t["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "(?:a|aa)+(?!a)c"}, "behavior": "Isolated", "invert": false});
        }),
        ("P14 a replacement that goes back over and over", |t| {
            t["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "(a|aa)+\\1c"}, "content": "x"});
        }),
        ("P15 an id beyond every table", |t| t["model"]["vocab"]["zz"] = json!(4_294_967_295u64)),
        ("P15 an id twice", |t| t["model"]["vocab"]["zz"] = json!(7)),
        ("P15 no ids", |t| t["model"]["vocab"] = json!({})),
        ("P15 another's id \"[ZZ]\"", |t| added(t, 7, "[ZZ]")),
        ("P15 two of one id \"[YY]\"", |t| {
            added(t, 100_000, "[ZZ]");
            added(t, 100_000, "[YY]");
        }),
    ];
    let texts = [
        "",
        "\0",
        "a",
        "naïve 👩‍👩‍👧 ﬁ 日本\u{fffd}",
        &"a".repeat(50_000),
        &"ab ".repeat(10_000),
        &format!("a{}b", " ".repeat(300_000)),
    ];
    for (what, change) in cases {
        let start = Instant::now();
        let loaded = std::panic::catch_unwind(|| tokenizer("bpe", change));
        let Ok(loaded) = loaded else { panic!("{what}: it panics") };
        match loaded {
            Err(e) => {
                assert!(matches!(e.code(), "TOKENIZER" | "FORMAT_JSON" | "FORMAT_DUPLICATE"), "{what}: {e}");
                let named = what.find('"').is_none_or(|at| e.to_string().contains(&what[at..]));
                assert!(named, "{what}: {e}");
            }
            Ok(tokenizer) => {
                assert!(!what.starts_with("P15"), "{what}: it loads");
                for text in &texts {
                    // An error is an answer.
                    let _ = tokenizer.encode(text);
                }
            }
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{what}: {:?}", start.elapsed());
    }
}

/// P13 once more: pieces of words among which there is no beginning of one, and tokens of no length.
#[test]
fn pieces_from_strangers_end() {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change)] = &[
        ("a prefix of no length", |t| t["model"]["continuing_subword_prefix"] = json!("")),
        ("no beginnings of words", |t| t["model"]["vocab"] = json!({"[UNK]": 0, "##a": 1, "##b": 2})),
        ("nothing but what is unknown", |t| t["model"]["vocab"] = json!({"[UNK]": 0})),
        ("no token for what is unknown", |t| t["model"]["unk_token"] = json!("[GONE]")),
        ("a token of no length", |t| t["model"]["vocab"][""] = json!(60_000)),
        ("an added token of no length", |t| added(t, 60_000, "")),
        ("an added token that is a pattern", |t| added(t, 60_000, "(a+)+$|[")),
    ];
    for (what, change) in cases {
        for kind in ["wordpiece", "bpe"] {
            let start = Instant::now();
            let ended = std::panic::catch_unwind(|| {
                let Ok(tokenizer) = tokenizer(kind, change) else { return };
                for text in ["", "a", "ab ba", "naïve (a+)+$|[ 日本", &"ab".repeat(300)] {
                    // An error is an answer.
                    let _ = tokenizer.encode(text);
                }
            });
            assert!(ended.is_ok(), "{kind}, {what}: it panics");
            assert!(start.elapsed() < Duration::from_secs(2), "{kind}, {what}: {:?}", start.elapsed());
        }
    }
}

fn added(tokenizer: &mut Value, id: u32, content: &str) {
    let token = json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false});
    tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
}

/// P14: words that no row has room for, and caps under which one word would take the time of its square.
#[test]
fn words_have_an_end() {
    for cap in [json!(0), json!(257), json!(1_000_000_000), json!(4_294_967_296u64)] {
        let loaded = tokenizer("wordpiece", |t| t["model"]["max_input_chars_per_word"] = cap.clone()).map(drop);
        assert!(
            loaded.as_ref().is_err_and(|e| e.to_string().contains("max_input_chars_per_word")),
            "{cap}: {loaded:?}"
        );
    }
    let mut all: Vec<(String, Tokenizer)> = ["bpe", "wordpiece", "wordpiece_cased"]
        .map(|name| (name.to_owned(), Tokenizer::load(&golden(name), 1 << 20).unwrap()))
        .into();
    let e5 = support::repository("models/multilingual-e5-small");
    if e5.exists() {
        let kit = MemoryFiles::one("tokenizer.kit", std::fs::read(e5.join("tokenizer.kit")).unwrap());
        all.push(("e5".into(), Tokenizer::load(&kit, 1 << 20).unwrap()));
    }
    let long = "a".repeat(10_000_000);
    let many = "日本語".repeat(2_000_000);
    let most = "ab1".repeat(LONGEST_WORD / 3);
    for (name, tokenizer) in &all {
        for text in [long.as_str(), many.as_str(), &format!("one {long} two")] {
            // The best of three: other tests run beside this one.
            let took = |_| {
                let start = Instant::now();
                let said = tokenizer.encode(text).unwrap_err().to_string();
                assert!(said.contains(" bytes") && said.len() < 300, "{name}: {said}");
                start.elapsed()
            };
            let best = (0..3).map(took).min().unwrap();
            assert!(best < Duration::from_millis(50), "{name}: {best:?}");
        }
        let start = Instant::now();
        assert!(!tokenizer.encode(&most).unwrap().is_empty(), "{name}");
        assert!(start.elapsed() < Duration::from_secs(10), "{name}: {:?}", start.elapsed());
    }
}

/// XLM-R's own table of characters leads one place past what the tokenizer's crate keeps of it.
#[test]
fn every_character_has_ids() {
    let path = support::repository("models/multilingual-e5-small");
    if !path.exists() {
        eprintln!("models/multilingual-e5-small is not there; `npm start` makes it");
        return;
    }
    let kit = MemoryFiles::one("tokenizer.kit", std::fs::read(path.join("tokenizer.kit")).unwrap());
    let tokenizer = Tokenizer::load(&kit, 1 << 20).unwrap();
    let compact = polygraft_formats::tokenizer::compact(&kit).unwrap().unwrap();
    let again = Tokenizer::load(&MemoryFiles::one("tokenizer.kit", compact), 1 << 20).unwrap();
    for plane in 0..17u32 {
        let text: String = (plane << 16..(plane + 1) << 16).filter_map(char::from_u32).flat_map(|c| [c, ' ']).collect();
        let ids = tokenizer.encode(&text).unwrap();
        assert!(ids.len() > 2 && again.encode(&text).unwrap() == ids, "plane {plane}");
    }
}
