//! One head of one row on integers, where a product of four bytes is one instruction: four queries at a time, from their
//! scores to their context.
//!
//! * Scores are products of queries in 8 bits with keys in 7, offset by 64 so that they are the relaxed product's
//!   non-negative side; a scale for each query and each key.
//! * Weights are at most 1 and have 14 bits, in two planes of 7; values have 8 bits, a scale for each dimension of 32
//!   keys. The sum of the weights is that of the integers, so that they add up to 1.

use super::pointwise::quantize;
use super::{SIDE, add_product, black_box, block_q4, corrections, load, runs};
use crate::kernels::{Attention, Coded};
use crate::math::ROUND;
use crate::pack::LANES;
use polygraft::quant::BLOCK;
use std::arch::wasm32::*;

/// Words of four in a block.
const WORDS: usize = BLOCK / 4;

/// Panels of dimensions in a head.
const PANELS: usize = BLOCK / LANES;

/// The weight of the query's best key.
const ONE: f32 = 16_256.0;

/// `ONE · 2ˣ` on −½ to ½ within 3e-6, the highest power first.
const POWER: [f32; 5] = [0.009_582_85 * ONE, 0.055_906_43 * ONE, 0.240_240_99 * ONE, 0.693_124_2 * ONE, ONE];

/// Queries, keys and values are [`BLOCK`] wide.
///
/// # Safety
/// As many rows as there are queries, and as many as there are keys, can be read, `stride` apart; as many as there are
/// queries written at `y`.
pub(in crate::kernels) unsafe fn attend(head: Attention<'_>, coded: &mut Coded, y: &mut [f32]) {
    let (panels, blocks) = (head.keys.div_ceil(LANES), head.keys.div_ceil(BLOCK));
    // SAFETY: as the caller promised; what is written below fits what is made room for here.
    unsafe {
        if coded.of != Some(head.of) {
            pack_keys(&head, coded, panels);
            pack_values(&head, coded, blocks);
            coded.of = Some(head.of);
        }
        coded.scores.resize(SIDE * panels * LANES, 0.0);
        coded.weights.resize(blocks * 2 * WORDS * SIDE, 0);
        for first in (0..head.queries).step_by(SIDE) {
            let rows = SIDE.min(head.queries - first);
            let mut codes = [0i8; BLOCK * SIDE];
            let (mut scales, mut offsets) = ([0.0; SIDE], [0; SIDE]);
            for row in 0..rows {
                let query = head.q.as_ptr().add((first + row) * head.stride);
                let (scale, offset) = quantize(query, codes.as_mut_ptr(), row, true);
                // Sums start from −64 × the codes' sum; a query's scale carries what turns scores into powers of 2.
                (scales[row], offsets[row]) = (scale * head.scale * std::f32::consts::LOG2_E, 8 * offset);
            }
            score(coded, panels, &codes, &scales, &offsets);
            let mut inverses = [0.0; SIDE];
            for row in 0..rows {
                inverses[row] = 1.0 / weigh(coded, head.keys, panels, row) as f32;
            }
            let to = y.as_mut_ptr().add(first * head.stride);
            sum(coded, head.keys, blocks, &inverses[..rows], to, head.stride);
        }
    }
}

/// # Safety
/// See [`attend`].
unsafe fn pack_keys(head: &Attention<'_>, coded: &mut Coded, panels: usize) {
    coded.keys.clear();
    coded.keys.resize(panels * WORDS * LANES, 0);
    coded.key_scales.clear();
    coded.key_scales.resize(panels * LANES, 0.0);
    for key in 0..head.keys {
        // SAFETY: as the caller promised.
        unsafe {
            let from = head.k.as_ptr().add(key * head.stride);
            let x: [v128; WORDS] = std::array::from_fn(|i| load(from.add(4 * i)));
            let peak = largest(x.iter().fold(i32x4_splat(0), |peak, &x| bits_max(peak, x)));
            let (scale, inverse) = scales(f32x4_splat(peak), 63.0);
            coded.key_scales[key] = f32x4_extract_lane::<0>(scale);
            let to = coded.keys.as_mut_ptr().add(key / LANES * WORDS * LANES + key % LANES);
            for (i, two) in x.as_chunks::<2>().0.iter().enumerate() {
                let [a, b] = two.map(|x| i32x4_add(rounded(x, inverse), i32x4_splat(64)));
                let words = u8x16_narrow_i16x8(i16x8_narrow_i32x4(a, b), i16x8_splat(0));
                v128_store32_lane::<0>(words, to.add(2 * i * LANES));
                v128_store32_lane::<1>(words, to.add((2 * i + 1) * LANES));
            }
        }
    }
}

