//! Rows computed by satellites: the same bits, whoever computes what, and nobody's failure is the caller's.

#![allow(clippy::unwrap_used, reason = "tests")]

use polygraft::Result;
use polygraft::backend::{Backend, Poll, Precision};
use polygraft::ir::Graft;
use polygraft::model::{ModelSpec, WeightId};
use polygraft::plan::Want;
use polygraft::reference::Reference;
use polygraft::session::{Batch, RowOutput, Session};
use polygraft::share::{self, Answer, Satellite};
use polygraft::tasks::{Encode, Engine, Item, Source};
use polygraft::tensor::Scheme;
use polygraft::testing::{self, Dims, Random};
use polygraft::text::Tokenizer;

const ALL: Want = Want { hidden: true, embedding: true, logits: true };

struct NoTokenizer;

impl Tokenizer for NoTokenizer {
    fn encode(&self, _: &str) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }
}

/// The base of `seed`, with or without its tables.
fn session(seed: u64, tables: bool) -> Session<Reference> {
    let dims = Dims { hidden: 40, heads: 5, ffn: 52, layers: 2, vocab: 50, scheme: Scheme::F32 };
    let (spec, weights) = testing::model(dims, seed);
    let left_out = if tables { Vec::new() } else { spec.embeddings.ids().collect() };
    let mut backend = Reference::new();
    for (i, w) in weights.into_iter().enumerate() {
        let id = WeightId(i as u32);
        let w = if left_out.contains(&id) { share::absent(w.cols()) } else { w };
        backend.load_weight(id, w).unwrap();
    }
    Session::new(spec, backend).unwrap()
}

fn engine(seed: u64) -> Engine<Reference> {
    let mut session = session(seed, true);
    testing::graft(&mut session, seed + 1).unwrap();
    Engine::new(session, Box::new(NoTokenizer), Precision::Exact)
}

fn satellite(seed: u64) -> Satellite<Reference> {
    Satellite::new(session(seed, false))
}

/// `count` rows of odd lengths under random compositions.
fn encode(engine: &mut Engine<Reference>, count: usize, seed: u64, want: Want) -> Encode<Reference> {
    let known = testing::compositions(&mut engine.session);
    let mut random = Random(seed);
    let items: Vec<_> = (0..count)
        .map(|_| {
            let row = testing::row(engine.session.spec(), 1 + random.below(60), &mut random);
            Item { source: Source::Row(row), compose: random.below(known.len()) }
        })
        .collect();
    let resolved: Vec<_> = known.iter().map(|c| engine.session.resolve(c).unwrap()).collect();
    Encode::new(items, &resolved, want, Precision::Exact, false)
}

fn rows(encode: Encode<Reference>) -> Vec<RowOutput> {
    encode.finish().unwrap().outputs.into_iter().flatten().collect()
}

fn alone(seed: u64, count: usize, want: Want) -> Vec<RowOutput> {
    let mut engine = engine(seed);
    let mut encode = encode(&mut engine, count, seed, want);
    while encode.advance(&mut engine, &mut || true).unwrap() != Poll::Done {}
    rows(encode)
}

/// Everything to its end; gives how many chunks each satellite did.
fn drive(
    encode: &mut Encode<Reference>,
    engine: &mut Engine<Reference>,
    crew: &mut [Satellite<Reference>],
) -> Vec<usize> {
    let mut did = vec![0; crew.len()];
    loop {
        for (s, satellite) in crew.iter_mut().enumerate() {
            while let Some(parcel) = encode.share(engine, s).unwrap() {
                satellite.take(&parcel).unwrap();
            }
            if let Some(answer) = satellite.advance(&mut || true).unwrap() {
                did[s] += 1;
                assert!(encode.take_in(engine, &answer.to_bytes()).unwrap());
            }
        }
        let poll = encode.advance(engine, &mut || true).unwrap();
        let idle = crew.iter().all(Satellite::is_idle);
        match poll {
            Poll::Done => {
                assert!(idle, "done while a satellite is at work");
                return did;
            }
            Poll::Waiting => assert!(!idle, "nobody will answer"),
            Poll::More => {}
        }
    }
}

#[test]
fn rows_have_the_same_bits_wherever_they_ran() {
    for seed in 0..6 {
        for want in [ALL, Want { embedding: true, ..Want::default() }, Want { logits: true, ..Want::default() }] {
            let expected = alone(seed * 10, 40, want);
            for count in [1, 3] {
                let mut engine = engine(seed * 10);
                engine.set_satellites(count);
                let mut crew: Vec<_> = (0..count).map(|_| satellite(seed * 10)).collect();
                let mut shared = encode(&mut engine, 40, seed * 10, want);
                let did = drive(&mut shared, &mut engine, &mut crew);
                assert!(did.iter().all(|&n| n > 0), "{did:?}");
                assert_eq!(rows(shared), expected, "seed {seed}, {count} satellites");
            }
        }
    }
}

