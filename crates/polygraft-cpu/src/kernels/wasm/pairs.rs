//! 4-bit weights where the relaxed product of bytes is an instruction that adds up pairs in 16 bits (x86-64 without VNNI):
//! four rows by two panels at a time, in WebAssembly's own assembly.
//!
//! A lane of 16 bits is a column: it adds up the pairs of a block, 32 products. Less the offset of 8, from which the sum
//! starts, that is at most 32 512 either way; on the way there it may wrap. Then the lanes of two blocks, one's between the
//! other's, are multiplied with their scales and added up in 32 bits, in one instruction. These scales are whole numbers: a
//! column's ([`fit`], 15 bits) times a row's ([`shares`], up to 15 bits: as many as leave room for the sum of a segment, by what
//! its codes can reach).
//!
//! A word of four codes of a row is in every lane of a vector: lanes with even numbers see its first pair, those with odd
//! numbers its second. So in turn `t` of a block the even lanes are at pair `t` and the odd ones at pair `t + 1`, after the last
//! at the first: see [`arrange`]. A row's codes are followed by the first pair once more.
//!
//! Why assembly: LLVM joins the sums of turns that follow each other, so that more vectors are alive than there are
//! registers; and a loop around a single turn costs 5 %.

use super::whole::{bits_max, rounded, scales, whole};
use super::{SIDE, load};
use crate::kernels::{Codes, Panels, Target};
use crate::pack::{LANES, Q4_WORDS};
use polygraft::quant::BLOCK;
use std::arch::wasm32::*;
use std::iter::repeat;
use std::ops::RangeInclusive;

/// Codes of a row's block in memory.
pub(super) const ROW: usize = 36;

/// Blocks whose sums meet in an instruction: a row's blocks are filled up to whole pairs.
pub(super) const PAIR: usize = 2;

/// Blocks whose sums are added up in 32 bits.
pub(super) const SEGMENT: usize = 12;

/// The largest share.
const TOP: f32 = 32_767.0;

/// What a segment's sums reach at most: 2³¹ less what the rounding of shares can add, 4 · 32 · 127 a block.
const REACH: f32 = 2_147_000_000.0;

/// Words that an output takes in a block, cut.
pub(super) const WORDS: usize = BLOCK / 4;

/// Panels that a tile has.
const ABREAST: usize = 2;

/// A row of a tile.
const WIDE: usize = ABREAST * LANES;

/// Bytes from pair to pair of blocks with which a group's rows ask for what is read next, so that it is near when its turn comes:
/// a row of 32 tokens, which waits longest for weights, takes 4 % less. With lines left out the processor's own reading ahead is
/// disturbed; in a larger batch it is a small part of the whole, and asking costs 1 to 2 %.
const ASKING: RangeInclusive<usize> = 32..=80;

