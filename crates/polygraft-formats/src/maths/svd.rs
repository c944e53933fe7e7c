//! Singular values and vectors, through the eigenvectors of the smaller Gram matrix.
//!
//! The Gram matrix squares the condition number, which f64 affords for weights that were f32; [`svd`] then removes what is
//! left of it by one-sided Jacobi rotations (Golub & Van Loan, Matrix Computations, §8.6.3).

use super::eigen::{Eigen, rotate};
use super::linalg::{Mat, add_scaled, dot, norm};

/// `A = U diag(S) Vᵀ`, thin: k is the smaller side of A.
#[derive(Debug, Clone)]
pub struct Svd {
    /// Uᵀ, `[k, rows]`; a row of zeros where the singular value is 0.
    pub ut: Mat,
    /// Singular values, largest first.
    pub s: Vec<f64>,
    /// Vᵀ, `[k, cols]`; a row of zeros where the singular value is 0.
    pub vt: Mat,
}

/// The thin singular value decomposition, singular values and reconstruction within 1e-12 of the largest.
///
/// `None` when the numbers are not finite or an iteration does not end.
#[must_use]
pub fn svd(a: &Mat) -> Option<Svd> {
    if a.rows() < a.cols() {
        let Svd { ut, s, vt } = svd(&a.transposed())?;
        return Some(Svd { ut: vt, s, vt: ut });
    }
    let vt = Eigen::of(&gram(a)?)?.all()?;
    let mut bt = vt.times_transposed(a)?;
    let mut vt = vt;
    jacobi(&mut bt, &mut vt)?;
    let sizes: Vec<f64> = (0..bt.rows()).map(|i| norm(bt.row(i))).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|i, j| sizes[*j].total_cmp(&sizes[*i]));
    let (mut ut_sorted, mut vt_sorted) = (bt.clone(), vt.clone());
    for (to, from) in order.iter().enumerate() {
        let size = sizes[*from];
        let unit = |x: &f64| if size > 0.0 { x / size } else { 0.0 };
        ut_sorted.row_mut(to).iter_mut().zip(bt.row(*from)).for_each(|(u, b)| *u = unit(b));
        let keep = if size > 0.0 { 1.0 } else { 0.0 };
        vt_sorted.row_mut(to).iter_mut().zip(vt.row(*from)).for_each(|(u, v)| *u = v * keep);
    }
    Some(Svd { ut: ut_sorted, s: order.iter().map(|i| sizes[*i]).collect(), vt: vt_sorted })
}

/// The `r` largest singular values with their vectors, as factors of the best approximation of rank `r`: `U diag(S)` and
/// `Vᵀ`, whose rows have length 1, `[rows, k]` and `[k, cols]` with k the smallest of `r` and the sides of A. Where a
/// singular value is 0 both have zeros.
///
/// `None` as in [`svd`].
#[must_use]
pub fn leading(a: &Mat, r: usize) -> Option<(Mat, Mat)> {
    let k = r.min(a.rows()).min(a.cols());
    if a.rows() < a.cols() {
        let ut = leading_vectors(&a.transposed(), k)?;
        let mut vt = ut.times(a)?;
        let mut us = ut.transposed();
        for i in 0..k {
            let size = norm(vt.row(i));
            vt.row_mut(i).iter_mut().for_each(|x| *x = if size > 0.0 { *x / size } else { 0.0 });
            (0..us.rows()).for_each(|j| us.row_mut(j)[i] *= size);
        }
        return Some((us, vt));
    }
    let vt = leading_vectors(a, k)?;
    Some((a.times_transposed(&vt)?, vt))
}

/// The eigenvectors of the `k` largest eigenvalues of `Aᵀ A`, as rows.
fn leading_vectors(a: &Mat, k: usize) -> Option<Mat> {
    let eigen = Eigen::of(&gram(a)?)?;
    if 2 * k <= a.cols() { eigen.some(0..k) } else { Some(eigen.all()?.first_rows(k)) }
}

/// The best approximation of rank `r`: `Σ σᵢ uᵢ vᵢᵀ` over the `r` largest singular values.
///
/// Only as many vectors are computed as the smaller of both parts has. Where the r-th and the next singular value are
/// equal the answer is one of many, as it is for every library. `None` as in [`svd`].
#[must_use]
pub fn truncated(a: &Mat, r: usize) -> Option<Mat> {
    let k = a.rows().min(a.cols());
    if r >= k {
        return a.data().iter().all(|x| x.is_finite()).then(|| a.clone());
    }
    let wide = a.rows() < a.cols();
    let eigen = Eigen::of(&gram(&if wide { a.transposed() } else { a.clone() })?)?;
    let leading = 2 * r <= k;
    let vectors = if leading { eigen.some(0..r) } else { eigen.some(r..k) }?;
    // The projection of A on those vectors, from the left or from the right.
    let part = if wide {
        vectors.transposed().times(&vectors.times(a)?)?
    } else {
        a.times_transposed(&vectors)?.times(&vectors)?
    };
    if leading { Some(part) } else { a.clone().minus(&part) }
}

