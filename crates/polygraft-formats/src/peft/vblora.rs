//! VB-LoRA: a LoRA whose factors are put together of vectors from a bank that all layers share, each piece the mix of
//! the few vectors with the largest logits.

use super::config::bad;
use super::family::{Defaults, Family, Reader};
use super::reading::{Reading, Target};
use crate::dense::transposed;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["num_vectors", "r", "save_only_topk_weights", "topk", "vector_length"],
    silent: &["init_logits_std", "init_vector_bank_bound", "vblora_dropout"],
    markers: &[".vblora_"],
    targets: Some(VBLORA),
    ops: "low-rank",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("VBLORA", "vb-lora", "VB-LoRA (Li et al. 2024, arXiv 2405.15179)")
};

const VBLORA: Defaults = &[
    ("bert", &["query", "value"]),
    ("roberta", &["query", "value"]),
    ("deberta-v2", &["query_proj", "key_proj", "value_proj", "dense"]),
];

fn load(r: &mut Reading<'_>) -> Result<()> {
    let (rank, count) = (r.config.count("r", 4)?, r.config.count("num_vectors", 256)?);
    let (length, top) = (r.config.count("vector_length", 256)?, r.config.count("topk", 2)?);
    let weights_only = r.config.flag("save_only_topk_weights", false)?;
    if top > count {
        return Err(bad("topk", format!("{top} is more than the {count} vectors")));
    }
    let Some(bank) = r.shared("vblora_vector_bank", &[count, length])? else { return Ok(()) };
    for t in r.targets()? {
        if !t.rows.is_multiple_of(length) || !t.cols.is_multiple_of(length) {
            let why = format!("{length} does not divide the {} × {} of {}", t.rows, t.cols, t.path);
            return Err(bad("vector_length", why));
        }
        let (down, across) = (t.rows / length, t.cols / length);
        let mut pieces = |name, shape| {
            let mixes = if weights_only {
                stored(r, &t, name, shape, top, count)?
            } else {
                largest(r, &t, name, shape, top, count)?
            };
            Ok::<_, crate::error::FormatError>(mixes.map(|mixes| mixed(&mixes, &bank, length)))
        };
        let a = pieces("vblora_logits_A", [rank, across])?;
        let b = pieces("vblora_logits_B", [down, rank])?;
        let Some((a, b)) = a.zip(b) else { continue };
        // [down, rank, length] to [down, length, rank].
        let b = b.chunks_exact(rank * length).flat_map(|b| transposed(b, length)).collect();
        r.low_rank(&t, a, b, None, 1.0);
    }
    Ok(())
}

/// A vector of the bank with its weight, `topk` to a piece.
type Mixes = Vec<Vec<(usize, f64)>>;

/// The largest logits of each piece through a softmax.
fn largest(
    r: &mut Reading<'_>,
    t: &Target,
    name: &str,
    [n, m]: [usize; 2],
    top: usize,
    count: usize,
) -> Result<Option<Mixes>> {
    let piece = |logits: &[f32]| {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        order.truncate(top);
        let most = f64::from(logits[order[0]]);
        let e: Vec<f64> = order.iter().map(|i| (f64::from(logits[*i]) - most).exp()).collect();
        let sum: f64 = e.iter().sum();
        order.into_iter().zip(e.into_iter().map(|e| e / sum)).collect()
    };
    Ok(r.take(t, name, &[n, m, count])?.map(|logits| logits.chunks_exact(count).map(piece).collect()))
}

/// Stored weights, of which the last is what is missing to 1.
fn stored(
    r: &mut Reading<'_>,
    t: &Target,
    name: &str,
    [n, m]: [usize; 2],
    top: usize,
    count: usize,
) -> Result<Option<Mixes>> {
    let places = r.places(t, &format!("{name}_topk_indices"), &[n, m, top])?;
    let weights = r.take(t, &format!("{name}_topk_weights"), &[n, m, top - 1])?;
    let Some((places, weights)) = places.zip(weights) else { return Ok(None) };
    if let Some(beyond) = places.iter().find(|p| **p >= count) {
        let expected = format!("numbers of {count} vectors");
        return Err(r.wrong(t, &format!("{name}_topk_indices"), &expected, &beyond.to_string()));
    }
    let piece = |(i, places): (usize, &[usize])| {
        let mut w: Vec<f64> = weights[i * (top - 1)..][..top - 1].iter().map(|w| f64::from(*w)).collect();
        w.push(1.0 - w.iter().sum::<f64>());
        places.iter().copied().zip(w).collect()
    };
    Ok(Some(places.chunks_exact(top).enumerate().map(piece).collect()))
}

fn mixed(mixes: &Mixes, bank: &[f32], length: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; length];
    let mut out = Vec::with_capacity(mixes.len() * length);
    for mix in mixes {
        sums.fill(0.0);
        for (vector, weight) in mix {
            let vector = &bank[vector * length..][..length];
            sums.iter_mut().zip(vector).for_each(|(s, v)| *s += weight * f64::from(*v));
        }
        #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
        out.extend(sums.iter().map(|s| *s as f32));
    }
    out
}
