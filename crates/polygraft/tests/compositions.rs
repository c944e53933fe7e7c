//! What compositions promise whatever the adapters: parts of rows, scales, what is remembered and what is told apart.

#![allow(clippy::unwrap_used, reason = "tests")]

use polygraft::backend::{Backend, Poll, Precision};
use polygraft::ir::{
    AdapterIr, Graft, Layer, LayerLinear, LinearSite, Meeting, Op, Patch, Positions, Prompt, Reweigh, Reweight,
    RowChange, Site,
};
use polygraft::merge::merge;
use polygraft::model::WeightId;
use polygraft::plan::Want;
use polygraft::reference::Reference;
use polygraft::session::{Batch, Session};
use polygraft::tasks::{Encode, Engine, Item, Source};
use polygraft::tensor::Scheme;
use polygraft::testing::{self, Dims, Random};
use polygraft::text::Tokenizer;
use polygraft::{Compose, Result};

/// A token a byte.
struct Bytes;

impl Tokenizer for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(|b| 5 + u32::from(b % 32)).collect())
    }
}

fn session(seed: u64) -> Session<Reference> {
    let dims = Dims { hidden: 40, heads: 5, ffn: 52, layers: 2, vocab: 50, scheme: Scheme::F32 };
    let (spec, weights) = testing::model(dims, seed);
    let mut backend = Reference::new();
    for (i, w) in weights.into_iter().enumerate() {
        backend.load_weight(WeightId(i as u32), w).unwrap();
    }
    let mut session = Session::new(spec, backend).unwrap();
    testing::graft(&mut session, seed + 1).unwrap();
    session
}

