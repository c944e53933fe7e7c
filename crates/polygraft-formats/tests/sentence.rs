//! Sentence-Transformers folders against numbers made with torch (tests/golden/make.py).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use polygraft::backend::Precision;
use polygraft::batch::Row;
use polygraft::plan::Want;
use polygraft::reference::Reference;
use polygraft::session::Batch;
use polygraft::{Compose, Session};

#[derive(serde::Deserialize)]
struct Expected {
    rows: Vec<Vec<u32>>,
    embeddings: Vec<Vec<f32>>,
}

#[test]
fn embeddings_are_torchs() {
    let mut seen = 0;
    for entry in std::fs::read_dir(support::repository("tests/golden/sentence")).unwrap().flatten() {
        let path = entry.path();
        if !path.join("expected.json").exists() {
            continue;
        }
        let expected: Expected = serde_json::from_slice(&std::fs::read(path.join("expected.json")).unwrap()).unwrap();
        let mut session: Session<Reference> = support::session(&support::folder(&path), Reference::new())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let rows: Vec<Row> = expected.rows.into_iter().map(Row::from).collect();
        let want = Want { embedding: true, ..Want::default() };
        let out = session.run(&Batch::uniform(rows, Compose::Base), want, Precision::Exact).unwrap();
        for (row, (got, want)) in out.iter().zip(&expected.embeddings).enumerate() {
            let got = got.embedding.as_ref().unwrap();
            let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            assert!(got.len() == want.len() && worst < 2e-5, "{} row {row}: off by {worst:e}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} sentence folders");
}

/// Prompts that would be left out of the pooling, or put before every text, are no prompts of this version's.
#[test]
fn prompts_of_other_kinds_are_refused() {
    use polygraft_formats::base::sentence::sentence;
    let read = |include: bool, sentence_transformers: &str| {
        let mut files = polygraft_formats::MemoryFiles::default();
        let modules = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
        let pooling = format!(r#"{{"pooling_mode_mean_tokens": true, "include_prompt": {include}}}"#);
        for (name, text) in [
            ("modules.json", modules),
            ("1_Pooling/config.json", &pooling),
            ("config_sentence_transformers.json", sentence_transformers),
        ] {
            files.0.insert(name.into(), text.as_bytes().to_vec());
        }
        sentence(&files).map(drop).map_err(|e| e.to_string())
    };
    let prompts = r#"{"prompts": {"query": "query: ", "none": ""}, "default_prompt_name": null}"#;
    assert_eq!(read(true, prompts), Ok(()));
    assert!(read(false, prompts).unwrap_err().contains("include_prompt"));
    assert_eq!(read(false, r#"{"prompts": {"none": ""}}"#), Ok(()));
    assert_eq!(read(true, &prompts.replace("null", "\"none\"")), Ok(()));
    for name in ["\"query\"", "\"gone\""] {
        assert!(read(true, &prompts.replace("null", name)).unwrap_err().contains("default_prompt_name"), "{name}");
    }
}
