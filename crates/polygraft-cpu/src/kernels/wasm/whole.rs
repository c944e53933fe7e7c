//! Numbers as whole ones under a scale, and maxima over lanes.

use super::load;
use crate::math::ROUND;
use polygraft::quant::BLOCK;
use std::arch::wasm32::*;

/// [`BLOCK`] numbers as integers up to `top`, eight at a time, and their scale.
///
/// # Safety
/// They can be read at `from`.
#[inline(always)]
pub(super) unsafe fn whole(from: *const f32, top: f32) -> ([[v128; 2]; BLOCK / 8], f32) {
    // SAFETY: as the caller promised.
    let x: [v128; BLOCK / 4] = std::array::from_fn(|i| unsafe { load(from.add(4 * i)) });
    let peak = largest(x.iter().fold(i32x4_splat(0), |peak, &x| bits_max(peak, x)));
    let (scale, inverse) = scales(f32x4_splat(peak), top);
    let eights = std::array::from_fn(|i| [x[2 * i], x[2 * i + 1]].map(|x| rounded(x, inverse)));
    (eights, f32x4_extract_lane::<0>(scale))
}

/// The larger magnitudes by their bits, so that what is not finite is the largest.
#[inline(always)]
pub(super) fn bits_max(peak: v128, x: v128) -> v128 {
    i32x4_max(peak, v128_and(x, u32x4_splat(0x7fff_ffff)))
}

/// The largest lane.
#[inline(always)]
fn largest(peak: v128) -> f32 {
    let peak = i32x4_max(peak, i32x4_shuffle::<2, 3, 0, 1>(peak, peak));
    f32x4_extract_lane::<0>(i32x4_max(peak, i32x4_shuffle::<1, 0, 3, 2>(peak, peak)))
}

/// What brings the largest magnitudes to `top`, and back: scales and their inverses, 0 where that would be infinite.
#[inline(always)]
pub(super) fn scales(peak: v128, top: f32) -> (v128, v128) {
    let scale = f32x4_div(peak, f32x4_splat(top));
    let inverse = f32x4_div(f32x4_splat(1.0), scale);
    (scale, v128_and(inverse, f32x4_ge(scale, f32x4_splat(f32::MIN_POSITIVE))))
}

/// `x · by` to the nearest integer.
#[inline(always)]
pub(super) fn rounded(x: v128, by: v128) -> v128 {
    let round = f32x4_splat(ROUND);
    i32x4_sub(f32x4_add(f32x4_mul(x, by), round), round)
}

/// The largest lane, in all of them.
#[inline(always)]
pub(super) fn highest(x: v128) -> v128 {
    let x = f32x4_pmax(x, i32x4_shuffle::<2, 3, 0, 1>(x, x));
    f32x4_pmax(x, i32x4_shuffle::<1, 0, 3, 2>(x, x))
}

/// Four words, `APART` words from each other.
///
/// # Safety
/// They can be written from `to` on.
#[inline(always)]
pub(super) unsafe fn put_words<const APART: usize>(words: v128, to: *mut u32) {
    // SAFETY: as the caller promised.
    unsafe {
        v128_store32_lane::<0>(words, to);
        v128_store32_lane::<1>(words, to.add(APART));
        v128_store32_lane::<2>(words, to.add(2 * APART));
        v128_store32_lane::<3>(words, to.add(3 * APART));
    }
}
