//! Dense matrices in f64: products, linear systems, QR as LAPACK signs it, Gram–Schmidt.

/// A matrix, row major. Sizes are checked where one is made and where two meet: what does not fit is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mat {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

impl Mat {
    /// From `rows · cols` numbers; `None` when they are more or fewer.
    #[must_use]
    pub fn new(rows: usize, cols: usize, data: Vec<f64>) -> Option<Self> {
        (rows.checked_mul(cols) == Some(data.len())).then_some(Self { rows, cols, data })
    }

    /// From `rows · cols` floats; `None` when they are more or fewer.
    #[must_use]
    pub fn from_f32(rows: usize, cols: usize, data: &[f32]) -> Option<Self> {
        Self::new(rows, cols, data.iter().map(|x| f64::from(*x)).collect())
    }

    /// Zeros; `None` when no memory could hold them.
    #[must_use]
    pub fn zeros(rows: usize, cols: usize) -> Option<Self> {
        let n = rows.checked_mul(cols).filter(|n| *n < isize::MAX as usize / 8)?;
        Some(Self { rows, cols, data: vec![0.0; n] })
    }

    /// The identity.
    #[must_use]
    pub fn identity(n: usize) -> Option<Self> {
        let mut out = Self::zeros(n, n)?;
        out.data.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
        Some(out)
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The numbers, row major.
    #[must_use]
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// The numbers, to be changed.
    pub fn data_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// The numbers in f32.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|x| *x as f32).collect()
    }

