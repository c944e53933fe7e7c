//! Laws that hold for any model, adapters and batch, on the oracle; and the shape of the backend seam.

#![allow(clippy::unwrap_used, reason = "tests")]

use polygraft::backend::{Backend, Call, Poll, Precision};
use polygraft::ir::{AdapterIr, BlockSite, Bottleneck, Graft, Norm, NormSite, Op, Patch, PayloadId, RowChange, Site};
use polygraft::model::{ModelSpec, Side, WeightId};
use polygraft::plan::Want;
use polygraft::program::BufferId;
use polygraft::reference::Reference;
use polygraft::session::{Batch, RowOutput, Session};
use polygraft::tensor::{Matrix, Scheme};
use polygraft::testing::{self, Dims, Random};
use polygraft::{Compose, Result};

const ALL: Want = Want { hidden: true, embedding: true, logits: true };

fn session<B: Backend>(mut backend: B, seed: u64) -> Session<B> {
    let dims = Dims { hidden: 40, heads: 5, ffn: 52, layers: 2, vocab: 50, scheme: Scheme::F32 };
    let (spec, weights) = testing::model(dims, seed);
    for (i, w) in weights.into_iter().enumerate() {
        backend.load_weight(WeightId(i as u32), w).unwrap();
    }
    let mut session = Session::new(spec, backend).unwrap();
    testing::graft(&mut session, seed + 1).unwrap();
    session
}

fn batch(session: &mut Session<Reference>, seed: u64) -> Batch {
    let mut random = Random(seed);
    let known = testing::compositions(session);
    let lengths = [1, 2, 3, 7, 1, 17, 33, 5];
    let rows = lengths.iter().map(|&n| testing::row(session.spec(), n, &mut random)).collect();
    let composes = lengths.iter().map(|_| known[random.below(known.len())].clone()).collect();
    Batch::by_row(rows, composes)
}

fn alone(session: &mut Session<Reference>, batch: &Batch, row: usize) -> RowOutput {
    let one = Batch::uniform(vec![batch.rows[row].clone()], batch.compositions[batch.of[row]].clone());
    session.run(&one, ALL, Precision::Exact).unwrap().remove(0)
}

#[test]
fn a_row_is_the_same_alone_and_in_any_batch() {
    for seed in 0..12 {
        let mut s = session(Reference::new(), seed * 10);
        let batch = batch(&mut s, seed);
        let together = s.run(&batch, ALL, Precision::Exact).unwrap();
        for (i, row) in together.iter().enumerate() {
            assert_eq!(*row, alone(&mut s, &batch, i), "seed {seed} row {i}");
        }
    }
}

#[test]
fn scale_zero_is_the_base_and_a_sum_of_one_is_itself() {
    let mut s = session(Reference::new(), 3);
    let row = testing::row(s.spec(), 9, &mut Random(1));
    let mut run = |text: &str| {
        let batch = Batch::uniform(vec![row.clone()], text.parse().unwrap());
        s.run(&batch, Want { hidden: true, ..Want::default() }, Precision::Exact).unwrap()
    };
    let additive = ["a", "b", "c"].into_iter().find(|n| {
        let text = format!("{n}:0");
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&text))).is_ok()
    });
    let name = additive.expect("one of three random adapters only adds");
    assert_eq!(run(&format!("{name}:0")), run("base"));
    assert_eq!(run(&format!("sum({name})")), run(name));
    assert_ne!(run(name), run("base"));
}

#[test]
fn embeddings_shift_the_same_in_the_program_and_after_it() {
    for seed in 0..8 {
        let mut s = session(Reference::new(), seed * 7 + 100);
        let row = testing::row(s.spec(), 6, &mut Random(seed));
        for compose in testing::compositions(&mut s) {
            let want = Want { embedding: true, ..Want::default() };
            let whole = s.run(&Batch::uniform(vec![row.clone()], compose.clone()), want, Precision::Exact).unwrap();
            let resolved = s.resolve(&compose).unwrap();
            let backbone = resolved.backbone();
            let mut job =
                s.begin_resolved(std::slice::from_ref(&row), &[0], &[&backbone], want, Precision::Exact).unwrap();
            while s.advance(&mut job, &mut || true).unwrap() != Poll::Done {}
            let mut embedding = s.finish(&job).unwrap().remove(0).embedding.unwrap();
            resolved.shift(&mut embedding, Side::Document);
            assert_eq!(whole[0].embedding.as_ref().unwrap(), &embedding, "{compose}");
        }
    }
}

#[test]
fn unloading_in_mid_call_changes_nothing() {
    let mut s = session(Reference::new(), 5);
    let batch = Batch::uniform(vec![testing::row(s.spec(), 9, &mut Random(2))], "a".parse().unwrap());
    let want = s.run(&batch, ALL, Precision::Exact).unwrap();
    let mut job = s.begin(&batch, ALL, Precision::Exact).unwrap();
    s.advance(&mut job, &mut || true).unwrap();
    s.ungraft("a").unwrap();
    while s.advance(&mut job, &mut || true).unwrap() != Poll::Done {}
    assert_eq!(s.finish(&job).unwrap(), want);
    assert_eq!(s.begin(&batch, ALL, Precision::Exact).err().unwrap().code(), "ADAPTER_UNKNOWN");
}

/// A backend on the far side of a wire: all that crosses the seam is plain data, as a GPU or a Worker needs it.
/// It records weights and calls, and replays them on an oracle of its own.
#[derive(Default)]
struct Replay {
    weights: Vec<(WeightId, Matrix)>,
    programs_hashed: Vec<u64>,
}

