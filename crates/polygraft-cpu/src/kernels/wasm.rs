//! WebAssembly SIMD. A vector is four outputs at one place of a panel; two vectors are the panel.

use super::{Codes, Panel, Rows, Target};
use crate::pack::{LANES, Q4_WORDS, Q8_WORDS};
use polygraft::quant::BLOCK;
use std::arch::wasm32::*;

pub(super) const NAME: &str = "wasm simd128";

/// Activations are 16 bits wide, because `i32x4_dot_i16x8` is the one integer product that every engine lowers to one
/// or two instructions.
pub(crate) type Code = i16;

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
    let mut row = 0;
    while row < x.count {
        // SAFETY: rows from `row` on are inside the slices that were checked.
        row += unsafe { by_rows!(x.count - row, tile_q4, (&x, row, &panel, bias, out)) };
    }
}

/// # Safety
/// The lengths were checked (`Codes::check`).
pub(super) unsafe fn gemm_q8(x: Codes<'_>, panel: Panel<'_>, bias: &[f32; LANES], out: &mut Target<'_>) {
    let mut row = 0;
    while row < x.count {
        // SAFETY: rows from `row` on are inside the slices that were checked.
        row += unsafe { by_rows!(x.count - row, tile_q8, (&x, row, &panel, bias, out)) };
    }
}

/// `R` rows by one panel of 4-bit codes, 0 to 15; the offset of 8 is in the corrections.
///
/// # Safety
/// Rows `row..row + R` are inside the slices of `x` and `out`.
#[inline(always)]
unsafe fn tile_q4<const R: usize>(
    x: &Codes<'_>,
    row: usize,
    panel: &Panel<'_>,
    bias: &[f32; LANES],
    out: &mut Target<'_>,
) {
    let mask = u32x4_splat(0x000f_000f);
    // SAFETY: as the caller promised; `block` stays below `blocks`.
    unsafe {
        let mut sums = [[load(bias.as_ptr()), load(bias.as_ptr().add(4))]; R];
        for block in 0..x.blocks {
            let mut dots = [[i32x4_splat(0); 2]; R];
            for (r, dots) in dots.iter_mut().enumerate() {
                *dots = [v128_load32_splat(x.corrections.as_ptr().add((row + r) * x.blocks + block).cast()); 2];
            }
            let words = panel.words.as_ptr().add(block * Q4_WORDS * LANES);
            let codes = x.codes.as_ptr().add((row * x.blocks + block) * BLOCK);
            for word in 0..Q4_WORDS {
                let w = [load(words.add(word * LANES).cast()), load(words.add(word * LANES + 4).cast())];
                let codes = codes.add(word * 8);
                dot(&mut dots, codes, x.blocks, w.map(|w| v128_and(w, mask)));
                dot(&mut dots, codes.add(2), x.blocks, w.map(|w| v128_and(u32x4_shr(w, 4), mask)));
                dot(&mut dots, codes.add(4), x.blocks, w.map(|w| v128_and(u32x4_shr(w, 8), mask)));
                dot(&mut dots, codes.add(6), x.blocks, w.map(|w| v128_and(u32x4_shr(w, 12), mask)));
            }
            scale(&mut sums, &dots, x, row, panel, block);
        }
        store(sums, out.values.as_mut_ptr().add(row * out.stride), out.stride);
    }
}

/// `R` rows by one panel of 8-bit codes.
///
/// # Safety
/// Rows `row..row + R` are inside the slices of `x` and `out`.
#[inline(always)]
unsafe fn tile_q8<const R: usize>(
    x: &Codes<'_>,
    row: usize,
    panel: &Panel<'_>,
    bias: &[f32; LANES],
    out: &mut Target<'_>,
) {
    // SAFETY: as the caller promised; `block` stays below `blocks`.
    unsafe {
        let mut sums = [[load(bias.as_ptr()), load(bias.as_ptr().add(4))]; R];
        for block in 0..x.blocks {
            let mut dots = [[i32x4_splat(0); 2]; R];
            let words = panel.words.as_ptr().add(block * Q8_WORDS * LANES);
            let codes = x.codes.as_ptr().add((row * x.blocks + block) * BLOCK);
            for word in 0..Q8_WORDS {
                let w = [load(words.add(word * LANES).cast()), load(words.add(word * LANES + 4).cast())];
                let codes = codes.add(word / 2 * 8 + word % 2 * 2);
                dot(&mut dots, codes, x.blocks, w.map(|w| i16x8_shr(i16x8_shl(w, 8), 8)));
                dot(&mut dots, codes.add(4), x.blocks, w.map(|w| i16x8_shr(w, 8)));
            }
            scale(&mut sums, &dots, x, row, panel, block);
        }
        store(sums, out.values.as_mut_ptr().add(row * out.stride), out.stride);
    }
}

/// Adds the products of one pair of inputs a row with a pair of weights an output.
///
/// # Safety
/// Two codes can be read at `codes` for each of `R` rows, `blocks` blocks apart.
#[inline(always)]
unsafe fn dot<const R: usize>(dots: &mut [[v128; 2]; R], codes: *const i16, blocks: usize, w: [v128; 2]) {
    for (r, dots) in dots.iter_mut().enumerate() {
        // SAFETY: as the caller promised; the load needs no alignment.
        let a = unsafe { v128_load32_splat(codes.add(r * blocks * BLOCK).cast()) };
        for (dot, w) in dots.iter_mut().zip(w) {
            *dot = i32x4_add(*dot, i32x4_dot_i16x8(a, w));
        }
    }
}

/// Adds a block's integer sums, scaled, to the f32 sums.
///
/// # Safety
/// Rows `row..row + R` and `block` are inside the slices of `x` and `panel`.
#[inline(always)]
unsafe fn scale<const R: usize>(
    sums: &mut [[v128; 2]; R],
    dots: &[[v128; 2]; R],
    x: &Codes<'_>,
    row: usize,
    panel: &Panel<'_>,
    block: usize,
) {
    // SAFETY: as the caller promised.
    unsafe {
        let scales = panel.scales.as_ptr().add(block * LANES);
        let scales = [load(scales), load(scales.add(4))];
        for (r, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
            let own = v128_load32_splat(x.scales.as_ptr().add((row + r) * x.blocks + block).cast());
            for ((sum, &dot), scale) in sums.iter_mut().zip(dots).zip(scales) {
                *sum = f32x4_add(*sum, f32x4_mul(f32x4_convert_i32x4(dot), f32x4_mul(scale, own)));
            }
        }
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
