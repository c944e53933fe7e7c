//! WebAssembly SIMD. A vector is four outputs at one place of a panel; two vectors are the panel.

use super::{Codes, Panel, Rows, Target};
use crate::pack::{LANES, Q4_WORDS, Q8_WORDS};
use polygraft::quant::BLOCK;
use std::arch::wasm32::*;
use std::hint::black_box;

pub(super) const NAME: &str = "wasm simd128";

/// Activations are 16 bits wide: the products of 16-bit lanes are the ones that every engine lowers to one instruction.
pub(crate) type Code = i16;

/// Rows whose codes lie side by side, so that one pointer with constant offsets reaches them all.
pub(crate) const SIDE: usize = 4;

/// The pairs of inputs that a mask of half words cuts out of a weight word: see [`crate::pack`].
pub(crate) const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Calls `$tile::<n>(…)` for the number of rows left, at most four, and yields that number.
macro_rules! by_rows {
    ($left:expr, $tile:ident, $args:tt) => {
        match $left {
            1 => by_rows!(@ $tile, 1, $args),
            2 => by_rows!(@ $tile, 2, $args),
            3 => by_rows!(@ $tile, 3, $args),
            _ => by_rows!(@ $tile, 4, $args),
        }
    };
    (@ $tile:ident, $n:expr, ($($arg:expr),*)) => {{
        $tile::<$n>($($arg),*);
        $n
    }};
}

/// # Safety
/// The lengths were checked (`Rows::check`).
pub(super) unsafe fn gemm(x: Rows<'_>, weights: &[f32], bias: &[f32], out: &mut Target<'_>) {
    for panel in 0..bias.len() / LANES {
        let mut row = 0;
        while row < x.count {
            // SAFETY: `row` and `panel` are inside the slices that were checked.
            row += unsafe {
                let a = x.values.as_ptr().add(row * x.stride);
                let w = weights.as_ptr().add(panel * x.width * LANES);
                let b = bias.as_ptr().add(panel * LANES);
                let y = out.values.as_mut_ptr().add(row * out.stride + panel * LANES);
                by_rows!(x.count - row, tile, (a, x.stride, x.width, w, b, y, out.stride))
            };
        }
    }
}

/// `R` rows by one panel.
///
/// # Safety
/// `R` rows can be read at `a` and written at `y`, one panel read at `w` and `bias`.
#[inline(always)]
unsafe fn tile<const R: usize>(
    a: *const f32,
    stride: usize,
    width: usize,
    w: *const f32,
    bias: *const f32,
    y: *mut f32,
    out_stride: usize,
) {
    // SAFETY: as the caller promised; `k` stays below `width`.
    unsafe {
        let mut sums = [[load(bias), load(bias.add(4))]; R];
        for k in 0..width {
            let columns = [load(w.add(k * LANES)), load(w.add(k * LANES + 4))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let input = v128_load32_splat(a.add(r * stride + k).cast());
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = f32x4_add(*sum, f32x4_mul(input, column));
                }
            }
        }
        store(sums, y, out_stride);
    }
}

/// # Safety
/// The lengths were checked (`Codes::check`).
pub(super) unsafe fn gemm_q4(x: Codes<'_>, panel: Panel<'_>, bias: &[f32; LANES], out: &mut Target<'_>) {
    // SAFETY: as the caller promised.
    unsafe { gemm_codes::<Q4>(x, panel, bias, out) }
}

/// # Safety
/// The lengths were checked (`Codes::check`).
pub(super) unsafe fn gemm_q8(x: Codes<'_>, panel: Panel<'_>, bias: &[f32; LANES], out: &mut Target<'_>) {
    // SAFETY: as the caller promised.
    unsafe { gemm_codes::<Q8>(x, panel, bias, out) }
}

/// How a block of weights multiplies a block of codes.
trait Weights {
    /// Words an output takes in a block.
    const WORDS: usize;

    /// The integer sums of a block for four rows and the panel's halves, without corrections.
    ///
    /// # Safety
    /// A block of words can be read at `words`, of four rows' codes at `codes`.
    unsafe fn block(words: *const u32, codes: *const Code) -> Dots;
}

/// Integer sums, or products on their way there: row, half of the panel.
type Dots = [[v128; 2]; SIDE];

