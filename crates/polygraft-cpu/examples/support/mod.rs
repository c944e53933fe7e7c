//! The model and batch of the benchmarks: 12 layers of hidden 384 and ffn 1536, 4-bit weights, rows of 64 tokens.

use polygraft::backend::{Backend, Precision};
use polygraft::model::WeightId;
use polygraft::plan::Want;
use polygraft::session::{Batch, Session};
use polygraft::tensor::Scheme;
use polygraft::testing::{self, Dims, Random};
use polygraft_cpu::Cpu;

/// Tokens of a row.
pub(crate) const TOKENS: usize = 64;

/// The benchmark's model on the CPU backend.
pub(crate) fn session() -> Session<Cpu> {
    let dims = Dims { hidden: 384, heads: 12, ffn: 1536, layers: 12, vocab: 1000, scheme: Scheme::Q4_0 };
    let (spec, weights) = testing::model(dims, 1);
    let mut backend = Cpu::new();
    for (i, weight) in weights.into_iter().enumerate() {
        backend.load_weight(WeightId(i as u32), weight).expect("a weight loads");
    }
    Session::new(spec, backend).expect("all weights are there")
}

/// `rows` rows without adapters.
pub(crate) fn batch(session: &Session<Cpu>, rows: usize) -> Batch {
    let mut random = Random(2);
    let rows = (0..rows).map(|_| testing::row(session.spec(), TOKENS, &mut random)).collect();
    Batch::uniform(rows, polygraft::Compose::Base)
}

/// Sum of the embeddings, so that nothing is optimised away.
pub(crate) fn run(session: &mut Session<Cpu>, batch: &Batch, precision: Precision) -> f32 {
    let want = Want { embedding: true, ..Want::default() };
    let rows = session.run(batch, want, precision).expect("the batch runs");
    rows.iter().flat_map(|r| r.embedding.iter().flatten()).sum()
}
