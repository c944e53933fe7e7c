//! Lily: a low-rank update whose second factor is mixed of several, in proportions that a router makes of the row.

use super::family::{Family, Reader};
use super::reading::Reading;
use crate::dense::transposed;
use crate::error::Result;
use polygraft::ir::{LowRank, MixedLowRank, Mixing, Op, Site};
use polygraft::tensor::Matrix;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["num_B", "r", "scaling"],
    // Which layers share a first factor: each has its copy in the file.
    silent: &["init_weights", "stride_A"],
    markers: &[".lily_"],
    ops: "mixed low-rank",
    merges: false,
    base: false,
    reader: Reader::Load(load),
    ..Family::new("LILY", "lily", "Lily (Zhong et al. 2024, arXiv 2407.09946)")
};

#[allow(clippy::cast_possible_truncation, reason = "scales are f32")]
fn load(r: &mut Reading<'_>) -> Result<()> {
    let (rank, experts) = (r.config.count("r", 32)?, r.config.count("num_B", 2)?);
    let scale = r.config.number("scaling", 1.0)? as f32;
    for t in r.targets()? {
        let a = r.take(&t, "lily_A.weight", &[rank, t.cols])?;
        let b = r.take(&t, "lily_B.weight", &[experts * rank, t.rows])?;
        let router = r.take(&t, "lily_router.weight", &[experts, rank])?;
        let Some(((a, b), router)) = a.zip(b).zip(router) else { continue };
        let a = Matrix::dense(rank, t.cols, a);
        let b = Matrix::dense(t.rows, experts * rank, transposed(&b, t.rows));
        if let Some(((a, b), router)) = a.zip(b).zip(Matrix::dense(experts, rank, router)) {
            let lora = LowRank { a, b, bias: None, scale };
            let op = MixedLowRank { lora, mixing: Mixing::Route(router) };
            r.patch(Site::Linear(t.site), Op::MixedLowRank(Box::new(op)));
        }
    }
    Ok(())
}
