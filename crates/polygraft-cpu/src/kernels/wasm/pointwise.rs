//! What happens to activations one by one: rounding to 8 bits, GELU, softmax.
//!
//! Loops take sixteen numbers a turn: an engine makes a constant anew in every turn, three instructions for the one that
//! uses it.

#[cfg(not(target_feature = "relaxed-simd"))]
use super::whole::put_words;
use super::whole::{highest, whole};
use super::{Code, RUN, SIDE, add_product, load};
use crate::math::{EXP, EXP_LN2, GELU_ERF, GELU_LIMIT, ROUND};
use std::arch::wasm32::*;

/// A block of 32 inputs in 8 bits, among the codes of its group: see [`crate::quantize`], whose numbers these are. Gives
/// scale and correction.
///
/// # Safety
/// 32 floats can be read at `x`; a group's block can be written at `codes`.
pub(in crate::kernels) unsafe fn quantize(x: *const f32, codes: *mut Code, side: usize) -> (f32, i32) {
    // SAFETY: as the caller promised.
    unsafe {
        let (eights, scale) = whole(x, 127.0);
        // By hand: a loop would not be unrolled.
        let [a, b, c, d] = eights.map(|[low, high]| i16x8_narrow_i32x4(low, high));
        let sums = i32x4_dot_i16x8(i16x8_add(i16x8_add(a, b), i16x8_add(c, d)), i16x8_splat(1));
        put(a, codes.add(side * RUN));
        put(b, codes.add(8 * SIDE + side * RUN));
        put(c, codes.add(16 * SIDE + side * RUN));
        put(d, codes.add(24 * SIDE + side * RUN));
        let sums = i32x4_mul(i32x4_add(sums, i32x4_shuffle::<2, 3, 0, 1>(sums, sums)), i32x4_splat(-8));
        (scale, i32x4_extract_lane::<0>(sums).wrapping_add(i32x4_extract_lane::<1>(sums)))
    }
}

/// Eight codes of one row to their places.
///
/// # Safety
/// The runs that they make up can be written, [`SIDE`] apart, from `codes` on.
#[inline(always)]
unsafe fn put(eight: v128, codes: *mut Code) {
    // SAFETY: as the caller promised; the stores need no alignment.
    unsafe {
        #[cfg(target_feature = "relaxed-simd")]
        {
            let eight = i8x16_narrow_i16x8(eight, eight);
            v128_store32_lane::<0>(eight, codes.cast());
            v128_store32_lane::<1>(eight, codes.add(RUN * SIDE).cast());
        }
        #[cfg(not(target_feature = "relaxed-simd"))]
        {
            // The pairs of inputs that a mask of half words cuts out of a weight word: see `pack`.
            let eight = i16x8_shuffle::<0, 2, 4, 6, 1, 3, 5, 7>(eight, eight);
            put_words::<SIDE>(eight, codes.cast());
        }
    }
}

/// [`crate::math::gelu_fast`], in place.
pub(in crate::kernels) fn gelu_fast(x: &mut [f32]) {
    each(x, 0.0, |x| {
        let limit = f32x4_splat(GELU_LIMIT);
        let c = x.map(|x| f32x4_pmin(limit, f32x4_pmax(f32x4_neg(limit), x)));
        let p = polynomial(&GELU_ERF, c.map(|c| f32x4_mul(c, c)));
        let half = x.map(|x| f32x4_mul(f32x4_splat(0.5), x));
        std::array::from_fn(|i| add_product(half[i], half[i], f32x4_mul(c[i], p[i])))
    });
}

/// A polynomial of each, the highest power first.
#[inline(always)]
pub(super) fn polynomial<const K: usize>(factors: &[f32; K], x: [v128; 4]) -> [v128; 4] {
    let mut p = [f32x4_splat(factors[0]); 4];
    for &k in &factors[1..] {
        p = std::array::from_fn(|i| add_product(f32x4_splat(k), p[i], x[i]));
    }
    p
}

/// `exp(x)` of each, as [`crate::math::exp`] computes it.
#[inline(always)]
fn exp(x: [v128; 4]) -> [v128; 4] {
    let splat = |x: f32| f32x4_splat(x);
    let low = x.map(|x| f32x4_lt(x, splat(-87.0)));
    // In this order a NaN stays one.
    let x = x.map(|x| f32x4_pmin(f32x4_pmax(x, splat(-87.0)), splat(88.0)));
    let shifted = x.map(|x| add_product(splat(ROUND), x, splat(std::f32::consts::LOG2_E)));
    let r: [v128; 4] = std::array::from_fn(|i| {
        let n = f32x4_sub(shifted[i], splat(ROUND));
        add_product(add_product(x[i], n, splat(-EXP_LN2[0])), n, splat(-EXP_LN2[1]))
    });
    let p = polynomial(&EXP, r);
    std::array::from_fn(|i| {
        let p = f32x4_add(add_product(r[i], f32x4_mul(r[i], r[i]), p[i]), splat(1.0));
        let power = i32x4_add(i32x4_shl(shifted[i], 23), i32x4_splat(0x3f80_0000));
        v128_andnot(f32x4_mul(p, power), low[i])
    })
}

/// `exp(scale · (x − peak))` in place; the sum. Every element and partial sum stands in a lane by its place alone.
pub(in crate::kernels) fn softmax(x: &mut [f32], scale: f32) -> f32 {
    let by = f32x4_splat(scale);
    let mut peaks = [f32x4_splat(f32::NEG_INFINITY); 4];
    each(x, f32::NEG_INFINITY, |x| {
        let scaled = x.map(|x| f32x4_mul(x, by));
        peaks = std::array::from_fn(|i| f32x4_pmax(peaks[i], scaled[i]));
        scaled
    });
    let [a, b, c, d] = peaks;
    let peak = highest(f32x4_pmax(f32x4_pmax(a, b), f32x4_pmax(c, d)));
    let mut sums = [f32x4_splat(0.0); 4];
    each(x, f32::NEG_INFINITY, |x| {
        let e = exp(x.map(|x| f32x4_sub(x, peak)));
        sums = each_sum(sums, e);
        e
    });
    total(sums)
}

