//! The discrete Fourier transform of any length, by its prime factors (Cooley & Tukey 1965).

use core::f64::consts::TAU;

/// A complex number: real and imaginary part.
type Complex = (f64, f64);

fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

/// `torch.fft.ifft2(m).real` of the real matrix `[rows, cols]` that has `entries` (row, column, value) and 0 elsewhere.
///
/// `None` for an entry beyond the matrix.
#[must_use]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "rounding to f32 is the point")]
pub fn inverse_real(rows: usize, cols: usize, entries: &[(usize, usize, f32)]) -> Option<Vec<f32>> {
    let mut m = vec![(0.0, 0.0); rows.checked_mul(cols)?];
    if m.is_empty() {
        return entries.is_empty().then(Vec::new);
    }
    let mut filled = vec![false; rows];
    for (row, col, value) in entries {
        if *row >= rows || *col >= cols {
            return None;
        }
        m[row * cols + col].0 += f64::from(*value);
        filled[*row] = true;
    }
    let along = Roots::new(cols);
    for (row, _) in m.chunks_exact_mut(cols.max(1)).zip(filled).filter(|(_, filled)| *filled) {
        let out = along.inverse(row);
        row.copy_from_slice(&out);
    }
    let (down, size) = (Roots::new(rows), (rows * cols) as f64);
    let mut out = vec![0.0; m.len()];
    let mut column = vec![(0.0, 0.0); rows];
    for col in 0..cols {
        column.iter_mut().zip(m[col..].iter().step_by(cols)).for_each(|(c, x)| *c = *x);
        let sums = down.inverse(&column);
        out[col..].iter_mut().step_by(cols).zip(sums).for_each(|(o, x)| *o = (x.0 / size) as f32);
    }
    Some(out)
}

/// The roots of unity of a length.
struct Roots(Vec<Complex>);

impl Roots {
    #[allow(clippy::cast_precision_loss, reason = "lengths are far below 2⁵³")]
    fn new(n: usize) -> Self {
        let root = |k| {
            let (sin, cos) = (TAU * k as f64 / n as f64).sin_cos();
            (cos, sin)
        };
        Self((0..n).map(root).collect())
    }

    /// `X[k] = Σ x[j] · e^(2πi jk/n)`, not divided by n.
    fn inverse(&self, x: &[Complex]) -> Vec<Complex> {
        let mut out = vec![(0.0, 0.0); x.len()];
        self.part(x, 1, &mut out);
        out
    }

    /// The transform of every `stride`-th of `x`, of which there are `out.len()`.
    fn part(&self, x: &[Complex], stride: usize, out: &mut [Complex]) {
        let n = out.len();
        let factor = (2..).take_while(|f| f * f <= n).find(|f| n.is_multiple_of(*f)).unwrap_or(n);
        if n <= 1 {
            out.iter_mut().zip(x).for_each(|(o, x)| *o = *x);
            return;
        }
        let each = n / factor;
        let mut parts = vec![(0.0, 0.0); n];
        for (i, part) in parts.chunks_exact_mut(each).enumerate() {
            self.part(&x[i * stride..], stride * factor, part);
        }
        for (k, out) in out.iter_mut().enumerate() {
            let terms = parts.iter().skip(k % each).step_by(each).enumerate();
            *out = terms.fold((0.0, 0.0), |sum, (i, part)| {
                let term = times(self.0[i * k * stride % self.0.len()], *part);
                (sum.0 + term.0, sum.1 + term.1)
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "small sizes")]
mod tests {
    use super::*;

    #[test]
    fn transforms_are_the_sums_that_define_them() {
        for (rows, cols) in [(1, 1), (1, 7), (12, 1), (8, 12), (33, 37), (30, 49)] {
            let entries: Vec<(usize, usize, f32)> =
                (0..9).map(|i| (i * 5 % rows, i * 11 % cols, i as f32 - 3.5)).collect();
            let got = inverse_real(rows, cols, &entries).unwrap();
            for o in 0..rows {
                for i in 0..cols {
                    let angle =
                        |p: usize, q: usize| TAU * ((p * o) as f64 / rows as f64 + (q * i) as f64 / cols as f64);
                    let sum: f64 = entries.iter().map(|(p, q, c)| f64::from(*c) * angle(*p, *q).cos()).sum();
                    let want = sum / (rows * cols) as f64;
                    assert!((f64::from(got[o * cols + i]) - want).abs() < 1e-6, "{rows} {cols} {o} {i}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(inverse_real(2, 2, &[(2, 0, 1.0)]).is_none());
        assert!(inverse_real(0, 5, &[]).unwrap().is_empty() && inverse_real(5, 0, &[]).unwrap().is_empty());
        assert!(inverse_real(usize::MAX, 2, &[]).is_none());
        assert!(inverse_real(usize::MAX, 0, &[]).unwrap().is_empty());
    }
}
