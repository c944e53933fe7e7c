//! TinyLoRA: the update within the largest singular vectors of the weight, `B R A`, with an `R` that few numbers make:
//! `R = Σ vᵢ Pᵢ`, the `Pᵢ` random, the `v` of several layers' own.

use super::config::bad;
use super::family::{Family, Reader};
use super::projections::check_size;
use super::reading::{Named, Reading};
use super::rows::LowRankRows;
use crate::dense::{product, transposed};
use crate::error::{FormatError, Result};
use crate::maths::torch_random::TorchRandom;
use crate::names::Part;
use polygraft::ir::{LinearSite, Meeting, Site};

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["projection_seed", "r", "save_projection", "u", "weight_tying"],
    silent: &["init_v_bound", "init_weights", "tinylora_dropout"],
    markers: &[".tinylora_"],
    ops: "low-rank, change of embeddings",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("TINYLORA", "tinylora", "TinyLoRA (learning to reason in 13 parameters)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let (rank, u) = (r.config.count("r", 2)?, r.config.count("u", 64)?);
    let saved = r.config.flag("save_projection", true)?;
    let seed = r.config.seed("projection_seed", 42)?;
    // Vectors and seeds are given out in the order in which a model has its modules: the tables of words, the layers, the
    // table of relative positions, which counts even where the library does not run what wraps it, and what follows.
    let relatives = r.parts()?.iter().filter(|(_, part)| *part == Part::Relative).count();
    let (relative, mut tables): (Vec<_>, Vec<_>) = r.tables()?.into_iter().partition(|t| t.site == Site::Relative);
    tables.sort_by_key(|t| t.site);
    let targets = r.every_target()?;
    let (first, count) = (tables.len(), tables.len() + relatives + targets.len());
    let inside = |site| matches!(site, LinearSite::Embedding | LinearSite::Patches | LinearSite::Layer(..));
    let layers = targets.iter().filter(|t| inside(t.site)).count();
    let group = groups(count, r.config.number("weight_tying", 0.0)?)?;
    let last = count.checked_sub(1).map_or(0, &group);
    let mut vectors = Vec::new();
    for i in 0..=last {
        let Some(v) = r.shared(&format!("tinylora_v.{i}"), &[u])? else { return Ok(()) };
        vectors.push(v);
    }
    let factors = |r: &mut Reading<'_>, i: usize, t: &dyn Named, (rows, cols): (usize, usize)| {
        let rank = rank.min(rows).min(cols);
        let a = r.take(t, "tinylora_A", &[rank, cols])?;
        let b = r.take(t, "tinylora_B", &[rows, rank])?;
        let p = if saved {
            r.take(t, "tinylora_P", &[u, rank, rank])?
        } else {
            check_size("u", &[u, rank, rank])?;
            r.ignore(t, "tinylora_P");
            Some(drawn(seed.wrapping_add(i as u64), u, rank))
        };
        let found = a.zip(b).zip(p.zip(vectors.get(group(i))));
        Ok::<_, FormatError>(
            found.map(|((a, b), (p, v))| (a, product(&b, &product(v, &p, u, rank * rank), rank, rank))),
        )
    };
    let relative = relative.into_iter().map(|t| (first + layers, t));
    for (i, t) in tables.into_iter().enumerate().chain(relative) {
        let Some((a, b)) = factors(r, i, &t, (t.rows, t.cols))? else { continue };
        let rank = rank.min(t.rows).min(t.cols);
        let low_rank = LowRankRows { a: transposed(&b, rank), b: transposed(&a, t.cols), rank, rows: t.rows };
        r.rewords(&t, low_rank.held(), Meeting::Adds, move |id, row| {
            row.iter_mut().zip(low_rank.at(id)).for_each(|(x, d)| *x += d);
        });
    }
    for (i, t) in targets.into_iter().enumerate() {
        // It counts even where nothing reads it.
        if !r.is_there(&t) {
            continue;
        }
        let i = first + i + if i < layers { 0 } else { relatives };
        if let Some((a, b)) = factors(r, i, &t, (t.rows, t.cols))? {
            r.low_rank(&t, a, b, None, 1.0);
        }
    }
    Ok(())
}

/// Which of the vectors the i-th of `count` layers has: as many layers to each as `tying` says.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few layers")]
fn groups(count: usize, tying: f64) -> Result<impl Fn(usize) -> usize> {
    if !(0.0..=1.0).contains(&tying) {
        return Err(bad("weight_tying", format!("{tying} is not between 0 and 1")));
    }
    let groups = ((count as f64 * (1.0 - tying)).round_ties_even() as usize).max(1);
    let size = (count / groups).max(1);
    Ok(move |i: usize| (i / size).min(groups - 1))
}

/// `torch.normal(0, 1/√r, (u, r, r))` of the layer's own seed.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the numbers are f32 in torch")]
fn drawn(seed: u64, u: usize, rank: usize) -> Vec<f32> {
    TorchRandom::new(seed).normal(u * rank * rank, 0.0, (1.0 / (rank as f64).sqrt()) as f32)
}