fn hidden(s: &mut Session<Reference>, text: &str, tokens: usize) -> Result<Vec<f32>> {
    let row = testing::row(s.spec(), tokens, &mut Random(1));
    let batch = Batch::uniform(vec![row], text.parse().unwrap());
    let want = Want { hidden: true, ..Want::default() };
    Ok(s.run(&batch, want, Precision::Exact)?.remove(0).hidden.unwrap())
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn names(s: &Session<Reference>) -> Vec<String> {
    s.adapters().keys().cloned().collect()
}

#[test]
fn both_parts_of_one_adapter_are_that_adapter_or_an_error() {
    let mut seen = 0;
    for seed in 0..24 {
        let mut s = session(seed * 10);
        for name in names(&s) {
            // A gate is a mean over its part of a row.
            let gated = |op: &Op| match op {
                Op::Bottleneck(b) => b.gate.is_some(),
                op => matches!(op, Op::MixedLowRank(_)),
            };
            if s.adapters()[&name].patches.iter().any(|(_, p)| gated(&p.op)) {
                continue;
            }
            let Ok(parts) = hidden(&mut s, &format!("split({name}:2, {name}:*)"), 9) else { continue };
            let off = farthest(&parts, &hidden(&mut s, &name, 9).unwrap());
            assert!(off < 1e-4, "seed {seed}, {name}: {off}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

/// Multiplies a layer's weights.
#[derive(Debug)]
struct Times(f32, (usize, usize));

impl Reweigh for Times {
    fn apply(&self, layer: &mut Layer, _: &Layer) -> std::result::Result<(), String> {
        layer.weight.iter_mut().for_each(|w| *w *= self.0);
        Ok(())
    }
    fn shape(&self) -> (usize, usize) {
        self.1
    }
    fn meeting(&self) -> Meeting {
        Meeting::Follows
    }
    fn bytes(&self) -> usize {
        4
    }
}

#[test]
fn weights_are_changed_for_the_tokens_of_a_part_alone() {
    let mut s = session(3);
    let spec = s.spec().clone();
    let site = LinearSite::Layer(1, LayerLinear::FfnOut);
    for (name, by) in [("twice", 2.0), ("half", 0.5)] {
        let op = Op::Reweight(Reweight::new(Times(by, (spec.hidden, spec.ffn))));
        let patches = vec![Patch { site: Site::Linear(site), op }];
        let adapter = AdapterIr { patches, head: None, rows: RowChange::default(), ..testing::adapter(&spec, 0) };
        s.graft(name, adapter, Graft::default()).unwrap();
    }
    let mut run = |text: &str| hidden(&mut s, text, 9);
    let (split, twice, half) = (run("split(twice:2, half:*)").unwrap(), run("twice").unwrap(), run("half").unwrap());
    let at = 2 * spec.hidden;
    assert_eq!((&split[..at], &split[at..]), (&twice[..at], &half[at..]));
    assert!(farthest(&twice, &half) > 0.01);
    let error = run("stack(twice, split(half:2, twice:*))").unwrap_err();
    assert_eq!(error.code(), "COMPOSE_INVALID", "{error}");
}

#[test]
fn a_scale_of_zero_is_the_limit_of_small_ones() {
    let mut seen = 0;
    for seed in 0..24 {
        let mut s = session(seed * 10);
        for name in names(&s) {
            let Ok(off) = hidden(&mut s, &format!("{name}:0"), 9) else { continue };
            let far = farthest(&off, &hidden(&mut s, &format!("{name}:1e-6"), 9).unwrap());
            assert!(far < 1e-3, "seed {seed}, {name}: {far}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

/// The embedding of one text.
fn embed(engine: &mut Engine<Reference>, text: &str, compose: &str) -> Vec<f32> {
    let compose: Compose = compose.parse().unwrap();
    let resolved = engine.session.resolve(&compose).unwrap();
    let item = Item { source: Source::Text(String::new(), text.into()), compose: 0 };
    let want = Want { embedding: true, ..Want::default() };
    let mut encode = Encode::new(vec![item], &[resolved], want, Precision::Exact, false);
    while encode.advance(engine, &mut || false).unwrap() != Poll::Done {}
    encode.finish().unwrap().outputs.remove(0).remove(0).embedding.unwrap()
}

#[test]
fn an_embedding_is_remembered_with_the_parts_of_its_row() {
    let mut seen = 0;
    for seed in 0..24 {
        let mut engine = Engine::new(session(seed * 10), Box::new(Bytes), Precision::Exact);
        let all = names(&engine.session);
        let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (a, b))).filter(|(a, b)| a != b);
        for (a, b) in pairs {
            let texts = [format!("split({a}:2, {b}:*)"), format!("split({a}:6, {b}:*)"), format!("stack({a}, {b})")];
            if texts.iter().any(|t| engine.session.resolve(&t.parse().unwrap()).is_err()) {
                continue;
            }
            for text in &texts {
                let warm = embed(&mut engine, "some water", text);
                engine.forget_embeddings();
                let fresh = embed(&mut engine, "some water", text);
                assert_eq!(warm, fresh, "seed {seed}: {text}");
                seen += 1;
            }
            for text in &texts {
                embed(&mut engine, "some water", text);
            }
            let again: Vec<_> = texts.iter().map(|text| embed(&mut engine, "some water", text)).collect();
            for (text, again) in texts.iter().zip(again) {
                engine.forget_embeddings();
                assert_eq!(again, embed(&mut engine, "some water", text), "seed {seed}: {text}");
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn a_text_under_virtual_tokens_is_cut_to_what_is_left() {
    let mut s = session(3);
    let spec = s.spec().clone();
    let vectors = testing::store(7, spec.embedding, Random(4).vec(7 * spec.embedding, 1.0), Scheme::F32);
    let prompt = AdapterIr {
        patches: vec![Patch { site: Site::Word, op: Op::Prompt(Prompt { vectors }) }],
        head: None,
        rows: RowChange { virtual_tokens: 7, positions: Positions::Sequence, ..RowChange::default() },
        ..testing::adapter(&spec, 0)
    };
    s.graft("p", prompt, Graft::default()).unwrap();
    let scaled = s.resolve(&"p:0.5".parse().unwrap()).unwrap_err();
    assert_eq!(scaled.code(), "COMPOSE_INVALID");
    let long = "water ".repeat(spec.max_positions);
    let mut engine = Engine::new(s, Box::new(Bytes), Precision::Exact);
    assert!(embed(&mut engine, &long, "p").iter().all(|x| x.is_finite()));
    assert_eq!(engine.session.resolve(&"p".parse().unwrap()).unwrap().max_tokens(&spec), spec.max_positions - 7);
}

#[test]
fn weights_that_sum_to_nothing_are_no_average() {
    let mut s = session(3);
    let [a, b] = names(&s)[..2].to_vec().try_into().unwrap_or_else(|_| panic!("two adapters"));
    for text in [format!("average({a}:1, {b}:-1)"), format!("average({a}:0, {b}:0)")] {
        let error = s.resolve(&text.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("sum of its weights"), "{error}");
    }
}

#[test]
fn a_composition_reads_what_it_prints() {
    let scale = |of, scale| Compose::Scale(Box::new(of), scale);
    let one = || Compose::Use("a".into());
    let twice = scale(scale(one(), 0.5), 3.0);
    assert_eq!(twice.to_string(), "a:1.5");
    let tree = serde_json::json!({"mix": [{"scale": 0.5, "of": "a"}, "b"], "weights": [0.3, 0.7]});
    let mix = Compose::from_json(&tree).unwrap();
    assert_eq!(mix.to_string().parse::<Compose>().unwrap(), mix);
}

#[test]
fn parts_of_rows_are_not_merged_into_weights() {
    let mut s = session(3);
    let spec = s.spec().clone();
    for (name, seed) in [("x", 1), ("y", 2)] {
        let adapter = testing::lora(&spec, seed, 2, &[LayerLinear::Query], Scheme::F32);
        s.graft(name, adapter, Graft::default()).unwrap();
    }
    let mut weights = std::collections::BTreeMap::new();
    let mut merged = |text: &str| merge(&mut spec.clone(), &mut weights, &s.resolve(&text.parse().unwrap()).unwrap());
    assert!(merged("stack(x, y)").is_ok());
    assert_eq!(merged("split(x:2, y:*)").unwrap_err().code(), "COMPOSE_INVALID");
}
