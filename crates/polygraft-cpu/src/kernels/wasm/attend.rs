//! One head of one row on integers: four queries at a time, from their scores to their context.
//!
//! * Scores are products of queries with keys in integers; a scale for each query and each key.
//! * Weights are integers of 14 bits, of which the query's best key has the largest; values are integers, too, with a scale
//!   for each dimension of 32 keys. The sum of the weights is that of the integers, so that they add up to 1.
//!
//! How many bits queries, keys and values have is a matter of the products that the engine has: [`Bytes`], [`Halves`].

#[cfg(target_feature = "relaxed-simd")]
use super::pointwise::quantize;
use super::pointwise::{fours, polynomial};
use super::whole::{bits_max, highest, put_words, rounded, scales, whole};
use super::{Code, SIDE, add_product, black_box, block_q4, corrections, load};
use crate::kernels::{Attention, Coded};
use crate::math::ROUND;
use crate::pack::LANES;
use polygraft::quant::BLOCK;
use std::arch::wasm32::*;

/// Panels of dimensions in a head.
const PANELS: usize = BLOCK / LANES;

/// Scores that become weights in a turn of the loop.
const TURN: usize = 2 * LANES;

/// The weight of the query's best key.
const ONE: f32 = 16_256.0;

/// `ONE · 2ˣ` on −½ to ½ within 3e-6, the highest power first.
const POWER: [f32; 5] = [0.009_582_85 * ONE, 0.055_906_43 * ONE, 0.240_240_99 * ONE, 0.693_124_2 * ONE, ONE];

/// What scores and contexts are computed in: several numbers stand in a word of 32 bits, and one instruction adds up their
/// products.
pub(in crate::kernels) trait Numbers {
    /// Numbers in a word.
    const EACH: usize;

    /// Words of [`BLOCK`] numbers.
    const WORDS: usize = BLOCK / Self::EACH;

    /// The largest number of a key, and of a value.
    const KEY: f32;
    const VALUE: f32;

    /// In how many planes of 7 bits each weights stand; 1: in one of 14.
    const PLANES: usize;

    /// A query in words, [`SIDE`] apart. Gives its scale, and what its sums start from.
    ///
    /// # Safety
    /// [`BLOCK`] floats can be read at `from`, the words of a group written at `to`.
    unsafe fn query(from: *const f32, to: *mut u32, row: usize) -> (f32, i32);

    /// Eight numbers of a key in words, [`LANES`] apart.
    ///
    /// # Safety
    /// The words can be written from `to` on.
    unsafe fn key(eight: [v128; 2], to: *mut u32);

    /// Four dimensions of four values in words, [`LANES`] apart.
    ///
    /// # Safety
    /// Four of each of the words can be written from `to` on.
    unsafe fn value(four: [v128; 4], to: *mut u32);

    /// Eight weights of 16 bits in words, [`SIDE`] apart.
    ///
    /// # Safety
    /// The words of all planes can be written from `to` on.
    unsafe fn weights(eight: v128, to: *mut u32);

    /// Adds a word's products of queries with keys.
    fn score(sum: v128, queries: v128, keys: v128) -> v128;

    /// Adds a word's products of weights with values.
    fn context(sum: v128, weights: v128, values: v128) -> v128;

    /// The words of four rows, each in every lane.
    ///
    /// # Safety
    /// Four words can be read at `words`.
    unsafe fn runs(words: *const Code) -> [v128; SIDE];
}

/// Where a product of four bytes is one instruction: queries and values in 8 bits, keys in 7, offset by 64 so that they are
/// the relaxed product's non-negative side; weights in two planes.
#[cfg(target_feature = "relaxed-simd")]
pub(in crate::kernels) struct Bytes;

#[cfg(target_feature = "relaxed-simd")]
impl Numbers for Bytes {
    const EACH: usize = 4;
    const KEY: f32 = 63.0;
    const VALUE: f32 = 127.0;
    const PLANES: usize = 2;

    #[inline(always)]
    unsafe fn query(from: *const f32, to: *mut u32, row: usize) -> (f32, i32) {
        // SAFETY: as the caller promised. Sums start from −64 × the codes' sum.
        let (scale, offset) = unsafe { quantize(from, to.cast(), row) };
        (scale, 8 * offset)
    }

    #[inline(always)]
    unsafe fn key(eight: [v128; 2], to: *mut u32) {
        let [a, b] = eight.map(|x| i32x4_add(x, i32x4_splat(64)));
        let words = u8x16_narrow_i16x8(i16x8_narrow_i32x4(a, b), i16x8_splat(0));
        // SAFETY: as the caller promised.
        unsafe {
            v128_store32_lane::<0>(words, to);
            v128_store32_lane::<1>(words, to.add(LANES));
        }
    }

