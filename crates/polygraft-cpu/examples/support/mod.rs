//! The model and batches of the benchmarks: 12 layers of hidden 384 and ffn 1536, 4-bit weights.

use polygraft::backend::{Backend, Precision};
use polygraft::ir::{Graft, LayerLinear, LinearSite, Site};
use polygraft::model::WeightId;
use polygraft::plan::Want;
use polygraft::session::{Batch, Session};
use polygraft::tensor::{Matrix, Scheme};
use polygraft::testing::{self, Dims, Random};
use polygraft_cpu::{Clock, Cpu};

/// Longest row.
const POSITIONS: usize = 512;

/// Adapters of a kind.
pub(crate) const ADAPTERS: usize = 8;

/// The benchmark's model on the CPU backend, with adapters `small0`… (rank 8 on query and value), `bits0`… (the same in one
/// bit) and `large0`… (rank 16 on all six).
pub(crate) fn session() -> Session<Cpu> {
    let dims = Dims { hidden: 384, heads: 12, ffn: 1536, layers: 12, vocab: 1000, scheme: Scheme::Q4_0 };
    let (mut spec, mut weights) = testing::model(dims, 1);
    let position = spec.embeddings.position.expect("positions").0 as usize;
    let values = Random(9).vec(POSITIONS * dims.hidden, 0.3);
    weights[position] = Matrix::dense(POSITIONS, dims.hidden, values).expect("the shape fits");
    (spec.max_positions, spec.weights[position].rows) = (POSITIONS, POSITIONS);
    let mut backend = Cpu::new();
    for (i, weight) in weights.into_iter().enumerate() {
        backend.load_weight(WeightId(i as u32), weight).expect("a weight loads");
    }
    let mut session = Session::new(spec, backend).expect("all weights are there");
    for i in 0..ADAPTERS {
        let two = [LayerLinear::Query, LayerLinear::Value];
        let small = testing::lora(session.spec(), i as u64, 8, &two, Scheme::F32);
        let bits = testing::lora(session.spec(), i as u64, 8, &two, Scheme::Code(1));
        let large = testing::lora(session.spec(), i as u64, 16, &LayerLinear::SIX, Scheme::F32);
        session.graft(&format!("small{i}"), small, Graft::default()).expect("it fits");
        session.graft(&format!("bits{i}"), bits, Graft::default()).expect("it fits");
        session.graft(&format!("large{i}"), large, Graft::default()).expect("it fits");
    }
    session
}

/// `rows` rows of `tokens` tokens; 0 tokens: of mixed lengths, as real passages have them (median 90, a few hundred at
/// most). `adapter` is the first part of the adapters' names, shared out to the rows in turn; none when empty.
pub(crate) fn batch(session: &Session<Cpu>, rows: usize, tokens: usize, adapter: &str) -> Batch {
    let mut random = Random(2);
    let mixed = |r: &mut Random| {
        let normal = (0..12).map(|_| f64::from(r.unit())).sum::<f64>() / 2.0;
        ((90f64.ln() + 0.6 * normal).exp() as usize).clamp(8, POSITIONS)
    };
    let lengths: Vec<usize> = (0..rows).map(|_| if tokens == 0 { mixed(&mut random) } else { tokens }).collect();
    let texts =
        (0..rows).map(|i| if adapter.is_empty() { "base".into() } else { format!("{adapter}{}", i % ADAPTERS) });
    let composes = texts.map(|t: String| t.parse().expect("a name")).collect();
    Batch::by_row(lengths.iter().map(|&n| testing::row(session.spec(), n, &mut random)).collect(), composes)
}

/// Sum of the embeddings, so that nothing is optimised away.
pub(crate) fn run(session: &mut Session<Cpu>, batch: &Batch, precision: Precision) -> f32 {
    let want = Want { embedding: true, ..Want::default() };
    let rows = session.run(batch, want, precision).expect("the batch runs");
    rows.iter().flat_map(|r| r.embedding.iter().flatten()).sum()
}

/// Time by kernel in one fast run, as lines.
pub(crate) fn profile(session: &mut Session<Cpu>, batch: &Batch, clock: Clock) -> String {
    session.backend_mut().measure(Some(clock));
    let want = Want { embedding: true, ..Want::default() };
    let mut job = session.begin(batch, want, Precision::Fast).expect("the batch runs");
    while session.advance(&mut job, &mut || false).expect("the batch runs") != polygraft::backend::Poll::Done {}
    session.backend_mut().measure(None);
    let mut sums: Vec<(String, f64)> = Vec::new();
    for timing in job.run().profile() {
        let site = job.call().program.steps[timing.steps.start].origin;
        let site = match site {
            Some(Site::Linear(LinearSite::Layer(layer, which))) => {
                format!("{}{which:?}", if layer == 0 { "first " } else { "" })
            }
            _ => String::new(),
        };
        let name = format!("{} {site}", timing.kernel);
        match sums.iter_mut().find(|(n, _)| *n == name) {
            Some((_, sum)) => *sum += timing.milliseconds,
            None => sums.push((name, timing.milliseconds)),
        }
    }
    let total: f64 = sums.iter().map(|(_, ms)| ms).sum();
    let tokens: usize = batch.rows.iter().map(|r| r.ids.len()).sum();
    let line = |name: &str, ms: f64| {
        format!("{name:<40} {ms:8.2} ms {:5.1} % {:7.1} us/token\n", 100.0 * ms / total, 1e3 * ms / tokens as f64)
    };
    let lines = sums.iter().map(|(name, ms)| line(name, *ms)).chain([line("all", total)]);
    [format!("{}\n", session.backend().describe())].into_iter().chain(lines).collect()
}
