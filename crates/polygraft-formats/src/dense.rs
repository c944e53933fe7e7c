//! Products of small dense matrices, row major, summed in f64.

/// `a · b`: `a` is `[rows, inner]`, `b` `[inner, cols]`.
#[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
pub(crate) fn product(a: &[f32], b: &[f32], inner: usize, cols: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(a.len() / inner.max(1) * cols);
    let mut sums = vec![0.0f64; cols];
    for row in a.chunks_exact(inner.max(1)) {
        sums.fill(0.0);
        for (a, b) in row.iter().zip(b.chunks_exact(cols.max(1))) {
            sums.iter_mut().zip(b).for_each(|(s, b)| *s += f64::from(*a) * f64::from(*b));
        }
        out.extend(sums.iter().map(|s| *s as f32));
    }
    out
}

/// `a` transposed: `[rows, cols]` to `[cols, rows]`.
pub(crate) fn transposed(a: &[f32], cols: usize) -> Vec<f32> {
    let rows = a.len() / cols.max(1);
    (0..cols).flat_map(|c| (0..rows).map(move |r| a[r * cols + c])).collect()
}

/// Multiplies row `i` of `a`, `[factors.len(), cols]`, by `factors[i]`.
pub(crate) fn scale_rows(a: &mut [f32], cols: usize, factors: &[f32]) {
    for (row, f) in a.chunks_exact_mut(cols.max(1)).zip(factors) {
        row.iter_mut().for_each(|x| *x *= f);
    }
}

/// Multiplies column `j` of `a`, `[rows, factors.len()]`, by `factors[j]`.
pub(crate) fn scale_cols(a: &mut [f32], factors: &[f32]) {
    for row in a.chunks_exact_mut(factors.len().max(1)) {
        row.iter_mut().zip(factors).for_each(|(x, f)| *x *= f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_scales() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, 1.0]);
        assert_eq!(product(&a, &b, 2, 2), [5.0, 2.0, 11.0, 4.0, 17.0, 6.0]);
        assert_eq!(transposed(&a, 2), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        let mut c = a;
        scale_rows(&mut c, 2, &[1.0, 0.0, 2.0]);
        scale_cols(&mut c, &[1.0, -1.0]);
        assert_eq!(c, [1.0, -2.0, 0.0, 0.0, 10.0, -12.0]);
    }
}