/// # Safety
/// See [`attend`].
unsafe fn pack_values(head: &Attention<'_>, coded: &mut Coded, blocks: usize) {
    coded.values.resize(PANELS * blocks * WORDS * LANES, 0);
    coded.value_scales.resize(PANELS * blocks * LANES, 0.0);
    let zero = i32x4_splat(0);
    for block in 0..blocks {
        let keys = block * BLOCK..head.keys.min((block + 1) * BLOCK);
        for four in 0..BLOCK / 4 {
            // SAFETY: as the caller promised; `four` is half of a panel.
            unsafe {
                let from = head.v.as_ptr().add(4 * four);
                let peak = keys.clone().fold(zero, |peak, key| bits_max(peak, load(from.add(key * head.stride))));
                let (scale, inverse) = scales(peak, 127.0);
                let at = four / 2 * blocks + block;
                v128_store(coded.value_scales.as_mut_ptr().add(at * LANES + four % 2 * 4).cast(), scale);
                let to = coded.values.as_mut_ptr().add(at * WORDS * LANES + four % 2 * 4);
                for (word, first) in keys.clone().step_by(4).enumerate() {
                    let codes: [v128; 4] = std::array::from_fn(|i| {
                        let key = first + i;
                        if key >= keys.end {
                            return zero;
                        }
                        v128_and(rounded(load(from.add(key * head.stride)), inverse), i32x4_splat(255))
                    });
                    let [a, b, c, d] = codes;
                    let low = v128_or(a, i32x4_shl(b, 8));
                    let high = v128_or(i32x4_shl(c, 16), i32x4_shl(d, 24));
                    v128_store(to.add(word * LANES).cast(), v128_or(low, high));
                }
            }
        }
    }
}

/// The scores of four queries, as powers of 2, in `coded.scores`.
///
/// # Safety
/// `panels` panels of keys are there, and room for their scores.
unsafe fn score(coded: &mut Coded, panels: usize, codes: &[i8], scales: &[f32; SIDE], offsets: &[i32; SIDE]) {
    let turns = black_box(WORDS);
    let add = |sum, a, w| i32x4_relaxed_dot_i8x16_i7x16_add(a, w, sum);
    for panel in 0..panels {
        // SAFETY: as the caller promised; four rows of codes are there.
        unsafe {
            let words = coded.keys.as_ptr().add(panel * WORDS * LANES);
            let dots = block_q4(words, codes.as_ptr(), turns, corrections(offsets.as_ptr()), runs, add);
            let own = coded.key_scales.as_ptr().add(panel * LANES);
            let own = [load(own), load(own.add(4))];
            for (row, (dots, &scale)) in dots.into_iter().zip(scales).enumerate() {
                let to = coded.scores.as_mut_ptr().add((row * panels + panel) * LANES);
                for (half, (dot, own)) in dots.into_iter().zip(own).enumerate() {
                    let score = f32x4_mul(f32x4_convert_i32x4(dot), f32x4_mul(own, f32x4_splat(scale)));
                    v128_store(to.add(4 * half).cast(), score);
                }
            }
        }
    }
}

/// The weights of query `row` from its scores, in two planes, and their sum.
///
/// # Safety
/// The scores are there, and room for the weights.
unsafe fn weigh(coded: &mut Coded, keys: usize, panels: usize, row: usize) -> i32 {
    let scores = &mut coded.scores[row * panels * LANES..][..panels * LANES];
    scores[keys..].fill(f32::NEG_INFINITY);
    let (eights, _) = scores.as_chunks::<LANES>();
    let mut peak = f32x4_splat(f32::NEG_INFINITY);
    let mut sum = i32x4_splat(0);
    // SAFETY: eight scores are in each; the weights of eight keys are two words of both planes.
    unsafe {
        for eight in eights {
            let [a, b] = [load(eight.as_ptr()), load(eight.as_ptr().add(4))];
            peak = f32x4_pmax(f32x4_pmax(peak, a), b);
        }
        let peak = f32x4_pmax(peak, i32x4_shuffle::<2, 3, 0, 1>(peak, peak));
        let peak = f32x4_pmax(peak, i32x4_shuffle::<1, 0, 3, 2>(peak, peak));
        for (at, eight) in eights.iter().enumerate() {
            let [a, b] = [0, 4].map(|i| power(f32x4_sub(load(eight.as_ptr().add(i)), peak)));
            sum = i32x4_add(sum, i32x4_add(a, b));
            let both = i16x8_narrow_i32x4(a, b);
            let planes = u8x16_narrow_i16x8(u16x8_shr(both, 7), v128_and(both, i16x8_splat(127)));
            let word = at % (BLOCK / LANES) * 2;
            let to = coded.weights.as_mut_ptr().add((at / (BLOCK / LANES) * 2 * WORDS + word) * SIDE + row);
            v128_store32_lane::<0>(planes, to);
            v128_store32_lane::<1>(planes, to.add(SIDE));
            v128_store32_lane::<2>(planes, to.add(WORDS * SIDE));
            v128_store32_lane::<3>(planes, to.add((WORDS + 1) * SIDE));
        }
    }
    let sum = i32x4_add(sum, i32x4_shuffle::<2, 3, 0, 1>(sum, sum));
    i32x4_extract_lane::<0>(sum) + i32x4_extract_lane::<1>(sum)
}

