//! Both rerankers on real folders: cosine of embeddings, and the head that a base or an adapter brings; long texts,
//! empty texts, heads that cannot rank.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use polygraft::backend::{Poll, Precision};
use polygraft::batch::Row;
use polygraft::ir::{AdapterIr, Graft, Op, Patch, Site};
use polygraft::plan::Want;
use polygraft::reference::Reference;
use polygraft::session::Batch;
use polygraft::tasks::{Engine, LanguageVector, LanguageVectorRequest, Ranking, Rerank, RerankRequest, Scoring, Sides};
use polygraft::text::{self, Tokenizer};
use polygraft::{Compose, Error};
use polygraft_formats::{AdapterOptions, load_adapter, write_language_vector};

/// `3 14 15` → 3, 14, 15.
struct Numbers;

impl Tokenizer for Numbers {
    fn encode(&self, text: &str) -> polygraft::Result<Vec<u32>> {
        Ok(text.split_whitespace().filter_map(|w| w.parse().ok()).collect())
    }
}

fn engine(base: &str, adapters: &[(&str, &str)]) -> Engine<Reference> {
    let files = support::folder(&support::repository("tests/golden/bases").join(base));
    let mut session = support::session(&files, Reference::new()).unwrap();
    for (name, case) in adapters {
        let files = support::folder(&support::repository("tests/golden/peft-lora").join(case).join("adapter"));
        let adapter = load_adapter(&files, session.spec(), &AdapterOptions::default()).unwrap();
        session.graft(name, adapter, Graft::default()).unwrap();
    }
    Engine::new(session, Box::new(Numbers), Precision::Exact)
}

fn request(query: &str, documents: &[&str], compose: &str) -> RerankRequest {
    RerankRequest {
        query: query.into(),
        documents: documents.iter().map(|d| (*d).to_owned()).collect(),
        adapters: Sides::both(compose.parse().unwrap()),
        top_n: None,
        windows: false,
        precision: None,
    }
}

fn rank(engine: &mut Engine<Reference>, request: RerankRequest) -> polygraft::Result<Ranking> {
    let mut task = Rerank::new(engine, request)?;
    while task.advance(engine, &mut || true)? != Poll::Done {}
    task.finish()
}

/// The logits of a pair, from a forward pass of its own.
fn logits(engine: &mut Engine<Reference>, a: &str, b: &str, compose: &str) -> Vec<f32> {
    let spec = engine.session.spec();
    let row: Row = text::pair(spec, &Numbers, a, b, spec.max_tokens()).unwrap().row;
    let compose: Compose = compose.parse().unwrap();
    let want = Want { logits: true, ..Want::default() };
    let out = engine.session.run(&Batch::uniform(vec![row], compose), want, Precision::Exact).unwrap();
    out.into_iter().next().unwrap().logits.unwrap().values
}

const DOCUMENTS: [&str; 4] = ["7 8 9", "11", "21 22 23 24 25 26", "9 8 7"];

