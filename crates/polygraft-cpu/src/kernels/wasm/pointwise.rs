//! What happens to activations one by one: rounding to 8 bits, GELU, softmax.

use super::{Code, RUN, SIDE, add_product, load};
use crate::math::{EXP, EXP_LN2, GELU_ERF, GELU_LIMIT, ROUND};
use std::arch::wasm32::*;

/// A block of 32 inputs in 8 bits, among the codes of its group: see [`crate::quantize`], whose numbers these are. Gives
/// scale and corrections: in whole where the kernels take them so, else in two halves.
///
/// # Safety
/// 32 floats can be read at `x`; a group's block can be written at `codes`.
pub(in crate::kernels) unsafe fn quantize(x: *const f32, codes: *mut Code, side: usize, whole: bool) -> (f32, i32) {
    // SAFETY: as the caller promised.
    unsafe {
        let x: [v128; 8] = std::array::from_fn(|i| load(x.add(4 * i)));
        let mut peak = i32x4_splat(0);
        for x in x {
            peak = i32x4_max(peak, v128_and(x, u32x4_splat(0x7fff_ffff)));
        }
        let peak = i32x4_max(peak, i32x4_shuffle::<2, 3, 0, 1>(peak, peak));
        let peak = i32x4_max(peak, i32x4_shuffle::<1, 0, 3, 2>(peak, peak));
        let scale = f32x4_extract_lane::<0>(peak) / 127.0;
        let inverse = f32x4_splat(if scale > 0.0 { 1.0 / scale } else { 0.0 });
        let round = f32x4_splat(ROUND);
        let rounded = x.map(|x| i32x4_sub(f32x4_add(f32x4_mul(x, inverse), round), round));
        let mut sums = i32x4_splat(0);
        for (i, two) in rounded.as_chunks::<2>().0.iter().enumerate() {
            let eight = i16x8_narrow_i32x4(two[0], two[1]);
            sums = i32x4_add(sums, i32x4_dot_i16x8(eight, i16x8_splat(1)));
            put(eight, codes.add((i * 8 * SIDE) + side * RUN));
        }
        let sums = i32x4_mul(i32x4_add(sums, i32x4_shuffle::<2, 3, 0, 1>(sums, sums)), i32x4_splat(-8));
        let (even, odd) = (i32x4_extract_lane::<0>(sums), i32x4_extract_lane::<1>(sums));
        (scale, if whole { even.wrapping_add(odd) } else { even & 0xffff | odd << 16 })
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
            v128_store32_lane::<0>(eight, codes.cast());
            v128_store32_lane::<1>(eight, codes.add(RUN * SIDE).cast());
            v128_store32_lane::<2>(eight, codes.add(2 * RUN * SIDE).cast());
            v128_store32_lane::<3>(eight, codes.add(3 * RUN * SIDE).cast());
        }
    }
}

/// [`crate::math::gelu_fast`], in place.
pub(in crate::kernels) fn gelu_fast(x: &mut [f32]) {
    each(x, |x| {
        let limit = f32x4_splat(GELU_LIMIT);
        let c = f32x4_pmin(limit, f32x4_pmax(f32x4_neg(limit), x));
        let z = f32x4_mul(c, c);
        let mut p = f32x4_splat(GELU_ERF[0]);
        for &k in &GELU_ERF[1..] {
            p = add_product(f32x4_splat(k), p, z);
        }
        let half = f32x4_mul(f32x4_splat(0.5), x);
        add_product(half, half, f32x4_mul(c, p))
    });
}

/// `exp(x)`, as [`crate::math::exp`] computes it.
#[inline(always)]
fn exp(x: v128) -> v128 {
    let splat = |x: f32| f32x4_splat(x);
    let low = f32x4_lt(x, splat(-87.0));
    let x = f32x4_pmin(splat(88.0), f32x4_pmax(splat(-87.0), x));
    let shifted = add_product(splat(ROUND), x, splat(std::f32::consts::LOG2_E));
    let n = f32x4_sub(shifted, splat(ROUND));
    let r = add_product(add_product(x, n, splat(-EXP_LN2[0])), n, splat(-EXP_LN2[1]));
    let mut p = splat(EXP[0]);
    for &k in &EXP[1..] {
        p = add_product(splat(k), p, r);
    }
    let p = f32x4_add(add_product(r, f32x4_mul(r, r), p), splat(1.0));
    let power = i32x4_add(i32x4_shl(shifted, 23), i32x4_splat(0x3f80_0000));
    v128_andnot(f32x4_mul(p, power), low)
}

