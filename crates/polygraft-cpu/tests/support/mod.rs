//! Random sessions and batches for the conformance tests.

use polygraft::backend::Backend;
use polygraft::model::WeightId;
use polygraft::plan::Want;
use polygraft::reference::Reference;
use polygraft::session::{Batch, RowOutput, Session};
use polygraft::tensor::Scheme;
use polygraft::testing::{self, Dims, Random};

/// Every output there is.
pub(crate) const ALL: Want = Want { hidden: true, embedding: true, logits: true };

/// One random model with its adapters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// The model's sizes.
    pub(crate) dims: Dims,
    /// Of everything random.
    pub(crate) seed: u64,
}

impl Case {
    /// Two layers of these widths.
    pub(crate) fn new(scheme: Scheme, hidden: usize, heads: usize, ffn: usize, seed: u64) -> Self {
        Self { dims: Dims { hidden, heads, ffn, layers: 2, vocab: 50, scheme }, seed }
    }

    /// The oracle, without weights.
    pub(crate) fn oracle(&self) -> Reference {
        Reference::new()
    }

    /// Rows of odd lengths under random compositions; every third case is a single row.
    pub(crate) fn batch<B: Backend>(&self, session: &mut Session<B>) -> Batch {
        let mut random = Random(self.seed ^ 77);
        let known = testing::compositions(session);
        let lengths: &[usize] =
            if self.seed.is_multiple_of(3) { &[13] } else { &[1, 2, 3, 7, 1, 17, 33, 5, 64, 8, 31] };
        let rows = lengths.iter().map(|&n| testing::row(session.spec(), n, &mut random)).collect();
        Batch::by_row(rows, lengths.iter().map(|_| known[random.below(known.len())].clone()).collect())
    }
}

/// Schemes by odd widths. Blocks need inputs in multiples of 32.
pub(crate) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for seed in 0..3 {
        for scheme in [Scheme::F32, Scheme::F16, Scheme::Bf16] {
            out.push(Case::new(scheme, 40, 5, 52, seed));
            out.push(Case::new(scheme, 27, 3, 17, seed + 10));
        }
        for scheme in [Scheme::Q8_0, Scheme::Q4_0] {
            out.push(Case::new(scheme, 32, 4, 96, seed));
            out.push(Case::new(scheme, 96, 3, 160, seed + 10));
        }
    }
    out
}

/// The case's model with random adapters.
pub(crate) fn session<B: Backend>(mut backend: B, case: &Case) -> Session<B> {
    let (spec, weights) = testing::model(case.dims, case.seed);
    for (i, w) in weights.into_iter().enumerate() {
        backend.load_weight(WeightId(i as u32), w).expect("random cases are valid");
    }
    let mut session = Session::new(spec, backend).expect("random cases are valid");
    testing::graft(&mut session, case.seed * 10).expect("random cases are valid");
    session
}

/// The largest absolute difference between two rows' outputs; infinite when they have not the same.
pub(crate) fn distance(a: &RowOutput, b: &RowOutput) -> f32 {
    let values = |r: &RowOutput| {
        [r.hidden.clone(), r.embedding.clone(), r.logits.as_ref().map(|l| l.values.clone())]
            .map(Option::unwrap_or_default)
    };
    let (a, b) = (values(a).concat(), values(b).concat());
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