/// Four rows by one panel at a time; rows that fill up the last group are computed and not stored.
///
/// # Safety
/// The lengths were checked (`Codes::check`).
#[inline(always)]
unsafe fn gemm_codes<W: Weights>(x: Codes<'_>, panel: Panel<'_>, bias: &[f32; LANES], out: &mut Target<'_>) {
    for row in (0..x.count).step_by(SIDE) {
        // SAFETY: the slices hold whole groups of rows and whole blocks.
        unsafe {
            let mut sums = [[load(bias.as_ptr()), load(bias.as_ptr().add(4))]; SIDE];
            for block in 0..x.blocks {
                let at = row * x.blocks + block * SIDE;
                let words = panel.words.as_ptr().add(block * W::WORDS * LANES);
                let dots = W::block(words, x.codes.as_ptr().add(at * BLOCK));
                let scales = panel.scales.as_ptr().add(block * LANES);
                let scales = [load(scales), load(scales.add(4))];
                for (r, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                    let correction = v128_load32_splat(x.corrections.as_ptr().add(at + r).cast());
                    let own = v128_load32_splat(x.scales.as_ptr().add(at + r).cast());
                    for ((sum, dot), scale) in sums.iter_mut().zip(dots).zip(scales) {
                        let dot = if W::WORDS == Q4_WORDS { i32x4_add(dot, correction) } else { dot };
                        *sum = f32x4_add(*sum, f32x4_mul(f32x4_convert_i32x4(dot), f32x4_mul(scale, own)));
                    }
                }
            }
            for (r, [low, high]) in sums.into_iter().take(x.count - row).enumerate() {
                let to = out.values.as_mut_ptr().add((row + r) * out.stride);
                v128_store(to.cast(), low);
                v128_store(to.add(4).cast(), high);
            }
        }
    }
}

/// How often the inner loops turn. They must stay loops: a turn needs eight sums, two vectors of weights and one of
/// codes, and the sixteen registers of x86-64 hold no second turn. Unrolled, everything would be spilled.
#[inline(always)]
fn turns(n: usize) -> usize {
    black_box(n)
}

/// Each row's pair of codes, in every lane.
#[inline(always)]
fn splats(codes: v128) -> [v128; SIDE] {
    [
        i32x4_shuffle::<0, 0, 0, 0>(codes, codes),
        i32x4_shuffle::<1, 1, 1, 1>(codes, codes),
        i32x4_shuffle::<2, 2, 2, 2>(codes, codes),
        i32x4_shuffle::<3, 3, 3, 3>(codes, codes),
    ]
}

struct Q4;

impl Weights for Q4 {
    const WORDS: usize = Q4_WORDS;

    /// Codes are 0 to 15; the offset of 8 is in the corrections. A product is at most 1905 and a lane adds sixteen,
    /// 30 480, so that a block's sum fits 16 bits.
    #[inline(always)]
    unsafe fn block(words: *const u32, codes: *const Code) -> Dots {
        let mask = u32x4_splat(0x000f_000f);
        let mut sums = [[i16x8_splat(0); 2]; SIDE];
        let mut codes = codes;
        let pairs = turns(4);
        for word in 0..Q4_WORDS {
            // SAFETY: as the caller promised: four words by four pairs are a block.
            unsafe {
                let mut w = [load(words.add(word * LANES).cast()), load(words.add(word * LANES + 4).cast())];
                for _ in 0..pairs {
                    let cut = w.map(|w| v128_and(w, mask));
                    for (sums, a) in sums.iter_mut().zip(splats(load(codes.cast()))) {
                        for (sum, cut) in sums.iter_mut().zip(cut) {
                            *sum = i16x8_add(*sum, i16x8_mul(a, cut));
                        }
                    }
                    w = w.map(|w| u32x4_shr(w, 4));
                    codes = codes.add(2 * SIDE);
                }
            }
        }
        sums.map(|sums| sums.map(|sum| i32x4_dot_i16x8(sum, i16x8_splat(1))))
    }
}

struct Q8;

impl Weights for Q8 {
    const WORDS: usize = Q8_WORDS;

    #[inline(always)]
    unsafe fn block(words: *const u32, codes: *const Code) -> Dots {
        let mut sums = [[i32x4_splat(0); 2]; SIDE];
        let pairs = turns(2);
        for word in 0..Q8_WORDS {
            // SAFETY: as the caller promised: eight words by two pairs are a block.
            unsafe {
                let mut codes = codes.add(word / 2 * 8 * SIDE + word % 2 * 2 * SIDE);
                let w = [load(words.add(word * LANES).cast()), load(words.add(word * LANES + 4).cast())];
                let mut left = 8;
                for _ in 0..pairs {
                    let cut = w.map(|w| i16x8_shr(i16x8_shl(w, left), 8));
                    for (sums, a) in sums.iter_mut().zip(splats(load(codes.cast()))) {
                        for (sum, cut) in sums.iter_mut().zip(cut) {
                            *sum = i32x4_add(*sum, i32x4_dot_i16x8(a, cut));
                        }
                    }
                    left = 0;
                    codes = codes.add(4 * SIDE);
                }
            }
        }
        sums
    }
}

/// # Safety
/// Four floats can be read at `from`.
#[inline(always)]
unsafe fn load(from: *const f32) -> v128 {
    // SAFETY: as the caller promised; the load needs no alignment.
    unsafe { v128_load(from.cast()) }
}

/// # Safety
/// Eight floats can be written at `to` for each of `R` rows, `stride` apart.
#[inline(always)]
unsafe fn store<const R: usize>(sums: [[v128; 2]; R], to: *mut f32, stride: usize) {
    for (r, [low, high]) in sums.into_iter().enumerate() {
        // SAFETY: as the caller promised; the stores need no alignment.
        unsafe {
            v128_store(to.add(r * stride).cast(), low);
            v128_store(to.add(r * stride + 4).cast(), high);
        }
    }
}
