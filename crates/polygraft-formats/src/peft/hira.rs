//! HiRA: the base's weight times a low-rank matrix, element by element: `ΔW = W ∘ (B A)`.

use super::family::{Family, Reader};
use super::reading::Reading;
use super::rows::LowRankRows;
use crate::dense::product;
use crate::error::Result;
use polygraft::ir::Meeting;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    // PEFT 0.21 ignores the pattern when a module gets its first adapter: the rank is the tensors'.
    silent: &["hira_dropout", "init_weights", "r", "rank_pattern"],
    markers: &[".hira_"],
    reader: Reader::Load(load),
    ..Family::new("HIRA", "hira", "HiRA (Huang et al. 2025)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    for t in r.targets()? {
        let rank = r.shape(&t, "hira_A").and_then(|s| s.first().copied()).unwrap_or(0);
        let a = r.take(&t, "hira_A", &[rank, t.cols])?;
        let b = r.take(&t, "hira_B", &[t.rows, rank])?;
        let Some((a, b)) = a.zip(b) else { continue };
        r.adds(&t, a.len() + b.len(), move |layer| {
            let factors = product(&b, &a, rank, layer.cols);
            layer.weight.iter_mut().zip(&factors).for_each(|(w, f)| *w += *w * f);
            Ok(())
        });
    }
    for t in r.tables()? {
        let rank = r.shape(&t, "hira_embedding_A").and_then(|s| s.first().copied()).unwrap_or(0);
        let a = r.take(&t, "hira_embedding_A", &[rank, t.rows])?;
        let b = r.take(&t, "hira_embedding_B", &[t.cols, rank])?;
        let Some((a, b)) = a.zip(b) else { continue };
        let low_rank = LowRankRows { a, b, rank, rows: t.rows };
        r.rewords(&t, low_rank.held(), Meeting::Adds, move |id, row| {
            row.iter_mut().zip(low_rank.at(id)).for_each(|(x, f)| *x += *x * f);
        });
    }
    Ok(())
}
