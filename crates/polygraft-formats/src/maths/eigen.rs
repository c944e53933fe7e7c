//! Eigenvalues and eigenvectors of symmetric matrices.
//!
//! The matrix is made tridiagonal by Householder reflections; its eigenvalues come from the implicit QL method, its
//! eigenvectors from the same rotations when all are wanted, or from inverse iteration when a few are (Golub & Van Loan,
//! Matrix Computations, §8.3 and §8.2.2). What tests it is [`super::svd`], which rests on it.

use super::linalg::{Mat, add_scaled, dot, householder, norm, reflect};

/// A symmetric matrix made tridiagonal, with its eigenvalues.
pub(super) struct Eigen {
    /// The diagonal.
    d: Vec<f64>,
    /// Beside the diagonal: `e[i]` between `i` and `i + 1`; the last is 0.
    e: Vec<f64>,
    /// Largest first.
    values: Vec<f64>,
    /// The reflections, in order, the i-th of the numbers after i.
    reflections: Vec<(Vec<f64>, f64)>,
}

impl Eigen {
    /// Of a symmetric matrix, of which the lower triangle is read.
    pub(super) fn of(lower: &Mat) -> Option<Self> {
        let n = lower.rows();
        if !lower.data().iter().all(|x| x.is_finite()) {
            return None;
        }
        let mut a = lower.clone();
        let (mut d, mut e) = (vec![0.0; n], vec![0.0; n]);
        let mut reflections = Vec::with_capacity(n);
        for k in 0..n {
            d[k] = a.row(k)[k];
            let column: Vec<f64> = (k + 1..n).map(|i| a.row(i)[k]).collect();
            if column.is_empty() {
                break;
            }
            let (beta, v, tau) = householder(&column);
            e[k] = beta;
            if tau != 0.0 {
                rank_two(&mut a, k + 1, &v, tau);
            }
            reflections.push((v, tau));
        }
        let mut values = d.clone();
        ql(&mut values, &mut e.clone(), None)?;
        values.sort_by(|x, y| y.total_cmp(x));
        Some(Self { d, e, values, reflections })
    }

    /// All eigenvectors as rows, largest eigenvalue first.
    pub(super) fn all(&self) -> Option<Mat> {
        let n = self.d.len();
        let mut z = Mat::identity(n)?;
        let mut values = self.d.clone();
        ql(&mut values, &mut self.e.clone(), Some(&mut z))?;
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|i, j| values[*j].total_cmp(&values[*i]));
        let mut out = Mat::zeros(n, n)?;
        for (to, from) in order.into_iter().enumerate() {
            out.row_mut(to).copy_from_slice(z.row(from));
        }
        self.back(&mut out);
        Some(out)
    }

    /// The eigenvectors of the eigenvalues in `range`, as rows.
    pub(super) fn some(&self, range: core::ops::Range<usize>) -> Option<Mat> {
        let n = self.d.len();
        // Past a quarter the orthogonalisations cost more than the rotations; of a matrix of zeros nothing can be inverted.
        let worth = 4 * range.len() <= n && self.values.iter().any(|v| *v != 0.0);
        if worth && let Some(mut few) = self.inverse_iteration(range.clone()) {
            self.back(&mut few);
            return Some(few);
        }
        let all = self.all()?;
        let rows: Vec<f64> = all.data().get(range.start * n..range.end * n)?.to_vec();
        Mat::new(range.len(), n, rows)
    }

    /// Eigenvectors of the tridiagonal matrix to those of the matrix itself.
    fn back(&self, rows: &mut Mat) {
        for i in 0..rows.rows() {
            for (k, (v, tau)) in self.reflections.iter().enumerate().rev() {
                reflect(&mut rows.row_mut(i)[k + 1..], v, *tau);
            }
        }
    }

    /// Eigenvectors of the tridiagonal matrix; `None` when one of them is not one to rounding.
    fn inverse_iteration(&self, range: core::ops::Range<usize>) -> Option<Mat> {
        let n = self.d.len();
        let size = self.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let tiny = size * f64::EPSILON;
        let mut out = Mat::zeros(range.len(), n)?;
        let mut state = 1u64;
        let mut shift = f64::INFINITY;
        for (at, value) in self.values.get(range)?.iter().enumerate() {
            // Equal eigenvalues get vectors of their own from shifts that differ.
            shift = value.min(shift - tiny);
            let lu = Tridiagonal::new(&self.d, &self.e, shift, tiny);
            let mut x: Vec<f64> = (0..n).map(|_| uniform(&mut state)).collect();
            for _ in 0..3 {
                lu.solve(&mut x);
                for _ in 0..2 {
                    for before in 0..at {
                        let along = dot(&x, out.row(before));
                        add_scaled(&mut x, -along, out.row(before));
                    }
                    let length = norm(&x);
                    x.iter_mut().for_each(|x| *x /= length);
                }
            }
            let off = self.residual(&x, *value);
            if off.is_nan() || off > 1e3 * tiny.max(f64::MIN_POSITIVE) {
                return None;
            }
            out.row_mut(at).copy_from_slice(&x);
        }
        Some(out)
    }

    /// `‖T x − value · x‖`.
    fn residual(&self, x: &[f64], value: f64) -> f64 {
        let n = x.len();
        let side = |i: usize, j: usize| if j < n { self.e[i.min(j)] * x[j] } else { 0.0 };
        let at = |i: usize| (self.d[i] - value) * x[i] + side(i, i.wrapping_sub(1)) + side(i, i + 1);
        (0..n).map(|i| at(i).powi(2)).sum::<f64>().sqrt()
    }
}