    /// Row `i`; empty beyond the last.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f64] {
        if i < self.rows { &self.data[i * self.cols..(i + 1) * self.cols] } else { &[] }
    }

    /// Row `i`, to be changed; empty beyond the last.
    pub fn row_mut(&mut self, i: usize) -> &mut [f64] {
        if i < self.rows { &mut self.data[i * self.cols..(i + 1) * self.cols] } else { &mut [] }
    }

    /// Rows `i` and `j`, `i < j`, to be changed together.
    pub(super) fn two_rows(&mut self, i: usize, j: usize) -> (&mut [f64], &mut [f64]) {
        if i >= j || j >= self.rows {
            return (&mut [], &mut []);
        }
        let (head, tail) = self.data.split_at_mut(j * self.cols);
        (&mut head[i * self.cols..(i + 1) * self.cols], &mut tail[..self.cols])
    }

    /// The first `n` rows, or all when there are fewer.
    #[must_use]
    pub fn first_rows(&self, n: usize) -> Self {
        let rows = n.min(self.rows);
        Self { rows, cols: self.cols, data: self.data[..rows * self.cols].to_vec() }
    }

    /// The transpose.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let mut data = vec![0.0; self.data.len()];
        for (i, row) in self.data.chunks_exact(self.cols.max(1)).enumerate() {
            row.iter().zip(data.iter_mut().skip(i).step_by(self.rows.max(1))).for_each(|(x, t)| *t = *x);
        }
        Self { rows: self.cols, cols: self.rows, data }
    }

    /// `self · other`.
    #[must_use]
    pub fn times(&self, other: &Self) -> Option<Self> {
        if self.cols != other.rows {
            return None;
        }
        let mut out = Self::zeros(self.rows, other.cols)?;
        for i in 0..self.rows {
            let sums = &mut out.data[i * other.cols..(i + 1) * other.cols];
            for (k, a) in self.row(i).iter().enumerate() {
                add_scaled(sums, *a, other.row(k));
            }
        }
        Some(out)
    }

    /// `self · otherᵀ`.
    #[must_use]
    pub fn times_transposed(&self, other: &Self) -> Option<Self> {
        if self.cols != other.cols {
            return None;
        }
        let mut data = Vec::with_capacity(self.rows.checked_mul(other.rows)?);
        for i in 0..self.rows {
            data.extend((0..other.rows).map(|j| dot(self.row(i), other.row(j))));
        }
        Self::new(self.rows, other.rows, data)
    }

    /// `self − other`.
    #[must_use]
    pub fn minus(mut self, other: &Self) -> Option<Self> {
        if (self.rows, self.cols) != (other.rows, other.cols) {
            return None;
        }
        self.data.iter_mut().zip(&other.data).for_each(|(a, b)| *a -= b);
        Some(self)
    }

    /// The solution `X` of `self · X = right`, by elimination with partial pivoting.
    ///
    /// `None` when the matrix is not square, does not fit `right`, or has a pivot of exactly 0 (as LAPACK tells a singular
    /// one) or one that is no number.
    #[must_use]
    pub fn solve(&self, right: &Self) -> Option<Self> {
        let n = self.rows;
        if self.cols != n || right.rows != n {
            return None;
        }
        let (mut lu, mut x) = (self.clone(), right.clone());
        for k in 0..n {
            let size = |i: usize| lu.data[i * n + k].abs();
            // The first of equals, as LAPACK takes it.
            let pivot = (k + 1..n).fold(k, |best, i| if size(i) > size(best) { i } else { best });
            if pivot != k {
                let (a, b) = lu.two_rows(k, pivot);
                a.swap_with_slice(b);
                let (a, b) = x.two_rows(k, pivot);
                a.swap_with_slice(b);
            }
            let top = lu.data[k * n + k];
            if top == 0.0 || !top.is_finite() {
                return None;
            }
            for i in k + 1..n {
                let factor = lu.data[i * n + k] / top;
                if factor != 0.0 {
                    let (a, b) = lu.two_rows(k, i);
                    add_scaled(&mut b[k + 1..], -factor, &a[k + 1..]);
                    let (a, b) = x.two_rows(k, i);
                    add_scaled(b, -factor, a);
                }
            }
        }
        for k in (0..n).rev() {
            let top = lu.data[k * n + k];
            x.row_mut(k).iter_mut().for_each(|v| *v /= top);
            for i in 0..k {
                let factor = lu.data[i * n + k];
                let (a, b) = x.two_rows(i, k);
                add_scaled(a, -factor, b);
            }
        }
        Some(x)
    }

    /// The inverse; `None` as in [`Mat::solve`].
    #[must_use]
    pub fn inverse(&self) -> Option<Self> {
        self.solve(&Self::identity(self.rows)?)
    }

    /// `(Q, R)` with `self = Q R`: Q `[rows, k]` with orthonormal columns, R `[k, cols]` upper triangular, k the smaller side.
    ///
    /// Signs are LAPACK's: a diagonal element of R has the sign opposite to that of the number it is made of, except where
    /// nothing was left below that number.
    #[must_use]
    pub fn qr(&self) -> Option<(Self, Self)> {
        let (m, n) = (self.rows, self.cols);
        let k = m.min(n);
        // In the transpose a column is a row.
        let mut r = self.transposed();
        let mut reflectors = Vec::with_capacity(k);
        for j in 0..k {
            let (beta, v, tau) = householder(&r.row(j)[j..]);
            if let Some(x) = r.row_mut(j).get_mut(j) {
                *x = beta;
            }
            r.row_mut(j).iter_mut().skip(j + 1).for_each(|x| *x = 0.0);
            for column in j + 1..n {
                reflect(&mut r.row_mut(column)[j..], &v, tau);
            }
            reflectors.push((v, tau));
        }
        let mut q = Self::zeros(k, m)?;
        for i in 0..k {
            if let Some(x) = q.row_mut(i).get_mut(i) {
                *x = 1.0;
            }
        }
        for (j, (v, tau)) in reflectors.iter().enumerate().rev() {
            for column in j..k {
                reflect(&mut q.row_mut(column)[j..], v, *tau);
            }
        }
        let upper = r.transposed().first_rows(k);
        Some((q.transposed(), upper))
    }

    /// The rows made orthonormal one after another, each against those already made (modified Gram–Schmidt).
    ///
    /// A row that the ones before it span leaves rounding errors, or NaN where nothing at all is left, as in torch.
    #[must_use]
    pub fn orthonormal_rows(mut self) -> Self {
        for i in 0..self.rows {
            for j in 0..i {
                let (done, row) = self.two_rows(j, i);
                let along = dot(done, row);
                add_scaled(row, -along, done);
            }
            let norm = norm(self.row(i));
            self.row_mut(i).iter_mut().for_each(|x| *x /= norm);
        }
        self
    }
}