    #[inline(always)]
    unsafe fn value(four: [v128; 4], to: *mut u32) {
        let [a, b, c, d] = four.map(|x| v128_and(x, i32x4_splat(255)));
        let low = v128_or(a, i32x4_shl(b, 8));
        let high = v128_or(i32x4_shl(c, 16), i32x4_shl(d, 24));
        // SAFETY: as the caller promised.
        unsafe { v128_store(to.cast(), v128_or(low, high)) };
    }

    #[inline(always)]
    unsafe fn weights(eight: v128, to: *mut u32) {
        let planes = u8x16_narrow_i16x8(u16x8_shr(eight, 7), v128_and(eight, i16x8_splat(127)));
        // SAFETY: as the caller promised.
        unsafe {
            v128_store32_lane::<0>(planes, to);
            v128_store32_lane::<1>(planes, to.add(SIDE));
            v128_store32_lane::<2>(planes, to.add(Self::WORDS * SIDE));
            v128_store32_lane::<3>(planes, to.add((Self::WORDS + 1) * SIDE));
        }
    }

    #[inline(always)]
    fn score(sum: v128, queries: v128, keys: v128) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(queries, keys, sum)
    }

    #[inline(always)]
    fn context(sum: v128, weights: v128, values: v128) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(values, weights, sum)
    }

    #[inline(always)]
    unsafe fn runs(words: *const Code) -> [v128; SIDE] {
        // SAFETY: as the caller promised.
        unsafe { super::runs(words) }
    }
}

/// Where the one product that is an instruction everywhere is that of two numbers of 16 bits: queries and keys in 14 bits
/// and values in 13, as many as leave the sums of 32 of them in 32 bits.
pub(in crate::kernels) struct Halves;

impl Numbers for Halves {
    const EACH: usize = 2;
    const KEY: f32 = 8_191.0;
    const VALUE: f32 = 4_095.0;
    const PLANES: usize = 1;

    #[inline(always)]
    unsafe fn query(from: *const f32, to: *mut u32, row: usize) -> (f32, i32) {
        // SAFETY: as the caller promised.
        unsafe {
            let (eights, scale) = whole(from, Self::KEY);
            for (i, [a, b]) in eights.into_iter().enumerate() {
                put_words::<SIDE>(i16x8_narrow_i32x4(a, b), to.add(4 * i * SIDE + row));
            }
            (scale, 0)
        }
    }

    #[inline(always)]
    unsafe fn key([a, b]: [v128; 2], to: *mut u32) {
        // SAFETY: as the caller promised.
        unsafe { put_words::<LANES>(i16x8_narrow_i32x4(a, b), to) }
    }

    #[inline(always)]
    unsafe fn value([a, b, c, d]: [v128; 4], to: *mut u32) {
        let pair = |low, high| v128_or(v128_and(low, i32x4_splat(0xffff)), i32x4_shl(high, 16));
        // SAFETY: as the caller promised.
        unsafe {
            v128_store(to.cast(), pair(a, b));
            v128_store(to.add(LANES).cast(), pair(c, d));
        }
    }

    #[inline(always)]
    unsafe fn weights(eight: v128, to: *mut u32) {
        // SAFETY: as the caller promised.
        unsafe { put_words::<SIDE>(eight, to) }
    }

    #[inline(always)]
    fn score(sum: v128, queries: v128, keys: v128) -> v128 {
        i32x4_add(sum, i32x4_dot_i16x8(queries, keys))
    }

    #[inline(always)]
    fn context(sum: v128, weights: v128, values: v128) -> v128 {
        i32x4_add(sum, i32x4_dot_i16x8(weights, values))
    }

    #[inline(always)]
    unsafe fn runs(words: *const Code) -> [v128; SIDE] {
        // SAFETY: as the caller promised.
        unsafe { super::splats(words) }
    }
}