/// Applies the reflection `H = I − tau · v vᵀ` from both sides to the part of symmetric `a` from `from` on, lower triangle.
fn rank_two(a: &mut Mat, from: usize, v: &[f64], tau: f64) {
    let n = v.len();
    let mut p = vec![0.0; n];
    for i in 0..n {
        let row = &a.row(from + i)[from..=from + i];
        let (left, here) = (&row[..i], row[i]);
        let sum = dot(left, &v[..i]) + here * v[i];
        add_scaled(&mut p[..i], v[i], left);
        p[i] += sum;
    }
    p.iter_mut().for_each(|x| *x *= tau);
    let half = 0.5 * tau * dot(&p, v);
    add_scaled(&mut p, -half, v);
    for i in 0..n {
        let row = &mut a.row_mut(from + i)[from..=from + i];
        add_scaled(row, -v[i], &p[..=i]);
        add_scaled(row, -p[i], &v[..=i]);
    }
}

/// Eigenvalues of a symmetric tridiagonal matrix in place of `d`, by QL with implicit shifts; the rotations are applied to
/// the rows of `z`. `None` when it does not converge.
fn ql(d: &mut [f64], e: &mut [f64], mut z: Option<&mut Mat>) -> Option<()> {
    let n = d.len();
    for l in 0..n {
        for turn in 0.. {
            let small = |i: &usize| e[*i].abs() <= f64::EPSILON * (d[*i].abs() + d[*i + 1].abs());
            let m = (l..n - 1).find(small).unwrap_or(n - 1);
            if m == l {
                break;
            }
            if turn == 60 {
                return None;
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let r = g.hypot(1.0);
            g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut split = false;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    // The matrix falls apart here: go on with the parts.
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    split = true;
                    break;
                }
                s = f / r;
                c = g / r;
                g = d[i + 1] - p;
                let r = (d[i] - g) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                if let Some(z) = z.as_deref_mut() {
                    let (low, high) = z.two_rows(i, i + 1);
                    rotate(low, high, c, s);
                }
            }
            if !split {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    Some(())
}

/// `(x, y) ← (c x − s y, s x + c y)`.
pub(super) fn rotate(x: &mut [f64], y: &mut [f64], c: f64, s: f64) {
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

/// `T − shift · I` decomposed by elimination with partial pivoting.
struct Tridiagonal {
    /// The upper triangle: diagonal and two beside it.
    upper: Vec<[f64; 3]>,
    /// For each step its factor, and whether the rows changed places.
    steps: Vec<(f64, bool)>,
}

impl Tridiagonal {
    fn new(d: &[f64], e: &[f64], shift: f64, tiny: f64) -> Self {
        let n = d.len();
        let (mut upper, mut steps) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let beside = |i: usize| if i + 1 < n { e[i] } else { 0.0 };
        // The row that is being eliminated with.
        let mut row = match d.first() {
            Some(first) => [first - shift, beside(0), 0.0],
            None => [0.0; 3],
        };
        for i in 1..n {
            let next = [e[i - 1], d[i] - shift, beside(i)];
            let swap = next[0].abs() > row[0].abs();
            let (top, low) = if swap { (next, row) } else { (row, next) };
            let top = [nonzero(top[0], tiny), top[1], top[2]];
            let factor = low[0] / top[0];
            upper.push(top);
            steps.push((factor, swap));
            row = [low[1] - factor * top[1], low[2] - factor * top[2], 0.0];
        }
        if n > 0 {
            upper.push([nonzero(row[0], tiny), 0.0, 0.0]);
        }
        Self { upper, steps }
    }

    fn solve(&self, x: &mut [f64]) {
        for (i, (factor, swap)) in self.steps.iter().enumerate() {
            if *swap {
                x.swap(i, i + 1);
            }
            x[i + 1] -= factor * x[i];
        }
        let mut after = (0.0, 0.0);
        for (x, [a, b, c]) in x.iter_mut().zip(&self.upper).rev() {
            *x = (*x - b * after.0 - c * after.1) / a;
            after = (*x, after.0);
        }
    }
}

/// A pivot of 0 would be the eigenvalue itself: the smallest number that counts stands for it.
fn nonzero(pivot: f64, tiny: f64) -> f64 {
    if pivot.abs() >= tiny { pivot } else { tiny.max(f64::MIN_POSITIVE).copysign(pivot) }
}

/// A number of (−½, ½), to begin an iteration with.
#[allow(clippy::cast_precision_loss, reason = "a start needs no bit of it")]
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 11) as f64 / 9_007_199_254_740_992.0 - 0.5
}