/// The Householder reflection `I − tau · v vᵀ`, `v[0] = 1`, that takes `x` to `(beta, 0, …)`: LAPACK's `larfg`.
pub(super) fn householder(x: &[f64]) -> (f64, Vec<f64>, f64) {
    let mut v = x.to_vec();
    let Some((alpha, rest)) = v.split_first_mut() else { return (0.0, v, 0.0) };
    let below = norm(rest);
    let first = *alpha;
    *alpha = 1.0;
    if below == 0.0 {
        return (first, v, 0.0);
    }
    let beta = -first.hypot(below).copysign(first);
    let scale = 1.0 / (first - beta);
    rest.iter_mut().for_each(|x| *x *= scale);
    (beta, v, (beta - first) / beta)
}

/// `x − tau · v (v · x)`.
pub(super) fn reflect(x: &mut [f64], v: &[f64], tau: f64) {
    if tau != 0.0 {
        let along = dot(x, v);
        add_scaled(x, -tau * along, v);
    }
}

/// `Σ aᵢ bᵢ`, in four sums: most of the time of every decomposition is spent here.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len());
    let ((a4, a), (b4, b)) = (a[..n].as_chunks::<4>(), b[..n].as_chunks::<4>());
    let mut sums = [0.0; 4];
    for (a, b) in a4.iter().zip(b4) {
        sums[0] += a[0] * b[0];
        sums[1] += a[1] * b[1];
        sums[2] += a[2] * b[2];
        sums[3] += a[3] * b[3];
    }
    let rest: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// `y + a · x`.
pub(super) fn add_scaled(y: &mut [f64], a: f64, x: &[f64]) {
    let n = y.len().min(x.len());
    let ((y4, y), (x4, x)) = (y[..n].as_chunks_mut::<4>(), x[..n].as_chunks::<4>());
    for (y, x) in y4.iter_mut().zip(x4) {
        y[0] += a * x[0];
        y[1] += a * x[1];
        y[2] += a * x[2];
        y[3] += a * x[3];
    }
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

/// `√(x · x)`.
pub(crate) fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "the numbers are as Python printed them")]
mod tests {
    use super::*;
    use crate::maths::torch_random::TorchRandom;

    fn random(seed: u64, rows: usize, cols: usize) -> Mat {
        Mat::new(rows, cols, TorchRandom::new(seed).uniform64(rows * cols, -1.0, 1.0)).unwrap()
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        got.iter().zip(want).for_each(|(g, w)| assert!((g - w).abs() < 1e-13, "{g} {w}"));
    }

    fn is_one(x: &Mat) {
        close(x.data(), Mat::identity(x.rows()).unwrap().data());
    }

    /// The tables are of numpy 2 and torch 2.15: `python tests/golden/maths.py linalg`.
    #[test]
    fn qr_and_solutions_are_lapacks() {
        let (q, r) = random(3, 7, 5).qr().unwrap();
        close(&q.data()[..5], Q_TALL);
        close(r.data(), R_TALL);
        let (q, r) = random(3, 4, 6).qr().unwrap();
        close(q.data(), Q_WIDE);
        close(&r.data()[18..], R_WIDE);
        let x = random(5, 4, 4).solve(&random(6, 4, 2)).unwrap();
        close(x.data(), SOLVED);
        close(&random(5, 4, 4).inverse().unwrap().data()[..4], INVERSE);
        let (_, r) = Mat::new(3, 2, vec![3.0, 1.0, 0.0, -2.0, 0.0, 0.0]).unwrap().qr().unwrap();
        close(r.data(), ALREADY);
    }