/// Applies `f` to every sixteen; `fill` stands for what is not there.
#[inline(always)]
fn each(x: &mut [f32], fill: f32, mut f: impl FnMut([v128; 4]) -> [v128; 4]) {
    let (main, rest) = x.as_chunks_mut::<16>();
    for x in main {
        let y = f(fours(x));
        store(x, y);
    }
    if !rest.is_empty() {
        let mut last = [fill; 16];
        last[..rest.len()].copy_from_slice(rest);
        let y = f(fours(&last));
        store(&mut last, y);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[inline(always)]
pub(super) fn fours(x: &[f32; 16]) -> [v128; 4] {
    // SAFETY: sixteen floats are here.
    std::array::from_fn(|i| unsafe { load(x.as_ptr().add(4 * i)) })
}

#[inline(always)]
fn store(to: &mut [f32; 16], x: [v128; 4]) {
    for (i, x) in x.into_iter().enumerate() {
        // SAFETY: sixteen floats are here.
        unsafe { v128_store(to.as_mut_ptr().add(4 * i).cast(), x) };
    }
}

/// The sum of all lanes.
#[inline(always)]
fn total([a, b, c, d]: [v128; 4]) -> f32 {
    let sum = f32x4_add(f32x4_add(a, b), f32x4_add(c, d));
    let sum = f32x4_add(sum, i32x4_shuffle::<2, 3, 0, 1>(sum, sum));
    f32x4_extract_lane::<0>(sum) + f32x4_extract_lane::<1>(sum)
}

/// [`crate::norm::norm`], with the same sums in more lanes.
pub(in crate::kernels) fn norm(x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let n = x.len() as f32;
    let (main, rest) = x.as_chunks_mut::<16>();
    let zeros = [f32x4_splat(0.0); 4];
    let sums = main.iter().fold(zeros, |sums, x| each_sum(sums, fours(x)));
    let mean = (total(sums) + rest.iter().sum::<f32>()) / n;
    let (mut sums, mut squares) = (zeros, zeros);
    for x in &mut *main {
        let d = fours(x).map(|x| f32x4_sub(x, f32x4_splat(mean)));
        store(x, d);
        sums = each_sum(sums, d);
        squares = std::array::from_fn(|i| add_product(squares[i], d[i], d[i]));
    }
    let (mut left, mut square) = (total(sums), total(squares));
    for x in &mut *rest {
        *x -= mean;
        left += *x;
        square += *x * *x;
    }
    left /= n;
    let inverse = 1.0 / ((square / n - left * left).max(0.0) + eps).sqrt();
    let (gammas, betas) = (gamma.as_chunks::<16>().0, beta.as_chunks::<16>().0);
    for ((x, g), b) in main.iter_mut().zip(gammas).zip(betas) {
        let (d, g, b) = (fours(x), fours(g), fours(b));
        let scaled = d.map(|d| f32x4_mul(f32x4_sub(d, f32x4_splat(left)), f32x4_splat(inverse)));
        store(x, std::array::from_fn(|i| add_product(b[i], scaled[i], g[i])));
    }
    let done = main.len() * 16;
    for ((x, g), b) in rest.iter_mut().zip(&gamma[done..]).zip(&beta[done..]) {
        *x = (*x - left) * inverse * g + b;
    }
}

#[inline(always)]
fn each_sum(a: [v128; 4], b: [v128; 4]) -> [v128; 4] {
    std::array::from_fn(|i| f32x4_add(a[i], b[i]))
}

/// `x += y`.
pub(in crate::kernels) fn add(x: &mut [f32], y: &[f32]) {
    let (main, rest) = x.as_chunks_mut::<4>();
    let (others, last) = y.as_chunks::<4>();
    for (x, y) in main.iter_mut().zip(others) {
        // SAFETY: four floats are in each.
        unsafe { v128_store(x.as_mut_ptr().cast(), f32x4_add(load(x.as_ptr()), load(y.as_ptr()))) };
    }
    rest.iter_mut().zip(last).for_each(|(x, y)| *x += y);
}

/// Eight rows of `d` floats, `stride` apart, to `[d][8]`.
///
/// # Safety
/// The rows can be read at `from`, `8 d` floats written at `to`; `d` is a multiple of four.
pub(in crate::kernels) unsafe fn transpose(from: *const f32, stride: usize, d: usize, to: *mut f32) {
    for half in 0..2 {
        for at in (0..d).step_by(4) {
            // SAFETY: as the caller promised.
            unsafe {
                let from = from.add(half * 4 * stride + at);
                let [a, b, c, e] = std::array::from_fn(|r| load(from.add(r * stride)));
                let (ab, cd) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<0, 4, 1, 5>(c, e));
                let (high_ab, high_cd) = (i32x4_shuffle::<2, 6, 3, 7>(a, b), i32x4_shuffle::<2, 6, 3, 7>(c, e));
                let columns = [
                    i64x2_shuffle::<0, 2>(ab, cd),
                    i64x2_shuffle::<1, 3>(ab, cd),
                    i64x2_shuffle::<0, 2>(high_ab, high_cd),
                    i64x2_shuffle::<1, 3>(high_ab, high_cd),
                ];
                for (k, column) in columns.into_iter().enumerate() {
                    v128_store(to.add((at + k) * 8 + half * 4).cast(), column);
                }
            }
        }
    }
}
