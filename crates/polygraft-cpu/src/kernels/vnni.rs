//! VNNI: the products of four bytes, added up in 32 bits by one instruction, in either of its encodings. A vector of
//! eight 32-bit words is one place of a panel, as in [`super::avx2`], which has all that multiplies no bytes.

use super::avx2::{four, onto, scaled};
use super::{Codes, Panel, Target};
use crate::pack::{LANES, Q8_WORDS};
use polygraft::quant::BLOCK;
use std::arch::x86_64::*;

/// The kernels for one encoding. `$full` rows at a time, as many as have their sums in registers: a product takes four
/// cycles, and two start in each.
macro_rules! kernels {
    ($name:ident, $features:literal, $dot:ident, [$($rows:literal),*], $full:literal) => {
        pub(super) mod $name {
            use super::*;

            /// # Safety
            /// The machine has the features; the lengths were checked (`Codes::check`).
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn gemm<const FOUR: bool>(
                x: Codes<'_>,
                panel: Panel<'_>,
                bias: Option<&[f32; LANES]>,
                out: &mut Target<'_>,
            ) {
                let mut row = 0;
                while row < x.count {
                    // SAFETY: rows from `row` on are inside the slices that were checked.
                    row += unsafe {
                        match x.count - row {
                            $($rows => tile::<$rows, FOUR>(&x, row, &panel, bias, out),)*
                            _ => tile::<$full, FOUR>(&x, row, &panel, bias, out),
                        }
                    };
                }
            }

            /// `R` rows by one panel, of 4-bit codes from 0 to 15, or of 8-bit codes: then |w| is the unsigned side and
            /// the activation takes the sign of w. Gives `R`.
            ///
            /// # Safety
            /// Rows `row..row + R` are inside the slices of `x` and `out`.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn tile<const R: usize, const FOUR: bool>(
                x: &Codes<'_>,
                row: usize,
                panel: &Panel<'_>,
                bias: Option<&[f32; LANES]>,
                out: &mut Target<'_>,
            ) -> usize {
                let ones = _mm256_set1_epi16(1);
                // SAFETY: as the caller promised; `block` stays below `blocks`.
                unsafe {
                    let mut sums = [bias.map_or(_mm256_setzero_ps(), |b| _mm256_loadu_ps(b.as_ptr())); R];
                    for block in 0..x.blocks {
                        let mut dots = [_mm256_setzero_si256(); R];
                        if FOUR {
                            for (r, dot) in dots.iter_mut().enumerate() {
                                let halves = *x.corrections.as_ptr().add((row + r) * x.blocks + block);
                                *dot = _mm256_madd_epi16(_mm256_set1_epi32(halves), ones);
                            }
                        }
                        let words = panel.words.as_ptr().add(block * Q8_WORDS * LANES);
                        let codes = x.codes.as_ptr().add((row * x.blocks + block) * BLOCK);
                        for word in 0..Q8_WORDS {
                            let w = _mm256_loadu_si256(words.add(word * LANES).cast());
                            let magnitude = if FOUR { w } else { _mm256_abs_epi8(w) };
                            for (r, dot) in dots.iter_mut().enumerate() {
                                let a = four(codes.add(r * x.blocks * BLOCK + word * 4));
                                let a = if FOUR { a } else { _mm256_sign_epi8(a, w) };
                                *dot = $dot(*dot, magnitude, a);
                            }
                        }
                        scaled(&mut sums, dots, x, row, panel, block);
                    }
                    onto(out, row, &sums, bias.is_some());
                }
                R
            }
        }
    };
}

kernels!(avx, "avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32, [1, 2, 3, 4, 5], 6);
kernels!(avx512, "avx2,fma,avx512vnni,avx512vl", _mm256_dpbusd_epi32, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 12);