    #[test]
    fn factors_make_the_whole() {
        for (rows, cols) in [(1, 1), (5, 1), (1, 5), (9, 9), (20, 12), (12, 20)] {
            let a = random(2, rows, cols);
            let (q, r) = a.qr().unwrap();
            close(q.times(&r).unwrap().data(), a.data());
            is_one(&q.transposed().times(&q).unwrap());
            assert!((0..r.rows()).all(|i| r.row(i)[..i.min(cols)].iter().all(|x| *x == 0.0)));
        }
        let a = random(8, 17, 17);
        let product = a.times(&a.inverse().unwrap()).unwrap();
        let eye = Mat::identity(17).unwrap();
        assert!(product.data().iter().zip(eye.data()).all(|(x, y)| (x - y).abs() < 1e-11));
        let u = random(9, 3, 10).orthonormal_rows();
        is_one(&u.times_transposed(&u).unwrap());
        close(u.row(1), GRAM_SCHMIDT);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let a = random(1, 2, 3);
        assert!(a.times(&a).is_none() && a.times_transposed(&random(1, 3, 2)).is_none());
        assert!(a.solve(&a).is_none() && a.inverse().is_none());
        assert!(Mat::new(2, 2, vec![0.0; 3]).is_none() && Mat::zeros(usize::MAX, 2).is_none());
        let singular = Mat::new(2, 2, vec![1.0, 2.0, 2.0, 4.0]).unwrap();
        assert!(singular.inverse().is_none());
        assert!(Mat::new(1, 1, vec![f64::NAN]).unwrap().inverse().is_none());
        let none = Mat::zeros(0, 3).unwrap();
        let (q, r) = none.qr().unwrap();
        assert_eq!((q.rows(), q.cols(), r.rows(), r.cols()), (0, 0, 0, 3));
        assert_eq!(none.transposed().rows(), 3);
        let flat = Mat::zeros(2, 0).unwrap().orthonormal_rows();
        assert!(flat.row(0).is_empty() && flat.row(7).is_empty());
        assert_eq!(Mat::zeros(3, 0).unwrap().times(&none).unwrap().data(), [0.0; 9]);
    }

    const Q_TALL: &[f64] =
        &[-0.5175906173331677, -0.2387383117956809, 0.2003839847257805, 0.6749994416635997, -0.27347076495549477];
    const R_TALL: &[f64] = &[
        1.8002328046437124,
        0.16982674452998403,
        -0.8890808761349878,
        -0.4342054537581705,
        -0.6778850693252727,
        0.0,
        1.418368147405805,
        0.5170692636398972,
        0.2752053667537861,
        0.6483491224417509,
        0.0,
        0.0,
        1.0434676827507485,
        0.4546910541857351,
        0.012855968964714526,
        0.0,
        0.0,
        0.0,
        -1.3337749564350094,
        0.8847056748764672,
        0.0,
        0.0,
        0.0,
        0.0,
        1.0425004668727333,
    ];
    const Q_WIDE: &[f64] = &[
        -0.6509538773605257,
        -0.5429225756909942,
        -0.004093567930640393,
        0.5305444081846039,
        -0.4209447941520405,
        -0.19573505890654175,
        0.5258488063019746,
        -0.7127245610345819,
        -0.07402788827363725,
        -0.3531584973567327,
        -0.8121470728467204,
        -0.45849327101821724,
        0.6273630540471282,
        -0.7363436285217957,
        0.25275167196062137,
        0.018172822376467668,
    ];
    const R_WIDE: &[f64] = &[0.0, 0.0, 0.0, -0.3616198361490094, 1.0546223994081143, -0.05870613397726862];
    const SOLVED: &[f64] = &[
        -3.0790083981110064,
        -2.324887906053101,
        3.101863035425183,
        1.5434015097634897,
        -0.774197245915371,
        -1.3041843861318418,
        -6.233102869071452,
        -4.944582734818087,
    ];
    const INVERSE: &[f64] = &[-4.4068577788952465, -2.294840019767273, 1.0736077289269041, 0.7173398385913387];
    const ALREADY: &[f64] = &[3.0, 1.0, 0.0, -2.0];
    const GRAM_SCHMIDT: &[f64] = &[
        -0.030324260015181334,
        -0.11452397317216981,
        0.02618337371626798,
        -0.32699631812241403,
        0.14015264539253286,
        -0.5250106833153676,
        -0.5950872854719567,
        0.20934864370485082,
        0.41484080483331087,
        0.11412681887542975,
    ];
}
