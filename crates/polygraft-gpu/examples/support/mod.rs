//! What the benches of this folder share.

use polygraft::Result;
use polygraft::backend::Backend;
use polygraft::model::WeightId;
use polygraft::session::{Batch, Session};
use polygraft::tensor::Scheme;
use polygraft::testing::{self, Dims, Random};
use polygraft_gpu::{Gpu, GpuBackend};

/// A base of `layers` layers of multilingual-e5-small's size with random 4-bit weights, and `rows` of `tokens` for it.
pub(crate) fn model(layers: u16, rows: usize, tokens: usize) -> Result<(Session<GpuBackend>, Batch)> {
    let dims = Dims { hidden: 384, heads: 12, ffn: 1536, layers, vocab: 50, scheme: Scheme::Q4_0 };
    let (spec, weights) = testing::model(dims, 1);
    let mut backend = GpuBackend::open()?;
    for (i, w) in weights.into_iter().enumerate() {
        backend.load_weight(WeightId(i as u32), w)?;
    }
    let session = Session::new(spec, backend)?;
    let mut random = Random(5);
    let list = (0..rows).map(|_| testing::row(session.spec(), tokens, &mut random)).collect();
    Ok((session, Batch::uniform(list, "base".parse()?)))
}

/// The kernels of linear layers.
pub(crate) fn linear() -> impl Iterator<Item = &'static str> {
    Gpu::variants().into_iter().filter(|name| name.starts_with("linear"))
}
