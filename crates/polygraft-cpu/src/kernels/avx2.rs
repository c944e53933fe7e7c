//! AVX2 and FMA. A vector of eight f32 or of eight 32-bit words is one place of a panel.

use super::{Codes, Panel, Rows, Target};
use crate::pack::{LANES, Q8_WORDS};
use polygraft::quant::BLOCK;
use std::arch::x86_64::*;

/// # Safety
/// The machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn vectorize<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Calls `$tile::<n, …>(…)` for the number of rows left, at most the tile's height, and yields that number.
macro_rules! by_rows {
    ($left:expr, $tile:ident, [$($more:expr),*], $args:tt) => {
        match $left {
            1 => by_rows!(@ $tile, 1, [$($more),*], $args),
            2 => by_rows!(@ $tile, 2, [$($more),*], $args),
            3 => by_rows!(@ $tile, 3, [$($more),*], $args),
            4 => by_rows!(@ $tile, 4, [$($more),*], $args),
            5 => by_rows!(@ $tile, 5, [$($more),*], $args),
            _ => by_rows!(@ $tile, 6, [$($more),*], $args),
        }
    };
    (@ $tile:ident, $n:expr, [$($more:expr),*], ($($arg:expr),*)) => {{
        $tile::<$n, $($more),*>($($arg),*);
        $n
    }};
}

/// # Safety
/// The machine has AVX2 and FMA; the lengths were checked (`Rows::check`).
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn gemm(x: Rows<'_>, weights: &[f32], panels: usize, bias: Option<&[f32]>, out: &mut Target<'_>) {
    let mut panel = 0;
    while panel < panels {
        let mut row = 0;
        while row < x.count {
            // SAFETY: `row` and `panel` are inside the slices that were checked.
            row += unsafe {
                let a = x.values.as_ptr().add(row * x.stride);
                let w = weights.as_ptr().add(panel * x.width * LANES);
                let y = out.values.as_mut_ptr().add(row * out.stride + panel * LANES);
                let b = bias.map_or((y.cast_const(), out.stride), |b| (b.as_ptr().add(panel * LANES), 0));
                if panel + 1 < panels {
                    by_rows!(x.count - row, tile, [2], (a, x.stride, x.width, w, b, y, out.stride))
                } else {
                    by_rows!(x.count - row, tile, [1], (a, x.stride, x.width, w, b, y, out.stride))
                }
            };
        }
        panel += 2;
    }
}

/// `R` rows by `P` panels: twelve sums at most, so that they stay in registers.
///
/// # Safety
/// `R` rows can be read at `a` and written at `y`, `P` panels read at `w`; the sums start from what stands at `from`.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile<const R: usize, const P: usize>(
    a: *const f32,
    stride: usize,
    width: usize,
    w: *const f32,
    (from, from_stride): (*const f32, usize),
    y: *mut f32,
    out_stride: usize,
) {
    // SAFETY: as the caller promised; `k` stays below `width`.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); P]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (p, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(from.add(r * from_stride + p * LANES));
            }
        }
        let mut k = 0;
        // Four places at a time spare most of the address arithmetic; the order of the additions is the same.
        while k + 4 <= width {
            for k in k..k + 4 {
                place(&mut sums, a.add(k), stride, w.add(k * LANES), width);
            }
            k += 4;
        }
        for k in k..width {
            place(&mut sums, a.add(k), stride, w.add(k * LANES), width);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (p, sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(y.add(r * out_stride + p * LANES), *sum);
            }
        }
    }
}

/// Adds the products at one place along the inputs.
///
/// # Safety
/// An input can be read at `a` for each of `R` rows, eight weights at `w` for each of `P` panels.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn place<const R: usize, const P: usize>(
    sums: &mut [[__m256; P]; R],
    a: *const f32,
    stride: usize,
    w: *const f32,
    width: usize,
) {
    // SAFETY: as the caller promised.
    unsafe {
        let mut columns = [_mm256_setzero_ps(); P];
        for (p, column) in columns.iter_mut().enumerate() {
            *column = _mm256_loadu_ps(w.add(p * width * LANES));
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let input = _mm256_broadcast_ss(&*a.add(r * stride));
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = _mm256_fmadd_ps(input, column, *sum);
            }
        }
    }
}

/// # Safety
/// The machine has AVX2 and FMA; the lengths were checked (`Codes::check`).
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn gemm_q4(x: Codes<'_>, panel: Panel<'_>, bias: Option<&[f32; LANES]>, out: &mut Target<'_>) {
    let mut row = 0;
    while row < x.count {
        // SAFETY: rows from `row` on are inside the slices that were checked.
        row += unsafe { by_rows!(x.count - row, tile_q4, [], (&x, row, &panel, bias, out)) };
    }
}

/// # Safety
/// The machine has AVX2 and FMA; the lengths were checked (`Codes::check`).
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn gemm_q8(x: Codes<'_>, panel: Panel<'_>, bias: Option<&[f32; LANES]>, out: &mut Target<'_>) {
    let mut row = 0;
    while row < x.count {
        // SAFETY: rows from `row` on are inside the slices that were checked.
        row += unsafe { by_rows!(x.count - row, tile_q8, [], (&x, row, &panel, bias, out)) };
    }
}

