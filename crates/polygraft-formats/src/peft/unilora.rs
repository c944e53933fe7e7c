//! UniLoRA: a LoRA every number of which is one of a short vector's, which one being drawn by chance: `A = θ[i] / √n[i]`,
//! `n` being how often a number is used in the whole adapter.

use super::config::bad;
use super::family::{Family, Reader};
use super::projections::MOST;
use super::reading::{Reading, Target};
use crate::error::Result;
use crate::maths::numpy_random::NumpyRandom;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["proj_seed", "r", "save_indices", "theta_d_length"],
    silent: &["init_theta_d_bound", "init_weights", "unilora_dropout"],
    markers: &[".unilora_"],
    ops: "low-rank",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("UNILORA", "unilora", "Uni-LoRA (Li et al. 2025, arXiv 2506.00799)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let (rank, length) = (r.config.count("r", 4)?, r.config.count("theta_d_length", 256)?);
    let Some(theta) = r.shared("unilora_theta_d", &[length])? else { return Ok(()) };
    if r.config.flag("save_indices", false)? {
        for t in r.targets()? {
            let a = stored(r, &t, "A", [rank, t.cols], &theta)?;
            let b = stored(r, &t, "B", [t.rows, rank], &theta)?;
            let Some((a, b)) = a.zip(b) else { continue };
            r.low_rank(&t, a, b, None, 1.0);
        }
        return Ok(());
    }
    let targets = r.every_target()?;
    let mut sizes = targets.iter().map(|t| (t.rows + t.cols).checked_mul(rank));
    let count = sizes.try_fold(0usize, |sum, n| sum.checked_add(n?)).filter(|n| *n <= MOST);
    let Some(count) = count else { return Err(bad("r", format!("it asks for more than {MOST} random numbers"))) };
    let indices = assigned(count, length, r.config.seed("proj_seed", 42)?);
    let mut uses = vec![0u32; length];
    indices.iter().for_each(|i| uses[*i as usize] += 1);
    #[allow(clippy::cast_possible_truncation, reason = "the numbers are f32 in torch")]
    let scaled = |i: &u32| theta[*i as usize] * (1.0 / f64::from(uses[*i as usize]).sqrt()) as f32;
    let mut rest = &indices[..];
    for t in targets {
        let (a, after) = rest.split_at_checked(rank * t.cols).unwrap_or_default();
        let (b, after) = after.split_at_checked(rank * t.rows).unwrap_or_default();
        rest = after;
        if !r.is_there(&t) {
            continue;
        }
        r.low_rank(&t, a.iter().map(scaled).collect(), b.iter().map(scaled).collect(), None, 1.0);
    }
    Ok(())
}

fn stored(r: &mut Reading<'_>, t: &Target, which: &str, shape: [usize; 2], theta: &[f32]) -> Result<Option<Vec<f32>>> {
    let name = format!("unilora_indices_{which}");
    let places = r.places(t, &name, &shape)?;
    let scales = r.take(t, &format!("unilora_scales_{which}"), &shape)?;
    let Some((places, scales)) = places.zip(scales) else { return Ok(None) };
    let values: Option<Vec<f32>> = places.iter().zip(scales).map(|(i, s)| Some(theta.get(*i)? * s)).collect();
    let beyond = || r.wrong(t, &name, &format!("places in {} numbers", theta.len()), "one beyond");
    values.map(Some).ok_or_else(beyond)
}

/// `UniLoraModel.generate_index`: every place of `length` equally often, those left over by choice, then all shuffled.
#[allow(clippy::cast_possible_truncation, reason = "lengths are at most 65 536")]
fn assigned(count: usize, length: usize, seed: u64) -> Vec<u32> {
    let mut random = NumpyRandom::new(seed);
    let mut out: Vec<u32> = (0..length).flat_map(|i| std::iter::repeat_n(i as u32, count / length)).collect();
    let left = count % length;
    if left > 0 {
        let extras = random.choice(length as u64, left).unwrap_or_default();
        out.extend(extras.into_iter().map(|i| i as u32));
    }
    random.shuffle(&mut out);
    out
}