macro_rules! declared {
    ($($(#[$doc:meta])* $name:ident),*) => {
        unsafe extern "C" {
            $($(#[$doc])* fn $name(
                words: *const u32,
                words_of_second: *const u32,
                codes: *const i8,
                corrections: *const i32,
                shares: *const u32,
                scales: *const f32,
                scales_of_second: *const f32,
                pairs: usize,
                from: *const f32,
                from_stride: usize,
                out: *mut f32,
                out_stride: usize,
                units: *const f32,
                tops: *const f32,
                groups: usize,
                codes_step: usize,
                corrections_step: usize,
                tops_step: usize,
                ahead: *const u32,
                ahead_step: usize,
            );)*
        }
    };
}

declared! {
    /// `out = from + tops · units · x Wᵀ` for groups of four rows, at least one, two panels and a segment of blocks. `pairs` is the
    /// number of pairs of blocks, at least one; strides are in bytes, those of `from` and `out` from row to row; steps, too,
    /// from the end of a group's segment to that of the next group.
    ///
    /// # Safety
    /// Words are as [`cut`] leaves them, scales as [`fit`], codes as [`quantize`], shares and tops as [`shares`]; sixteen floats
    /// can be read at `units` and, for each row, at `from`, and written at `out`.
    polygraft_pairs_tiles,
    /// The same; it reads sixteen bytes at `ahead`, and at every `ahead_step` from there, for each pair of each group.
    polygraft_pairs_tiles_asking
}

/// `out = bias + x Wᵀ`, or onto `out` without a bias, for any number of panels.
///
/// # Safety
/// The lengths were checked: whole groups of rows and whole pairs of blocks are there.
pub(super) unsafe fn gemm(x: Codes<'_>, panels: Panels<'_>, bias: Option<&[f32]>, out: &mut Target<'_>) {
    let count = panels.units.len();
    for panel in (0..count).step_by(ABREAST) {
        // The last of an odd number is its own neighbour, whose columns are not stored.
        let both = [panel, (panel + 1).min(count - 1)];
        let units = both.map(|panel| panels.units[panel]);
        let wide = (count - panel).min(ABREAST) * LANES;
        let mut own = [0.0; WIDE];
        if let Some(bias) = bias {
            own[..wide].copy_from_slice(&bias[panel * LANES..][..wide]);
        }
        // A segment's words of both panels are read by all rows while they are near.
        let ahead = panels.ahead.chunks(panels.ahead.len().div_ceil(x.blocks.div_ceil(SEGMENT)).max(1));
        for (block, ahead) in (0..x.blocks).step_by(SEGMENT).zip(ahead.chain(repeat(&[][..]))) {
            let from = (bias.is_some() && block == 0).then_some(&own);
            let whole = if wide == WIDE { x.count / SIDE } else { 0 };
            // SAFETY: as the caller promised; a tile that is not whole goes to a place of its own.
            unsafe {
                if whole > 0 {
                    let to = out.values.as_mut_ptr().add(panel * LANES);
                    tiles(
                        x,
                        panels,
                        &units,
                        &Place { both, block, row: 0, groups: whole, ahead },
                        from,
                        to,
                        out.stride,
                    );
                }
                for row in (whole * SIDE..x.count).step_by(SIDE) {
                    let rows = (x.count - row).min(SIDE);
                    let at = row * out.stride + panel * LANES;
                    let mut sums = [[0.0; WIDE]; SIDE];
                    for (r, sums) in sums.iter_mut().enumerate().take(rows) {
                        sums[..wide].copy_from_slice(&out.values[at + r * out.stride..][..wide]);
                    }
                    let place = Place { both, block, row, groups: 1, ahead: &[] };
                    tiles(x, panels, &units, &place, from, sums.as_mut_ptr().cast(), WIDE);
                    for (r, sums) in sums.iter().enumerate().take(rows) {
                        out.values[at + r * out.stride..][..wide].copy_from_slice(&sums[..wide]);
                    }
                }
            }
        }
    }
}

/// Where tiles stand: their panels, their first block, their first row, groups of rows; what is read after them.
struct Place<'a> {
    both: [usize; ABREAST],
    block: usize,
    row: usize,
    groups: usize,
    ahead: &'a [u32],
}

/// Tiles, onto what is there without `from`; `stride` is in floats.
///
/// # Safety
/// The place is inside of what is there; sixteen floats of each row can be written at `to`, `stride` apart.
unsafe fn tiles(
    x: Codes<'_>,
    panels: Panels<'_>,
    units: &[[f32; LANES]; ABREAST],
    place: &Place<'_>,
    from: Option<&[f32; WIDE]>,
    to: *mut f32,
    stride: usize,
) {
    let count = panels.units.len();
    let (words, scales) = (panels.words.len() / count, panels.scales.len() / count);
    let words = place.both.map(|panel| panel * words + place.block * WORDS * LANES);
    let scales = place.both.map(|panel| panel * scales + place.block / PAIR * LANES);
    let at = place.row * x.blocks + place.block * SIDE;
    let blocks = SEGMENT.min(x.blocks - place.block);
    let (rest, segments) = ((x.blocks - blocks) * SIDE, x.blocks.div_ceil(SEGMENT));
    let stride = stride * size_of::<f32>();
    let (from, from_stride) = from.map_or((to.cast_const(), stride), |from| (from.as_ptr(), 0));
    // The last sixteen bytes are read from their beginning.
    let (turns, room) = (place.groups * (blocks / PAIR), size_of_val(place.ahead).saturating_sub(size_of::<v128>()));
    let step = room / turns;
    let tiles = if ASKING.contains(&step) { polygraft_pairs_tiles_asking } else { polygraft_pairs_tiles };
    // SAFETY: as the caller promised.
    unsafe {
        tiles(
            panels.words.as_ptr().add(words[0]),
            panels.words.as_ptr().add(words[1]),
            x.codes.as_ptr().add(at * ROW),
            x.corrections.as_ptr().add(at),
            x.shares.as_ptr().add(at),
            panels.scales.as_ptr().add(scales[0]),
            panels.scales.as_ptr().add(scales[1]),
            blocks / PAIR,
            from,
            from_stride,
            to,
            stride,
            units.as_ptr().cast(),
            x.tops.as_ptr().add(place.row * segments + place.block / SEGMENT * SIDE),
            place.groups,
            rest * ROW,
            rest * size_of::<i32>(),
            segments * SIDE * size_of::<f32>(),
            place.ahead.as_ptr(),
            step,
        );
    }
}

/// A panel's 4-bit codes from the order of [`crate::pack`] to that of the turns, in place: a block is eight vectors, whose
/// low halves of bytes are the codes of turn `t` and whose high halves those of turn `t + 8`. In the lanes of 16 bits columns
/// 0 to 3 (even lanes, at pair `t`) alternate with columns 4 to 7 (odd lanes, at pair `t + 1`); in every second block it is
/// the other way round.
pub(super) fn arrange(words: &mut [u32]) {
    let mask = u8x16_splat(15);
    for (index, words) in words.as_chunks_mut::<{ Q4_WORDS * LANES }>().0.iter_mut().enumerate() {
        let (even, odd) = if index % 2 == 0 { (0, LANES / 2) } else { (LANES / 2, 0) };
        let mut turns = [u8x16_splat(0); BLOCK / 2];
        // SAFETY: a block's words are there.
        unsafe {
            // Pairs 0 and 1, then 2 and 3 of a word's four.
            let pairs = |word: usize, half: usize| {
                let word = load(words.as_ptr().add(word * LANES + half).cast());
                [v128_and(word, mask), v128_and(u32x4_shr(word, 4), mask)]
            };
            let across = |a: v128, b: v128| v128_or(u32x4_shr(a, 16), u32x4_shl(b, 16));
            for word in 0..Q4_WORDS {
                let (own, other, next) = (pairs(word, even), pairs(word, odd), pairs((word + 1) % Q4_WORDS, odd));
                let same = |i: usize| i16x8_shuffle::<0, 9, 2, 11, 4, 13, 6, 15>(own[i], other[i]);
                let four = [same(0), across(own[0], other[1]), same(1), across(own[1], next[0])];
                turns[word * 4..][..4].copy_from_slice(&four);
            }
            for t in 0..BLOCK / 4 {
                let both = v128_or(turns[t], u32x4_shl(turns[t + BLOCK / 4], 4));
                v128_store(words.as_mut_ptr().add(4 * t).cast(), both);
            }
        }
    }
}

/// Where [`arrange`] puts the code of input `k` of a block's column `lane`: its word in the block, and its shift.
pub(super) fn place(block: usize, lane: usize, k: usize) -> (usize, usize) {
    let odd = (lane / 4 + block) % 2;
    let turn = (k / 2 + BLOCK / 2 - odd) % (BLOCK / 2);
    (turn % 8 * 4 + lane % 4, 16 * odd + 8 * (k % 2) + 4 * (turn / 8))
}

/// Arranged codes, one a byte: sixteen vectors a block. A block that is not there is zeros.
pub(super) fn cut(words: &[u32], out: &mut [u32]) {
    let (blocks, places) = (words.as_chunks::<{ Q4_WORDS * LANES }>().0, out.as_chunks_mut::<{ WORDS * LANES }>().0);
    let mask = u8x16_splat(15);
    for (words, out) in blocks.iter().zip(&mut *places) {
        for t in 0..BLOCK / 4 {
            // SAFETY: a block's words are there, and room for twice as many.
            unsafe {
                let both = load(words.as_ptr().add(4 * t).cast());
                v128_store(out.as_mut_ptr().add(4 * t).cast(), v128_and(both, mask));
                v128_store(out.as_mut_ptr().add(4 * t + 4 * BLOCK / 4).cast(), v128_and(u32x4_shr(both, 4), mask));
            }
        }
    }
    places[blocks.len()..].as_flattened_mut().fill(0);
}

/// A panel's arranged codes as f32, `[input][lane]`, with scales `[block][lane]`.
pub(super) fn decode(words: &[u32], scales_of: &[f32], out: &mut [f32]) {
    let blocks = words.as_chunks::<{ Q4_WORDS * LANES }>().0.iter().zip(scales_of.as_chunks::<LANES>().0);
    for (index, ((words, scales), out)) in blocks.zip(out.as_chunks_mut::<{ BLOCK * LANES }>().0).enumerate() {
        for word in 0..Q4_WORDS * LANES {
            let (turn, column) = (word / 4, word % 4);
            for (half, turn) in [turn, turn + 8].into_iter().enumerate() {
                for odd in 0..2 {
                    let lane = column + 4 * ((odd + index) % 2);
                    for parity in 0..2 {
                        let code = words[word] >> (16 * odd + 8 * parity + 4 * half) & 15;
                        let k = (turn + odd) % (BLOCK / 2) * 2 + parity;
                        out[k * LANES + lane] = (code.cast_signed() as f32 - 8.0) * scales[lane];
                    }
                }
            }
        }
    }
}

/// The scales of a panel: see [`crate::kernels::Isa::fit`]. Those of two blocks stand side by side, in the order of their
/// lanes in a sum; what is left of `scales` holds nothing.
pub(super) fn fit(scales_of: &mut [f32]) -> [f32; LANES] {
    let mut units = [0.0; LANES];
    let blocks = scales_of.as_chunks_mut::<LANES>().0;
    for half in [0, LANES / 2] {
        // SAFETY: whole blocks of eight floats are there; a pair's place is not behind its blocks.
        unsafe {
            let peak = blocks.iter().fold(i32x4_splat(0), |peak, block| bits_max(peak, load(block.as_ptr().add(half))));
            let (unit, inverse) = scales(peak, TOP);
            v128_store(units.as_mut_ptr().add(half).cast(), unit);
            for block in &mut *blocks {
                let at = block.as_mut_ptr().add(half);
                v128_store(at.cast(), rounded(load(at), inverse));
            }
        }
    }
    for pair in 0..blocks.len().div_ceil(PAIR) {
        let first = blocks[pair * PAIR].map(f32::to_bits);
        let second = blocks.get(pair * PAIR + 1).map_or([0; LANES], |block| block.map(f32::to_bits));
        blocks[pair] = std::array::from_fn(|lane| {
            let (low, high) = if lane < LANES / 2 { (first[lane], second[lane]) } else { (second[lane], first[lane]) };
            f32::from_bits(low & 0xffff | high << 16)
        });
    }
    units
}

/// A group's scales, `[block][row]`, as shares of their row's in a segment: for each pair of blocks and each row two words, the
/// first block's in the lower half and in the upper one. `tops`, `[segment][row]`, is what the shares are to be multiplied
/// with. The largest share is [`TOP`], or less where the codes could then reach beyond 32 bits.
pub(super) fn shares(codes: &[i8], scales_of: &[f32], words: &mut [u32], tops: &mut [f32]) {
    let segments = codes.chunks(SEGMENT * SIDE * ROW).zip(scales_of.chunks(SEGMENT * SIDE));
    let places = words.chunks_mut(SEGMENT * SIDE).zip(tops.as_chunks_mut::<SIDE>().0);
    for ((codes, scales_of), (words, top)) in segments.zip(places) {
        let rows = scales_of.as_chunks::<SIDE>().0;
        // SAFETY: four numbers are in each, a row's codes in as many places; a pair's words are as many as its scales.
        unsafe {
            let (mut peak, mut reach) = (i32x4_splat(0), f32x4_splat(0.0));
            for (codes, rows) in codes.chunks_exact(SIDE * ROW).zip(rows) {
                let scales = load(rows.as_ptr());
                peak = bits_max(peak, scales);
                let sizes = magnitudes(codes.as_ptr());
                reach = f32x4_add(reach, f32x4_mul(f32x4_convert_i32x4(sizes), scales));
            }
            // A code meets −8 to 7.
            let least = f32x4_mul(reach, f32x4_splat(8.0 * TOP / REACH));
            let (unit, inverse) = scales(f32x4_max(peak, least), TOP);
            // The product of two scales loses 15 bits.
            v128_store(top.as_mut_ptr().cast(), f32x4_mul(unit, f32x4_splat(32_768.0)));
            for (pair, words) in rows.chunks_exact(PAIR).zip(words.chunks_exact_mut(PAIR * SIDE)) {
                let [a, b] = [0, 1].map(|i| v128_and(rounded(load(pair[i].as_ptr()), inverse), i32x4_splat(0xffff)));
                let (low, high) = (v128_or(a, i32x4_shl(b, 16)), v128_or(b, i32x4_shl(a, 16)));
                v128_store(words.as_mut_ptr().cast(), i32x4_shuffle::<0, 4, 1, 5>(low, high));
                v128_store(words.as_mut_ptr().add(4).cast(), i32x4_shuffle::<2, 6, 3, 7>(low, high));
            }
        }
    }
}

/// The sums of the magnitudes of four rows' codes.
///
/// # Safety
/// A group's block can be read at `codes`.
#[inline(always)]
unsafe fn magnitudes(codes: *const i8) -> v128 {
    let [a, b, c, d] = std::array::from_fn(|row| {
        // SAFETY: as the caller promised.
        let [low, high] = unsafe { [0, 16].map(|half| i8x16_abs(v128_load(codes.add(row * ROW + half).cast()))) };
        let sums = i16x8_add(u16x8_extadd_pairwise_u8x16(low), u16x8_extadd_pairwise_u8x16(high));
        i32x4_dot_i16x8(sums, i16x8_splat(1))
    });
    let (ab, cd) = (halved(a, b), halved(c, d));
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(ab, cd), i32x4_shuffle::<1, 3, 5, 7>(ab, cd))
}