#[test]
fn a_base_with_one_label_scores_pairs() {
    let mut engine = engine("xlmr_seqcls", &[]);
    let ranking = rank(&mut engine, request("5 6", &DOCUMENTS, "base")).unwrap();
    assert_eq!(ranking.scoring, Scoring::Sigmoid);
    assert_eq!(ranking.results.len(), 4);
    for r in &ranking.results {
        let logit = logits(&mut engine, "5 6", DOCUMENTS[r.index], "base")[0];
        assert_eq!(r.logit, Some(logit));
        assert!((r.relevance_score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
    }
    assert!(ranking.results.windows(2).all(|w| w[0].relevance_score >= w[1].relevance_score));
    let top = rank(&mut engine, RerankRequest { top_n: Some(2), ..request("5 6", &DOCUMENTS, "base") }).unwrap();
    assert_eq!(top.results, ranking.results[..2]);
}

#[test]
fn an_adapters_head_makes_a_cross_encoder_of_a_plain_base() {
    let mut engine = engine("bert", &[("judge", "seqcls_one_label")]);
    let plain = rank(&mut engine, request("5 6", &DOCUMENTS, "base")).unwrap();
    assert_eq!(plain.scoring, Scoring::Cosine);
    assert!(plain.results.iter().all(|r| r.logit.is_none() && r.relevance_score.abs() <= 1.0 + 1e-6));
    let judged = rank(&mut engine, request("5 6", &DOCUMENTS, "judge")).unwrap();
    assert_eq!(judged.scoring, Scoring::Sigmoid);
    for r in &judged.results {
        assert_eq!(r.logit, Some(logits(&mut engine, "5 6", DOCUMENTS[r.index], "judge")[0]));
    }
    // Scores of a head and cosines in one list would mean nothing.
    let mut mixed = request("5 6", &DOCUMENTS, "judge");
    mixed.adapters.documents = ["judge", "base", "judge", "judge"].iter().map(|c| c.parse().unwrap()).collect();
    assert_eq!(rank(&mut engine, mixed).unwrap_err().code(), "ARGUMENT");
}

#[test]
fn a_head_that_cannot_rank_says_so() {
    let mut engine = engine("bert_seqcls", &[]);
    let error = rank(&mut engine, request("5", &DOCUMENTS, "base")).unwrap_err();
    assert!(matches!(error, Error::HeadShape { found: 3, .. }), "{error}");
}

#[test]
fn long_texts_are_cut_and_counted_or_split() {
    let mut engine = engine("bert", &[]);
    let long = (0..10_000).map(|i| (5 + i % 60).to_string()).collect::<Vec<_>>().join(" ");
    let documents = ["7 8 9", long.as_str(), ""];
    let cut = rank(&mut engine, request("5 6", &documents, "base")).unwrap();
    assert_eq!(cut.report.truncated, [1]);
    assert_eq!(cut.report.truncated_tokens, 10_000 - (engine.session.spec().max_tokens() - 2));
    assert!(cut.warnings.iter().any(|w| w.contains("document 2 is empty")), "{:?}", cut.warnings);
    assert!(!cut.query_truncated);
    let split = rank(&mut engine, RerankRequest { windows: true, ..request("5 6", &documents, "base") }).unwrap();
    assert!(split.report.truncated.is_empty());
    let score = |r: &Ranking| r.results.iter().find(|r| r.index == 1).unwrap().relevance_score;
    assert!(score(&split) >= score(&cut), "the best window is no worse than the first");
}

#[test]
fn nothing_to_rank_is_an_error_and_the_next_call_works() {
    let mut engine = engine("bert", &[]);
    for bad in [request("", &DOCUMENTS, "base"), request("5", &[], "base")] {
        assert_eq!(rank(&mut engine, bad).unwrap_err().code(), "ARGUMENT");
    }
    assert_eq!(rank(&mut engine, request("5", &DOCUMENTS, "nobody")).unwrap_err().code(), "ADAPTER_UNKNOWN");
    assert_eq!(rank(&mut engine, request("5", &DOCUMENTS, "base")).unwrap().results.len(), 4);
}

fn embed(engine: &mut Engine<Reference>, texts: &[&str]) -> Vec<Vec<f32>> {
    let spec = engine.session.spec();
    let rows = texts.iter().map(|t| text::single(spec, &Numbers, t, spec.max_tokens()).unwrap().row).collect();
    let want = Want { embedding: true, ..Want::default() };
    let out = engine.session.run(&Batch::uniform(rows, Compose::Base), want, Precision::Exact).unwrap();
    out.into_iter().map(|r| r.embedding.unwrap()).collect()
}

fn minus_mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let sum = |i: usize| vectors.iter().map(|v| f64::from(v[i])).sum::<f64>();
    (0..vectors[0].len()).map(|i| (-sum(i) / vectors.len() as f64) as f32).collect()
}

fn language_vector(engine: &mut Engine<Reference>, texts: &[&str], pivot: Option<&[&str]>) -> AdapterIr {
    let own = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
    let request = LanguageVectorRequest {
        texts: own(texts),
        pivot: pivot.map(own),
        language: "hu".into(),
        under: Compose::Base,
        precision: None,
    };
    let mut task = LanguageVector::new(engine, request).unwrap();
    while task.advance(engine, &mut || true).unwrap() != Poll::Done {}
    task.finish().unwrap().0
}

#[test]
fn without_a_pivot_queries_are_centred_by_themselves() {
    let mut engine = engine("bert", &[]);
    let texts = ["7 8 9 10 11 12 13 14 15 16 17", "21 22", "30 31 32 33 34 35 36 37 38 39"];
    let adapter = language_vector(&mut engine, &texts, None);
    let [Patch { site: Site::Pooled, op: Op::Offset(offset) }] = adapter.patches.as_slice() else {
        unreachable!("a language vector is one offset")
    };
    assert_eq!(offset.vector, minus_mean(&embed(&mut engine, &texts)));
    // This base has no prompts: a query is a passage's first eight tokens.
    let openings = ["7 8 9 10 11 12 13 14", "21 22", "30 31 32 33 34 35 36 37"];
    assert_eq!(offset.query.as_ref(), Some(&minus_mean(&embed(&mut engine, &openings))));
    // Onto a pivot there is one vector for both sides.
    let moved = language_vector(&mut engine, &texts, Some(&["5 6 7", "8"]));
    assert!(matches!(&moved.patches[0].op, Op::Offset(o) if o.query.is_none()));
    // It is the same after the file, and each side takes its own.
    let bytes = write_language_vector(&adapter).unwrap();
    let again = polygraft_formats::language::load("hu.safetensors", bytes).unwrap();
    assert_eq!(again.patches, adapter.patches);
    engine.session.graft("hu", again, Graft::default()).unwrap();
    let ranking = rank(&mut engine, request("5 6", &DOCUMENTS, "hu")).unwrap();
    let centred = |v: &[f32], by: &[f32]| {
        let mut v: Vec<f32> = v.iter().zip(by).map(|(x, b)| x + b).collect();
        let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.iter_mut().for_each(|x| *x /= norm);
        v
    };
    let query = centred(&embed(&mut engine, &["5 6"])[0], offset.query.as_ref().unwrap());
    let documents = embed(&mut engine, &DOCUMENTS);
    for r in &ranking.results {
        let document = centred(&documents[r.index], &offset.vector);
        let score: f32 = query.iter().zip(&document).map(|(a, b)| a * b).sum();
        assert!((r.relevance_score - score).abs() < 1e-5, "{} and {score}", r.relevance_score);
    }
}
