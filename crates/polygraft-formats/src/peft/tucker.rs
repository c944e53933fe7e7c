//! A convolution's weight as a core with two factors (Tucker's decomposition), which LyCORIS and PEFT call CP.

use super::reading::{Reading, Target};
use crate::error::Result;

/// `W[o, i, k] = Σ core[p, q, k] a[p, o] b[q, i]`, `[rows, inputs × k]`, of the tensors `core` `[rank, rank, …]`, `a`
/// `[rank, rows]` and `b` `[rank, inputs]`, where the target has them so.
pub(super) fn weight(
    r: &mut Reading<'_>,
    t: &Target,
    names: [&str; 3],
    (rank, rows, cols): (usize, usize, usize),
) -> Result<Option<Vec<f32>>> {
    let [core, a, b] = names;
    // What a convolution sees of one input.
    let seen = r.shape(t, core).map_or(0, |s| s.iter().skip(2).product::<usize>()).max(1);
    let inputs = cols / seen;
    let core = r.take(t, core, &[rank, rank, seen])?;
    let (a, b) = (r.take(t, a, &[rank, rows])?, r.take(t, b, &[rank, inputs])?);
    let Some((core, (a, b))) = core.zip(a.zip(b)).filter(|_| inputs * seen == cols) else { return Ok(None) };
    let mut out = vec![0.0f64; rows * cols];
    for (pq, seen) in core.chunks_exact(seen).enumerate() {
        let (a, b) = (&a[pq / rank * rows..][..rows], &b[pq % rank * inputs..][..inputs]);
        let outer = a.iter().flat_map(|a| b.iter().map(move |b| f64::from(*a) * f64::from(*b)));
        for (taps, w) in out.chunks_exact_mut(seen.len()).zip(outer) {
            taps.iter_mut().zip(seen).for_each(|(x, c)| *x += w * f64::from(*c));
        }
    }
    #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
    Ok(Some(out.into_iter().map(|x| x as f32).collect()))
}
