//! Rotations of blocks of a layer's inputs: what OFT and BOFT have in common.

use crate::maths::linalg::Mat;

/// Cayley's map `(I − S)(I + S)⁻¹` of a skew matrix: a rotation. `None` when `I + S` has no inverse.
pub(super) fn cayley(skew: &Mat) -> Option<Mat> {
    let (mut below, above) = (Mat::identity(skew.rows())?, Mat::identity(skew.rows())?.minus(skew)?);
    below.data_mut().iter_mut().zip(skew.data()).for_each(|(x, s)| *x += s);
    above.times(&below.inverse()?)
}

/// Turns each row of `rows`, `[.., width]`, block by block: `row ← row · Rᵀ`, or `row · R` when `forward`. The blocks
/// are tried in turn, so that one serves all.
#[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
pub(super) fn turn(rows: &mut [f32], width: usize, blocks: &[Mat], forward: bool) {
    let Some(size) = blocks.first().map(Mat::rows).filter(|n| *n > 0) else { return };
    let mut wide = vec![0.0f64; size];
    for row in rows.chunks_exact_mut(width.max(1)) {
        for (part, block) in row.chunks_exact_mut(size).zip(blocks.iter().cycle()) {
            wide.iter_mut().zip(&*part).for_each(|(w, x)| *w = f64::from(*x));
            for (k, x) in part.iter_mut().enumerate() {
                let one = |(c, w): (usize, &f64)| w * if forward { block.row(c)[k] } else { block.row(k)[c] };
                *x = wide.iter().enumerate().map(one).sum::<f64>() as f32;
            }
        }
    }
}

/// Floats that `blocks` hold, two to an f64.
pub(super) fn held(blocks: &[Mat]) -> usize {
    blocks.iter().map(|b| 2 * b.data().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_matrices_become_rotations() {
        let r = cayley(&Mat::new(2, 2, vec![0.0, -1.0, 1.0, 0.0]).unwrap()).unwrap();
        // (I − S)(I + S)⁻¹ of tan(45°) is a quarter turn.
        assert_eq!(r.data(), [0.0, 1.0, -1.0, 0.0]);
        let mut rows = [1.0, 2.0, 3.0, 4.0];
        turn(&mut rows, 4, std::slice::from_ref(&r), false);
        assert_eq!(rows, [2.0, -1.0, 4.0, -3.0]);
        turn(&mut rows, 4, &[r], true);
        assert_eq!(rows, [1.0, 2.0, 3.0, 4.0]);
    }
}