/// Queries, keys and values are [`BLOCK`] wide.
///
/// # Safety
/// As many rows as there are queries, and as many as there are keys, can be read, `stride` apart; as many as there are
/// queries written at `y`.
pub(in crate::kernels) unsafe fn attend<N: Numbers>(head: Attention<'_>, coded: &mut Coded, y: &mut [f32]) {
    let (panels, blocks) = (head.keys.div_ceil(LANES), head.keys.div_ceil(BLOCK));
    // SAFETY: as the caller promised; what is written below fits what is made room for here.
    unsafe {
        if coded.of != Some(head.of) {
            pack_keys::<N>(&head, coded, panels);
            pack_values::<N>(&head, coded, blocks);
            coded.of = Some(head.of);
        }
        coded.scores.resize(SIDE * row_of(panels), 0.0);
        coded.weights.resize(blocks * N::PLANES * N::WORDS * SIDE, 0);
        for first in (0..head.queries).step_by(SIDE) {
            let rows = SIDE.min(head.queries - first);
            // As many words as numbers of 16 bits take, which are the largest.
            let mut queries = [0u32; BLOCK / 2 * SIDE];
            let (mut scales, mut offsets) = ([0.0; SIDE], [0; SIDE]);
            for row in 0..rows {
                let query = head.q.as_ptr().add((first + row) * head.stride);
                let (scale, offset) = N::query(query, queries.as_mut_ptr(), row);
                // A query's scale carries what turns scores into powers of 2.
                (scales[row], offsets[row]) = (scale * head.scale * std::f32::consts::LOG2_E, offset);
            }
            score::<N>(coded, panels, &queries, &scales, &offsets);
            let mut inverses = [0.0; SIDE];
            for row in 0..rows {
                let overflow = coded.overflow + 0.0 * scales[row];
                inverses[row] = 1.0 / weigh::<N>(coded, head.keys, panels, row) as f32 + overflow;
            }
            let to = y.as_mut_ptr().add(first * head.stride);
            sum::<N>(coded, head.keys, blocks, &inverses[..rows], to, head.stride);
        }
    }
}

/// # Safety
/// See [`attend`].
unsafe fn pack_keys<N: Numbers>(head: &Attention<'_>, coded: &mut Coded, panels: usize) {
    coded.keys.clear();
    coded.keys.resize(panels * N::WORDS * LANES, 0);
    coded.key_scales.clear();
    coded.key_scales.resize(panels * LANES, 0.0);
    for key in 0..head.keys {
        // SAFETY: as the caller promised.
        unsafe {
            let (eights, scale) = whole(head.k.as_ptr().add(key * head.stride), N::KEY);
            coded.key_scales[key] = scale;
            let to = coded.keys.as_mut_ptr().add(key / LANES * N::WORDS * LANES + key % LANES);
            for (i, eight) in eights.into_iter().enumerate() {
                N::key(eight, to.add(8 / N::EACH * i * LANES));
            }
        }
    }
    coded.overflow = 0.0 * coded.key_scales.iter().sum::<f32>();
}

/// # Safety
/// See [`attend`].
unsafe fn pack_values<N: Numbers>(head: &Attention<'_>, coded: &mut Coded, blocks: usize) {
    coded.values.resize(PANELS * blocks * N::WORDS * LANES, 0);
    coded.value_scales.resize(PANELS * blocks * LANES, 0.0);
    let zero = i32x4_splat(0);
    for block in 0..blocks {
        let keys = block * BLOCK..head.keys.min((block + 1) * BLOCK);
        for four in 0..BLOCK / 4 {
            // SAFETY: as the caller promised; `four` is half of a panel.
            unsafe {
                let from = head.v.as_ptr().add(4 * four);
                let peak = keys.clone().fold(zero, |peak, key| bits_max(peak, load(from.add(key * head.stride))));
                let (scale, inverse) = scales(peak, N::VALUE);
                let at = four / 2 * blocks + block;
                v128_store(coded.value_scales.as_mut_ptr().add(at * LANES + four % 2 * 4).cast(), scale);
                let to = coded.values.as_mut_ptr().add(at * N::WORDS * LANES + four % 2 * 4);
                for (i, first) in keys.clone().step_by(4).enumerate() {
                    let codes: [v128; 4] = std::array::from_fn(|i| {
                        let key = first + i;
                        if key >= keys.end { zero } else { rounded(load(from.add(key * head.stride)), inverse) }
                    });
                    N::value(codes, to.add(4 / N::EACH * i * LANES));
                }
            }
        }
    }
}

