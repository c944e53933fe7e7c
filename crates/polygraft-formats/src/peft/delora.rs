//! DeLoRA: a LoRA whose directions have unit norm and whose strength is bounded:
//! `ΔW = B diag(λ / (r ‖aₖ‖ ‖bₖ‖)) A diag(‖w‖)`, the norms of the base's columns stored.

use super::family::{Family, Reader};
use super::reading::Reading;
use crate::dense::{scale_cols, scale_rows};
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["r", "rank_pattern"],
    // The strength is a tensor.
    silent: &["delora_lambda", "init_weights", "lambda_pattern", "module_dropout"],
    markers: &[".delora_"],
    ops: "low-rank",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("DELORA", "delora", "DeLoRA (Bini et al. 2025, arXiv 2503.18225)")
};

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "ranks are small; factors are f32")]
fn load(r: &mut Reading<'_>) -> Result<()> {
    let (rank, ranks) = (r.config.count("r", 8)?, r.config.counts_by_pattern("rank_pattern")?);
    for t in r.targets()? {
        let rank = ranks.at(&t.module)?.unwrap_or(rank);
        let a = r.take(&t, "delora_A", &[rank, t.cols])?;
        let b = r.take(&t, "delora_B", &[t.rows, rank])?;
        let lambda = r.take(&t, "delora_lambda", &[1])?;
        let norms = r.take(&t, "delora_w_norm", &[t.cols])?;
        let Some(((mut a, b), (lambda, norms))) = a.zip(b).zip(lambda.zip(norms)) else { continue };
        let length = |squares: f64| squares.sqrt().max(1e-4);
        let factors: Vec<f32> = (0..rank)
            .map(|k| {
                let row = length(a[k * t.cols..(k + 1) * t.cols].iter().map(|x| f64::from(*x).powi(2)).sum());
                let column = length((0..t.rows).map(|i| f64::from(b[i * rank + k]).powi(2)).sum());
                (f64::from(lambda[0]) / rank as f64 / (row * column)) as f32
            })
            .collect();
        scale_rows(&mut a, t.cols, &factors);
        scale_cols(&mut a, &norms);
        r.low_rank(&t, a, b, None, 1.0);
    }
    Ok(())
}