#[test]
fn a_call_with_its_rows_embedded_gives_the_same_bits() {
    for seed in 0..4 {
        let mut engine = engine(seed);
        let known = testing::compositions(&mut engine.session);
        let mut random = Random(seed);
        let batch = Batch::by_row(
            [3, 1, 9, 2, 30].iter().map(|&n| testing::row(engine.session.spec(), n, &mut random)).collect(),
            (0..5).map(|i| known[(i * 3) % known.len()].clone()).collect(),
        );
        let expected = engine.session.run(&batch, ALL, Precision::Exact).unwrap();
        let resolved: Vec<_> = batch.compositions.iter().map(|c| engine.session.resolve(c).unwrap()).collect();
        let refs: Vec<_> = resolved.iter().collect();
        let embedded = engine.session.embed(&batch.rows, &batch.of, &refs).unwrap();
        let session = &mut engine.session;
        let mut begin =
            |values: &[f32]| session.begin_embedded(&batch.rows, &batch.of, &refs, ALL, Precision::Exact, Some(values));
        assert_eq!(begin(&embedded[1..]).err().unwrap().code(), "ARGUMENT");
        let mut job = begin(&embedded).unwrap();
        while session.advance(&mut job, &mut || true).unwrap() != Poll::Done {}
        assert_eq!(session.finish(&job).unwrap(), expected);
    }
}

#[test]
fn what_a_satellite_does_not_do_the_owner_does() {
    let expected = alone(7, 40, ALL);
    let mut engine = engine(7);
    engine.set_satellites(2);
    let mut shared = encode(&mut engine, 40, 7, ALL);
    // Nothing to share yet: this orders the rows.
    assert_eq!(shared.advance(&mut engine, &mut || false).unwrap(), Poll::More);
    let mut lost = Vec::new();
    while let Some(parcel) = shared.share(&mut engine, 0).unwrap() {
        lost.push(parcel);
    }
    assert!(!lost.is_empty());
    // It is at work when it is given up: its answer comes too late.
    let mut late = satellite(7);
    late.take(&lost[0]).unwrap();
    shared.take_back(0);
    while shared.advance(&mut engine, &mut || true).unwrap() == Poll::More {}
    let answer = loop {
        if let Some(answer) = late.advance(&mut || false).unwrap() {
            break answer;
        }
    };
    assert!(!shared.take_in(&mut engine, &answer.to_bytes()).unwrap());
    assert_eq!(shared.advance(&mut engine, &mut || true).unwrap(), Poll::Done);
    assert_eq!(rows(shared), expected);
}

#[test]
fn payloads_are_sent_once_and_forgotten_when_they_are_gone() {
    let mut engine = engine(3);
    engine.set_satellites(1);
    let mut crew = [satellite(3)];
    // Bytes of the first parcel; then all the rest.
    let mut run = |engine: &mut Engine<Reference>| {
        let mut shared = encode(engine, 40, 3, ALL);
        shared.advance(engine, &mut || false).unwrap();
        let first = shared.share(engine, 0).unwrap().unwrap();
        crew[0].take(&first).unwrap();
        drive(&mut shared, engine, &mut crew);
        (first.len(), rows(shared), crew[0].payloads())
    };
    let (whole, outputs, _) = run(&mut engine);
    assert_eq!(outputs, alone(3, 40, ALL));
    let (again, outputs, _) = run(&mut engine);
    assert_eq!(outputs, alone(3, 40, ALL));
    assert!(again < whole, "{again} after {whole}");
    // Another adapter under an old name: its numbers are new.
    let adapter = testing::adapter(engine.session.spec(), 99);
    engine.session.graft("a", adapter, Graft::default()).unwrap();
    let (_, changed, held) = run(&mut engine);
    assert_ne!(changed, outputs);
    engine.session.ungraft("b").unwrap();
    let fewer = run(&mut engine).2;
    assert!(fewer < held, "{fewer} payloads after {held}");
    for name in ["a", "c", "d", "e", "f", "g", "fusion"] {
        engine.session.ungraft(name).unwrap();
    }
    assert_eq!(run(&mut engine).2, 0);
}

#[test]
fn small_work_stays_here() {
    let mut engine = engine(5);
    engine.set_satellites(1);
    let mut shared = encode(&mut engine, 1, 5, ALL);
    assert_eq!(drive(&mut shared, &mut engine, &mut [satellite(5)]), [0]);
}

#[test]
fn a_head_on_the_word_table_stays_here() {
    let (mut spec, _): (ModelSpec, _) =
        testing::model(Dims { hidden: 8, heads: 2, ffn: 8, layers: 1, vocab: 9, scheme: Scheme::F32 }, 1);
    assert!(share::fits(&spec, ALL));
    let word = spec.embeddings.word;
    spec.linears.values_mut().for_each(|l| l.weight = word);
    assert!(!share::fits(&spec, ALL) && share::fits(&spec, Want { embedding: true, ..Want::default() }));
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let mut engine = engine(9);
    engine.set_satellites(1);
    let mut shared = encode(&mut engine, 40, 9, ALL);
    shared.advance(&mut engine, &mut || false).unwrap();
    let parcel = shared.share(&mut engine, 0).unwrap().unwrap();
    let mut satellite = satellite(9);
    let step = parcel.len() / 200 + 1;
    for cut in (0..parcel.len()).step_by(step) {
        assert_eq!(satellite.take(&parcel[..cut]).unwrap_err().code(), "INTERNAL");
        let mut changed = parcel.clone();
        changed[cut] ^= 0x55;
        // Another number, or an error: never a panic.
        let _ = satellite.take(&changed).and_then(|()| satellite.advance(&mut || true).map(drop));
        satellite.clear();
    }
    assert_eq!(Answer::from_bytes(&[1, 0, 0]).unwrap_err().code(), "INTERNAL");
    assert_eq!(shared.take_in(&mut engine, &parcel).unwrap_err().code(), "INTERNAL");
}