/// The scores of four queries, as powers of 2, in `coded.scores`.
///
/// # Safety
/// `panels` panels of keys are there, and room for their scores.
unsafe fn score<N: Numbers>(
    coded: &mut Coded,
    panels: usize,
    queries: &[u32],
    scales: &[f32; SIDE],
    offsets: &[i32; SIDE],
) {
    let turns = black_box(N::WORDS);
    for panel in 0..panels {
        // SAFETY: as the caller promised; four rows of queries are there.
        unsafe {
            let words = coded.keys.as_ptr().add(panel * N::WORDS * LANES);
            let from = corrections(offsets.as_ptr());
            let dots = block_q4(words, queries.as_ptr().cast(), turns, from, N::runs, N::score);
            let own = coded.key_scales.as_ptr().add(panel * LANES);
            let own = [load(own), load(own.add(4))];
            for (row, (dots, &scale)) in dots.into_iter().zip(scales).enumerate() {
                let to = coded.scores.as_mut_ptr().add(row * row_of(panels) + panel * LANES);
                for (half, (dot, own)) in dots.into_iter().zip(own).enumerate() {
                    let score = f32x4_mul(f32x4_convert_i32x4(dot), f32x4_mul(own, f32x4_splat(scale)));
                    v128_store(to.add(4 * half).cast(), score);
                }
            }
        }
    }
}

/// A query's scores, in whole turns.
fn row_of(panels: usize) -> usize {
    (panels * LANES).next_multiple_of(TURN)
}

/// The weights of query `row` from its scores, and their sum.
///
/// # Safety
/// The scores are there, and room for the weights.
unsafe fn weigh<N: Numbers>(coded: &mut Coded, keys: usize, panels: usize, row: usize) -> i32 {
    let scores = &mut coded.scores[row * row_of(panels)..][..row_of(panels)];
    scores[keys..].fill(f32::NEG_INFINITY);
    let (turns, _) = scores.as_chunks::<TURN>();
    let mut peak = f32x4_splat(f32::NEG_INFINITY);
    let mut sum = i32x4_splat(0);
    // SAFETY: as many scores are in each; there is room for the weights of as many keys.
    unsafe {
        for turn in turns {
            let [a, b, c, d] = fours(turn);
            peak = f32x4_pmax(peak, f32x4_pmax(f32x4_pmax(a, b), f32x4_pmax(c, d)));
        }
        let peak = highest(peak);
        for (at, turn) in turns.iter().enumerate() {
            let [a, b, c, d] = power(fours(turn).map(|x| f32x4_sub(x, peak)));
            sum = i32x4_add(sum, i32x4_add(i32x4_add(a, b), i32x4_add(c, d)));
            let (block, own) = (at / (BLOCK / TURN), at % (BLOCK / TURN));
            let word = block * N::PLANES * N::WORDS + own * TURN / N::EACH;
            let to = coded.weights.as_mut_ptr().add(word * SIDE + row);
            N::weights(i16x8_narrow_i32x4(a, b), to);
            N::weights(i16x8_narrow_i32x4(c, d), to.add(LANES / N::EACH * SIDE));
        }
    }
    let sum = i32x4_add(sum, i32x4_shuffle::<2, 3, 0, 1>(sum, sum));
    i32x4_extract_lane::<0>(sum) + i32x4_extract_lane::<1>(sum)
}

/// `ONE · 2ˣ` for x ≤ 0, rounded; 0 far below.
#[inline(always)]
fn power(x: [v128; 4]) -> [v128; 4] {
    let round = f32x4_splat(ROUND);
    let x = x.map(|x| f32x4_pmax(x, f32x4_splat(-30.0)));
    let shifted = x.map(|x| f32x4_add(x, round));
    let p = polynomial(&POWER, std::array::from_fn(|i| f32x4_sub(x[i], f32x4_sub(shifted[i], round))));
    std::array::from_fn(|i| rounded(p[i], i32x4_add(i32x4_shl(shifted[i], 23), i32x4_splat(0x3f80_0000))))
}

/// The contexts of some queries of a group, from the weights of all four.
///
/// # Safety
/// Weights and values are there; a head's dimensions can be written at `to` for each row of `inverses`, `stride` apart.
unsafe fn sum<N: Numbers>(coded: &Coded, keys: usize, blocks: usize, inverses: &[f32], to: *mut f32, stride: usize) {
    for panel in 0..PANELS {
        let mut sums = [[f32x4_splat(0.0); 2]; SIDE];
        for block in 0..blocks {
            let turns = (keys - block * BLOCK).min(BLOCK).div_ceil(4) * 4 / N::EACH;
            let at = panel * blocks + block;
            // SAFETY: as the caller promised.
            unsafe {
                let values = coded.values.as_ptr().add(at * N::WORDS * LANES);
                let mut dots = [[i32x4_splat(0); 2]; SIDE];
                for plane in 0..N::PLANES {
                    let weights = coded.weights.as_ptr().add((block * N::PLANES + plane) * N::WORDS * SIDE);
                    let whole = dots.map(|dots| dots.map(|dot| if plane == 0 { dot } else { i32x4_shl(dot, 7) }));
                    dots = block_q4(values, weights.cast(), turns, whole, N::runs, N::context);
                }
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