/// `Aᵀ A`, the lower triangle only.
fn gram(a: &Mat) -> Option<Mat> {
    let n = a.cols();
    let mut out = Mat::zeros(n, n)?;
    for k in 0..a.rows() {
        let row = a.row(k);
        for (i, x) in row.iter().enumerate() {
            add_scaled(&mut out.row_mut(i)[..=i], *x, &row[..=i]);
        }
    }
    Some(out)
}

/// Rotates rows of `b`, and the same rows of `v`, until those of `b` are orthogonal. `None` when it does not converge.
fn jacobi(b: &mut Mat, v: &mut Mat) -> Option<()> {
    let n = b.rows();
    let largest = (0..n).map(|i| dot(b.row(i), b.row(i))).fold(0.0, f64::max);
    // Below this the product is rounding of the largest row, and no rotation would better it.
    let floor = largest * f64::EPSILON * f64::EPSILON;
    let rounding = 8.0 * f64::EPSILON * norm(&vec![1.0; b.cols()]);
    for _ in 0..40 {
        let mut rotated = false;
        let mut squares: Vec<f64> = (0..n).map(|i| dot(b.row(i), b.row(i))).collect();
        for i in 0..n {
            for j in i + 1..n {
                let along = dot(b.row(i), b.row(j));
                if along.abs() <= floor.max(rounding * (squares[i] * squares[j]).sqrt()) {
                    continue;
                }
                rotated = true;
                let zeta = (squares[j] - squares[i]) / (2.0 * along);
                let t = 1.0f64.copysign(zeta) / (zeta.abs() + zeta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let s = c * t;
                let (x, y) = b.two_rows(i, j);
                rotate(x, y, c, s);
                squares[i] = dot(x, x);
                squares[j] = dot(y, y);
                let (x, y) = v.two_rows(i, j);
                rotate(x, y, c, s);
            }
        }
        if !rotated {
            return Some(());
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "the numbers are as Python printed them")]
mod tests {
    use super::*;
    use crate::maths::torch_random::TorchRandom;

    fn random(seed: u64, rows: usize, cols: usize) -> Mat {
        Mat::new(rows, cols, TorchRandom::new(seed).uniform64(rows * cols, -1.0, 1.0)).unwrap()
    }

    fn furthest(a: &Mat, b: &Mat) -> f64 {
        assert_eq!((a.rows(), a.cols()), (b.rows(), b.cols()));
        a.data().iter().zip(b.data()).fold(0.0, |m, (a, b)| f64::max(m, (a - b).abs()))
    }

    fn whole(x: &Svd) -> Mat {
        let mut us = x.ut.clone();
        for (i, s) in x.s.iter().enumerate() {
            us.row_mut(i).iter_mut().for_each(|u| *u *= s);
        }
        us.transposed().times(&x.vt).unwrap()
    }

    /// The tables are of numpy 2: `python tests/golden/maths.py linalg`.
    #[test]
    fn singular_values_are_numpys() {
        let a = random(3, 7, 5);
        let x = svd(&a).unwrap();
        close(&x.s, SINGULAR);
        let t = truncated(&a, 2).unwrap();
        close(&t.data()[..4], RANK_TWO);
        close(&truncated(&a, 4).unwrap().data()[..4], RANK_FOUR);
        let wide = random(3, 5, 7);
        close(&truncated(&wide, 1).unwrap().data()[..4], WIDE);
        let long = random(3, 60, 40);
        let x = svd(&long).unwrap();
        close(&[x.s[0], x.s[20], x.s[39]], LONG);
        close(&truncated(&long, 3).unwrap().data()[..4], LONG_THREE);
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        got.iter().zip(want).for_each(|(g, w)| assert!((g - w).abs() < 1e-12, "{g} {w}"));
    }

    #[test]
    fn the_parts_are_orthonormal_and_make_the_whole() {
        for (rows, cols) in [(1, 1), (1, 9), (9, 1), (6, 6), (33, 20), (20, 33), (64, 64)] {
            let a = random(7, rows, cols);
            let x = svd(&a).unwrap();
            assert!(furthest(&whole(&x), &a) < 1e-13);
            for side in [&x.ut, &x.vt] {
                let eye = side.times_transposed(side).unwrap();
                assert!(furthest(&eye, &Mat::identity(rows.min(cols)).unwrap()) < 1e-13);
            }
            assert!(x.s.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn small_singular_values_are_right_to_the_largest_ones_rounding() {
        // Orthonormal factors around 1, 1e-3, 1e-6, …: the Gram matrix alone loses all from the fourth on.
        let (q, _) = random(11, 30, 8).qr().unwrap();
        let (p, _) = random(12, 8, 8).qr().unwrap();
        let s: Vec<f64> = (0..8).map(|i| 10f64.powi(-3 * i)).collect();
        let mut us = q.transposed();
        (0..8).for_each(|i| us.row_mut(i).iter_mut().for_each(|u| *u *= s[i]));
        let a = us.transposed().times(&p).unwrap();
        let x = svd(&a).unwrap();
        x.s.iter().zip(&s).for_each(|(got, want)| assert!((got - want).abs() < 1e-15, "{got} {want}"));
        assert!(furthest(&whole(&x), &a) < 1e-15);
    }

    #[test]
    fn truncations_agree_with_the_whole_at_every_rank() {
        for (rows, cols) in [(24, 16), (16, 24), (40, 40)] {
            let a = random(5, rows, cols);
            for r in 0..=rows.min(cols) + 1 {
                let mut x = svd(&a).unwrap();
                x.s.iter_mut().skip(r).for_each(|s| *s = 0.0);
                assert!(furthest(&whole(&x), &truncated(&a, r).unwrap()) < 1e-12, "{rows} {cols} {r}");
            }
        }
    }

    #[test]
    fn equal_singular_values_and_ranks_that_are_not_full_end() {
        for n in [1usize, 2, 5, 32] {
            let one = Mat::identity(n).unwrap();
            assert!(svd(&one).unwrap().s.iter().all(|s| (s - 1.0).abs() < 1e-14));
            let zero = Mat::zeros(n, n).unwrap();
            assert!(svd(&zero).unwrap().s.iter().all(|s| *s == 0.0));
            assert_eq!(truncated(&zero, n / 2).unwrap(), zero);
            // Whichever of the equal directions are kept: the answer has their number.
            let kept: f64 = truncated(&one, n / 4).unwrap().data().iter().map(|x| x * x).sum();
            assert!((kept - (n / 4) as f64).abs() < 1e-12);
        }
        // Rank 3, of blocks.
        let a = random(2, 30, 3).times(&random(4, 3, 20)).unwrap();
        assert!(furthest(&truncated(&a, 3).unwrap(), &a) < 1e-13);
        assert!(svd(&a).unwrap().s[3] < 1e-14);
    }

    #[test]
    fn what_is_no_number_has_no_decomposition() {
        let a = Mat::new(2, 2, vec![1.0, f64::NAN, 0.0, 1.0]).unwrap();
        assert!(svd(&a).is_none() && truncated(&a, 1).is_none() && truncated(&a, 2).is_none());
        let huge = Mat::new(2, 2, vec![1e300; 4]).unwrap();
        assert!(svd(&huge).is_none());
        assert!(svd(&Mat::zeros(0, 0).unwrap()).unwrap().s.is_empty());
        assert_eq!(truncated(&Mat::zeros(0, 3).unwrap(), 0).unwrap().cols(), 3);
    }

    #[test]
    #[ignore = "a timing: cargo test --release -p polygraft-formats --lib maths -- --ignored --nocapture"]
    fn how_long_it_takes() {
        for (rows, cols) in [(384, 384), (1536, 384), (3072, 768)] {
            let a = random(1, rows, cols);
            for r in [16, cols / 2] {
                let start = std::time::Instant::now();
                let t = truncated(&a, r).unwrap();
                println!("{rows} × {cols}, rank {r}: {:?} {}", start.elapsed(), t.data()[0]);
            }
            let start = std::time::Instant::now();
            let x = svd(&a).unwrap();
            println!("{rows} × {cols}, all: {:?}, off by {:e}", start.elapsed(), furthest(&whole(&x), &a));
        }
    }

    const SINGULAR: &[f64] =
        &[2.3590883976041983, 1.800907938663093, 1.5813300072437608, 0.8076206254015497, 0.6827941945523869];
    const RANK_TWO: &[f64] = &[-0.5323140514778593, 0.2500578070101563, 0.4250145305071349, -0.07540973383943561];
    const RANK_FOUR: &[f64] = &[-0.8164854537537157, -0.5611839667709931, 0.4825613913701156, -0.4644742791311159];
    const WIDE: &[f64] = &[-0.329451160870608, 0.24930912070035754, 0.47715462327694236, -0.36509706482329224];
    const LONG: &[f64] = &[8.291018003766107, 3.929955368241543, 1.0357830196054494];
    const LONG_THREE: &[f64] = &[-0.19717836260173924, 0.085787959366701, -0.1030084684588426, -0.20412206827498963];
}