struct Recorded {
    call: Call,
    outputs: Option<Vec<(BufferId, Vec<f32>)>>,
    waited: bool,
}

impl Backend for Replay {
    type Run = Recorded;
    fn name(&self) -> &'static str {
        "gpu"
    }
    fn describe(&self) -> String {
        "replays on the reference".into()
    }
    fn load_weight(&mut self, id: WeightId, matrix: Matrix) -> Result<()> {
        self.weights.push((id, matrix));
        Ok(())
    }
    fn ready(&mut self, _: &ModelSpec) -> Result<()> {
        Ok(())
    }
    fn weight_row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        self.weights.iter().find(|(w, _)| *w == id).unwrap().1.decode_row(row, out);
        Ok(())
    }
    fn forget(&mut self, _: PayloadId) {}
    fn memory(&self) -> usize {
        0
    }
    fn payload_bytes(&self, _: PayloadId) -> usize {
        0
    }
    fn begin(&mut self, call: Call) -> Result<Recorded> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        call.program.hash(&mut hasher);
        self.programs_hashed.push(hasher.finish());
        Ok(Recorded { call, outputs: None, waited: false })
    }
    fn advance(&mut self, run: &mut Recorded, _: &mut dyn FnMut() -> bool) -> Result<Poll> {
        if !std::mem::replace(&mut run.waited, true) {
            return Ok(Poll::Waiting);
        }
        let mut oracle = Reference::new();
        for (id, w) in &self.weights {
            oracle.load_weight(*id, w.clone())?;
        }
        let mut inner = oracle.begin(run.call.clone())?;
        while oracle.advance(&mut inner, &mut || false)? != Poll::Done {}
        let outputs = run.call.program.outputs.iter();
        run.outputs = Some(outputs.map(|o| Ok((o.buffer, oracle.read(&inner, o.buffer)?))).collect::<Result<_>>()?);
        Ok(Poll::Done)
    }
    fn read(&mut self, run: &Recorded, buffer: BufferId) -> Result<Vec<f32>> {
        Ok(run.outputs.as_ref().unwrap().iter().find(|(b, _)| *b == buffer).unwrap().1.clone())
    }
}

#[test]
fn a_program_replays_across_the_seam() {
    let mut near = session(Reference::new(), 11);
    let mut far = session(Replay::default(), 11);
    let batch = batch(&mut near, 4);
    assert_eq!(near.run(&batch, ALL, Precision::Exact).unwrap(), far.run(&batch, ALL, Precision::Exact).unwrap());
    far.run(&batch, ALL, Precision::Exact).unwrap();
    let hashes = &far.backend().programs_hashed;
    assert_eq!(hashes[0], hashes[1], "one set of shapes, one Program");
}

#[test]
fn explain_names_the_adapters() {
    let mut s = session(Reference::new(), 21);
    let batch = batch(&mut s, 9);
    let (call, _, _) = s.prepare(&batch, ALL, Precision::Exact).unwrap();
    let lines = s.explain(&call.program, &call.tables);
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), call.program.steps.len());
    let used: Vec<&str> = batch.compositions.iter().flat_map(Compose::names).collect();
    assert!(used.iter().all(|n| text.iter().any(|l| l.contains(&format!(": {n}")))), "{text:#?}");
    assert!(text.iter().any(|l| l.contains("layer 1 ffn out")));
}

/// The last sub-block's norm and bottleneck see one token at a time: each is as if the whole row took what it takes.
#[test]
fn a_norm_inside_a_bottleneck_is_each_tokens_own() {
    let mut s = session(Reference::new(), 5);
    let (spec, last) = (s.spec().clone(), s.spec().layers - 1);
    let reads_norm = |p: &Patch| {
        let own = |b: &Bottleneck| b.rules.norm_before && !b.rules.parallel && b.gate.is_none();
        p.site == Site::Block(BlockSite::Ffn(last)) && matches!(&p.op, Op::Bottleneck(b) if own(b))
    };
    let bottleneck =
        (0..100).find_map(|seed| testing::layered_adapter(&spec, seed).patches.into_iter().find(reads_norm));
    let mut random = Random(6);
    let mut norm = || {
        let [gamma, beta] = [(); 2].map(|()| Some(random.vec(spec.hidden, 1.0)));
        Patch { site: Site::Norm(NormSite::AfterFfn(last)), op: Op::ReplaceNorm(Norm { gamma, beta }) }
    };
    for (name, patch) in [("n", norm()), ("m", norm()), ("x", bottleneck.unwrap())] {
        let adapter = AdapterIr {
            patches: vec![patch],
            head: None,
            rows: RowChange::default(),
            ..testing::layered_adapter(&spec, 0)
        };
        s.graft(name, adapter, Graft::default()).unwrap();
    }
    let row = testing::row(&spec, 5, &mut random);
    let mut run = |text: &str| {
        let batch = Batch::uniform(vec![row.clone()], text.parse().unwrap());
        let want = Want { hidden: true, ..Want::default() };
        s.run(&batch, want, Precision::Exact).unwrap().remove(0).hidden.unwrap()
    };
    let (split, n, m) = (run("stack(split(n:2, m:*), x)"), run("stack(n, x)"), run("stack(m, x)"));
    let at = 2 * spec.hidden;
    assert_eq!((&split[..at], &split[at..]), (&n[..at], &m[at..]));
    assert_ne!(n, m);
}