/// `ONE · 2ˣ` for x ≤ 0, rounded; 0 far below.
#[inline(always)]
fn power(x: v128) -> v128 {
    let (x, round) = (f32x4_pmax(x, f32x4_splat(-30.0)), f32x4_splat(ROUND));
    let shifted = f32x4_add(x, round);
    let rest = f32x4_sub(x, f32x4_sub(shifted, round));
    let mut p = f32x4_splat(POWER[0]);
    for &k in &POWER[1..] {
        p = add_product(f32x4_splat(k), p, rest);
    }
    let power = i32x4_add(i32x4_shl(shifted, 23), i32x4_splat(0x3f80_0000));
    rounded(p, power)
}

/// The contexts of some queries of a group, from the weights of all four.
///
/// # Safety
/// Weights and values are there; a head's dimensions can be written at `to` for each row of `inverses`, `stride` apart.
unsafe fn sum(coded: &Coded, keys: usize, blocks: usize, inverses: &[f32], to: *mut f32, stride: usize) {
    let add = |sum, a, w| i32x4_relaxed_dot_i8x16_i7x16_add(w, a, sum);
    for panel in 0..PANELS {
        let mut sums = [[f32x4_splat(0.0); 2]; SIDE];
        for block in 0..blocks {
            let turns = (keys - block * BLOCK).min(BLOCK).div_ceil(4);
            let at = panel * blocks + block;
            // SAFETY: as the caller promised.
            unsafe {
                let values = coded.values.as_ptr().add(at * WORDS * LANES);
                let weights = coded.weights.as_ptr().add(block * 2 * WORDS * SIDE).cast();
                let dots = block_q4(values, weights, turns, [[i32x4_splat(0); 2]; SIDE], runs, add);
                let dots = dots.map(|dots| dots.map(|dot| i32x4_shl(dot, 7)));
                let dots = block_q4(values, weights.add(WORDS * SIDE * 4), turns, dots, runs, add);
                let scales = coded.value_scales.as_ptr().add(at * LANES);
                let scales = [load(scales), load(scales.add(4))];
                for (sums, dots) in sums.iter_mut().zip(dots) {
                    for ((sum, dot), scale) in sums.iter_mut().zip(dots).zip(scales) {
                        *sum = add_product(*sum, f32x4_convert_i32x4(dot), scale);
                    }
                }
            }
        }
        for (row, (sums, &inverse)) in sums.iter().zip(inverses).enumerate() {
            for (half, &sum) in sums.iter().enumerate() {
                // SAFETY: as the caller promised.
                unsafe {
                    let to = to.add(row * stride + panel * LANES + 4 * half);
                    v128_store(to.cast(), f32x4_mul(sum, f32x4_splat(inverse)));
                }
            }
        }
    }
}

/// The larger magnitudes by their bits, so that what is not finite is the largest.
#[inline(always)]
fn bits_max(peak: v128, x: v128) -> v128 {
    i32x4_max(peak, v128_and(x, u32x4_splat(0x7fff_ffff)))
}

/// The largest lane.
#[inline(always)]
fn largest(peak: v128) -> f32 {
    let peak = i32x4_max(peak, i32x4_shuffle::<2, 3, 0, 1>(peak, peak));
    f32x4_extract_lane::<0>(i32x4_max(peak, i32x4_shuffle::<1, 0, 3, 2>(peak, peak)))
}

/// What brings the largest magnitudes to `top`, and back: scales and their inverses, 0 for 0.
#[inline(always)]
fn scales(peak: v128, top: f32) -> (v128, v128) {
    let scale = f32x4_div(peak, f32x4_splat(top));
    let inverse = f32x4_div(f32x4_splat(1.0), scale);
    (scale, v128_and(inverse, f32x4_gt(scale, f32x4_splat(0.0))))
}

/// `x · by` to the nearest integer.
#[inline(always)]
fn rounded(x: v128, by: v128) -> v128 {
    let round = f32x4_splat(ROUND);
    i32x4_sub(f32x4_add(f32x4_mul(x, by), round), round)
}