/// `exp(scale · (x − peak))` in place; the sum. Every element and partial sum stands in a lane by its place alone.
pub(in crate::kernels) fn softmax(x: &mut [f32], scale: f32) -> f32 {
    let mut peak = f32x4_splat(f32::NEG_INFINITY);
    let (main, rest) = x.as_chunks_mut::<4>();
    let vector = |x: &[f32; 4]| f32x4(x[0], x[1], x[2], x[3]);
    let scale = f32x4_splat(scale);
    let mut last = [f32::NEG_INFINITY; 4];
    last[..rest.len()].copy_from_slice(rest);
    let tail = f32x4_mul(vector(&last), scale);
    for x in &mut *main {
        // SAFETY: four floats are here.
        let scaled = unsafe { f32x4_mul(load(x.as_ptr()), scale) };
        peak = f32x4_pmax(peak, scaled);
    }
    let peak = f32x4_pmax(peak, tail);
    let peak = f32x4_pmax(peak, i32x4_shuffle::<2, 3, 0, 1>(peak, peak));
    let peak = f32x4_pmax(peak, i32x4_shuffle::<1, 0, 3, 2>(peak, peak));
    let mut sum = f32x4_splat(0.0);
    for x in main {
        // SAFETY: four floats are here.
        unsafe {
            let e = exp(f32x4_sub(f32x4_mul(load(x.as_ptr()), scale), peak));
            v128_store(x.as_mut_ptr().cast(), e);
            sum = f32x4_add(sum, e);
        }
    }
    if !rest.is_empty() {
        let e = exp(f32x4_sub(tail, peak));
        // SAFETY: four floats are here.
        unsafe { v128_store(last.as_mut_ptr().cast(), e) };
        rest.copy_from_slice(&last[..rest.len()]);
        sum = f32x4_add(sum, e);
    }
    let sum = f32x4_add(sum, i32x4_shuffle::<2, 3, 0, 1>(sum, sum));
    f32x4_extract_lane::<0>(sum) + f32x4_extract_lane::<1>(sum)
}

/// Applies `f` to every four.
#[inline(always)]
fn each(x: &mut [f32], f: impl Fn(v128) -> v128) {
    let (main, rest) = x.as_chunks_mut::<4>();
    for x in main {
        // SAFETY: four floats are here.
        unsafe { v128_store(x.as_mut_ptr().cast(), f(load(x.as_ptr()))) };
    }
    if !rest.is_empty() {
        let mut last = [0.0; 4];
        last[..rest.len()].copy_from_slice(rest);
        // SAFETY: four floats are here.
        unsafe { v128_store(last.as_mut_ptr().cast(), f(load(last.as_ptr()))) };
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// [`crate::norm::norm`], with the same sums in more lanes.
pub(in crate::kernels) fn norm(x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let n = x.len() as f32;
    let total = |sum: v128| {
        let sum = f32x4_add(sum, i32x4_shuffle::<2, 3, 0, 1>(sum, sum));
        f32x4_extract_lane::<0>(sum) + f32x4_extract_lane::<1>(sum)
    };
    let (main, rest) = x.as_chunks_mut::<4>();
    let mut sum = f32x4_splat(0.0);
    for x in &*main {
        // SAFETY: four floats are here.
        sum = f32x4_add(sum, unsafe { load(x.as_ptr()) });
    }
    let mean = (total(sum) + rest.iter().sum::<f32>()) / n;
    let (mut sum, mut square) = (f32x4_splat(0.0), f32x4_splat(0.0));
    for x in &mut *main {
        // SAFETY: four floats are here.
        unsafe {
            let d = f32x4_sub(load(x.as_ptr()), f32x4_splat(mean));
            v128_store(x.as_mut_ptr().cast(), d);
            sum = f32x4_add(sum, d);
            square = add_product(square, d, d);
        }
    }
    let (mut left, mut squares) = (total(sum), total(square));
    for x in &mut *rest {
        *x -= mean;
        left += *x;
        squares += *x * *x;
    }
    left /= n;
    let inverse = 1.0 / ((squares / n - left * left).max(0.0) + eps).sqrt();
    let (gammas, betas) = (gamma.as_chunks::<4>().0, beta.as_chunks::<4>().0);
    for ((x, g), b) in main.iter_mut().zip(gammas).zip(betas) {
        // SAFETY: four floats are in each.
        unsafe {
            let scaled = f32x4_mul(f32x4_sub(load(x.as_ptr()), f32x4_splat(left)), f32x4_splat(inverse));
            v128_store(x.as_mut_ptr().cast(), add_product(load(b.as_ptr()), scaled, load(g.as_ptr())));
        }
    }
    let done = main.len() * 4;
    for ((x, g), b) in rest.iter_mut().zip(&gamma[done..]).zip(&beta[done..]) {
        *x = (*x - left) * inverse * g + b;
    }
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
