//! VeRA: a LoRA whose factors are random matrices that all layers share, scaled by vectors of each layer's own.

use super::family::{Family, Reader};
use super::projections::Projections;
use super::reading::Reading;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["projection_prng_key", "r", "save_projection"],
    silent: &["d_initial", "init_weights", "vera_dropout"],
    markers: &[".vera_"],
    ops: "low-rank",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("VERA", "vera", "VeRA (Kopiczko et al. 2024, arXiv 2310.11454)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let rank = r.config.count("r", 256)?;
    let targets = r.targets()?;
    let Some(shared) = Projections::read(r, ["vera_A", "vera_B"], rank, rank, &targets)? else { return Ok(()) };
    for t in targets {
        let d = r.take(&t, "vera_lambda_d", &[rank])?;
        let b = r.take(&t, "vera_lambda_b", &[t.rows])?;
        let Some((d, b)) = d.zip(b) else { continue };
        r.low_rank(&t, shared.a(&t, &d), shared.b(&t, &b), None, 1.0);
    }
    Ok(())
}