/// Sums of neighbouring lanes of both.
#[inline(always)]
fn halved(a: v128, b: v128) -> v128 {
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
}

/// A block of inputs in 8 bits, as row `side` of its group's block of `codes`. Gives its scale, and its correction in both
/// halves of a word.
pub(super) fn quantize(x: &[f32; BLOCK], codes: &mut [i8], side: usize) -> (f32, i32) {
    let to = codes[side * ROW..][..ROW].as_mut_ptr();
    // SAFETY: a row's block can be written at `to`.
    unsafe {
        let (eights, scale) = whole(x.as_ptr(), 127.0);
        let [a, b, c, d] = eights.map(|[low, high]| i16x8_narrow_i32x4(low, high));
        let first = i8x16_narrow_i16x8(a, b);
        v128_store(to.cast(), first);
        v128_store(to.add(16).cast(), i8x16_narrow_i16x8(c, d));
        v128_store32_lane::<0>(first, to.add(BLOCK).cast());
        let sums = i32x4_dot_i16x8(i16x8_add(i16x8_add(a, b), i16x8_add(c, d)), i16x8_splat(1));
        let sums = i32x4_add(sums, i32x4_shuffle::<2, 3, 0, 1>(sums, sums));
        let sum = i32x4_extract_lane::<0>(sums).wrapping_add(i32x4_extract_lane::<1>(sums)).wrapping_mul(-8);
        (scale, sum & 0xffff | sum << 16)
    }
}
