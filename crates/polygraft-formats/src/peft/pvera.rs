//! PVeRA: a VeRA that learns a mean and a variance. The mean alone is used at inference, unless the configuration asks
//! for noise.

use super::config::bad;
use super::family::{Family, Reader};
use super::projections::Projections;
use super::reading::Reading;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["projection_prng_key", "r", "sample_at_inference", "save_projection"],
    silent: &["d_initial", "generator_seed", "init_weights", "pvera_dropout"],
    markers: &[".pvera_"],
    ops: "low-rank",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("PVERA", "pvera", "PVeRA (probabilistic vector-based random matrix adaptation)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let rank = r.config.count("r", 256)?;
    if r.config.flag("sample_at_inference", false)? {
        let why = "it adds noise at inference, new at every call: no two runs of PEFT give the same; without it the mean \
                   is used";
        return Err(bad("sample_at_inference", why));
    }
    let targets = r.targets()?;
    let names = ["pvera_A", "pvera_B"];
    let Some(shared) = Projections::read(r, names, 2 * rank, rank, &targets)? else { return Ok(()) };
    for t in targets {
        let d = r.take(&t, "pvera_lambda_d", &[2 * rank])?;
        let b = r.take(&t, "pvera_lambda_b", &[t.rows])?;
        let Some((d, b)) = d.zip(b) else { continue };
        // Their second halves are the variance's.
        r.low_rank(&t, shared.a(&t, &d), shared.b(&t, &b), None, 1.0);
    }
    Ok(())
}