/// `R` rows by one panel of 4-bit codes. The codes stay 0 to 15, the unsigned side of `maddubs`: a pair of products is
/// at most 3810 and eight pairs 30 480; less the offset of 8, from which the sums start, a block's sum is at most
/// 16 256 and fits 16 bits.
///
/// # Safety
/// Rows `row..row + R` are inside the slices of `x` and `out`.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile_q4<const R: usize>(
    x: &Codes<'_>,
    row: usize,
    panel: &Panel<'_>,
    bias: Option<&[f32; LANES]>,
    out: &mut Target<'_>,
) {
    let ones = _mm256_set1_epi16(1);
    // SAFETY: as the caller promised; `block` stays below `blocks`.
    unsafe {
        let mut sums = [bias.map_or(_mm256_setzero_ps(), |b| _mm256_loadu_ps(b.as_ptr())); R];
        for block in 0..x.blocks {
            let mut dots = [_mm256_setzero_si256(); R];
            for (r, dot) in dots.iter_mut().enumerate() {
                *dot = _mm256_set1_epi32(*x.corrections.as_ptr().add((row + r) * x.blocks + block));
            }
            let words = panel.words.as_ptr().add(block * Q8_WORDS * LANES);
            let codes = x.codes.as_ptr().add((row * x.blocks + block) * BLOCK);
            for word in 0..Q8_WORDS {
                let w = _mm256_loadu_si256(words.add(word * LANES).cast());
                for (r, dot) in dots.iter_mut().enumerate() {
                    let codes = codes.add(r * x.blocks * BLOCK + word * 4);
                    *dot = _mm256_add_epi16(*dot, _mm256_maddubs_epi16(w, four(codes)));
                }
            }
            let dots = dots.map(|dot| _mm256_madd_epi16(dot, ones));
            scaled(&mut sums, dots, x, row, panel, block);
        }
        onto(out, row, &sums, bias.is_some());
    }
}

/// `R` rows by one panel of 8-bit codes: |w| is the unsigned side of `maddubs` and the activation takes the sign of w;
/// a pair of products is at most 32 512.
///
/// # Safety
/// Rows `row..row + R` are inside the slices of `x` and `out`.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile_q8<const R: usize>(
    x: &Codes<'_>,
    row: usize,
    panel: &Panel<'_>,
    bias: Option<&[f32; LANES]>,
    out: &mut Target<'_>,
) {
    let ones = _mm256_set1_epi16(1);
    // SAFETY: as the caller promised; `block` stays below `blocks`.
    unsafe {
        let mut sums = [bias.map_or(_mm256_setzero_ps(), |b| _mm256_loadu_ps(b.as_ptr())); R];
        for block in 0..x.blocks {
            let mut dots = [_mm256_setzero_si256(); R];
            let words = panel.words.as_ptr().add(block * Q8_WORDS * LANES);
            let codes = x.codes.as_ptr().add((row * x.blocks + block) * BLOCK);
            for word in 0..Q8_WORDS {
                let w = _mm256_loadu_si256(words.add(word * LANES).cast());
                let magnitude = _mm256_abs_epi8(w);
                for (r, dot) in dots.iter_mut().enumerate() {
                    let a = _mm256_sign_epi8(four(codes.add(r * x.blocks * BLOCK + word * 4)), w);
                    let pairs = _mm256_maddubs_epi16(magnitude, a);
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(pairs, ones));
                }
            }
            scaled(&mut sums, dots, x, row, panel, block);
        }
        onto(out, row, &sums, bias.is_some());
    }
}

/// Adds a block's integer sums, times the scales of the weights and of each row's activations.
///
/// # Safety
/// The machine has AVX2 and FMA; rows `row..row + R` are inside the slices of `x`, and `block` is one of the panel's.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn scaled<const R: usize>(
    sums: &mut [__m256; R],
    dots: [__m256i; R],
    x: &Codes<'_>,
    row: usize,
    panel: &Panel<'_>,
    block: usize,
) {
    // SAFETY: as the caller promised.
    unsafe {
        let scale = _mm256_loadu_ps(panel.scales.as_ptr().add(block * LANES));
        for (r, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
            let at = (row + r) * x.blocks + block;
            let scale = _mm256_mul_ps(scale, _mm256_broadcast_ss(&*x.scales.as_ptr().add(at)));
            *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
        }
    }
}

/// Sums of rows from `row` on to where they belong, in place of what is there or onto it.
///
/// # Safety
/// The machine has AVX2 and FMA; the rows are inside `out`.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn onto<const R: usize>(out: &mut Target<'_>, row: usize, sums: &[__m256; R], in_place: bool) {
    for (r, sum) in sums.iter().enumerate() {
        // SAFETY: as the caller promised.
        unsafe {
            let to = out.values.as_mut_ptr().add((row + r) * out.stride);
            let sum = if in_place { *sum } else { _mm256_add_ps(*sum, _mm256_loadu_ps(to)) };
            _mm256_storeu_ps(to, sum);
        }
    }
}

/// Four codes, in every lane.
///
/// # Safety
/// Four codes can be read at `codes`.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn four(codes: *const i8) -> __m256i {
    // SAFETY: as the caller promised; the read needs no alignment.
    _mm256_set1_epi32(unsafe { codes.cast::<i32>().read_unaligned() })
}
