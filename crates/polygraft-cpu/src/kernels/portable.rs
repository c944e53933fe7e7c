//! Plain Rust: for machines without a kernel of their own, and the check of those that have one.

use super::{Codes, Panel, Rows, Target};
use crate::pack::{LANES, Q8_WORDS};
use polygraft::quant::BLOCK;

/// Rows that share one pass over a panel.
const TILE: usize = 4;

pub(super) fn gemm(x: Rows<'_>, weights: &[f32], panels: usize, bias: Option<&[f32]>, out: &mut Target<'_>) {
    for panel in 0..panels {
        let weights = &weights[panel * x.width * LANES..(panel + 1) * x.width * LANES];
        let mut row = 0;
        while row < x.count {
            let rows = TILE.min(x.count - row);
            let mut sums = [[0.0f32; LANES]; TILE];
            for (r, sums) in sums[..rows].iter_mut().enumerate() {
                let own = (row + r) * out.stride;
                sums.copy_from_slice(&bias.unwrap_or(&out.values[own..])[panel * LANES..][..LANES]);
            }
            // Rows past the last repeat it: a tile always computes the same way.
            let inputs: [&[f32]; TILE] =
                std::array::from_fn(|r| &x.values[(row + r.min(rows - 1)) * x.stride..][..x.width]);
            for (k, w) in weights.chunks_exact(LANES).enumerate() {
                for (sums, input) in sums.iter_mut().zip(inputs) {
                    sums.iter_mut().zip(w).for_each(|(s, w)| *s += input[k] * w);
                }
            }
            for (r, sums) in sums[..rows].iter().enumerate() {
                out.values[(row + r) * out.stride + panel * LANES..][..LANES].copy_from_slice(sums);
            }
            row += rows;
        }
    }
}

pub(super) fn gemm_q4(x: Codes<'_>, panel: Panel<'_>, bias: Option<&[f32; LANES]>, out: &mut Target<'_>) {
    integer(x, panel, bias, out, 1, |word, k| i32::from(word.to_le_bytes()[k]));
}

pub(super) fn gemm_q8(x: Codes<'_>, panel: Panel<'_>, bias: Option<&[f32; LANES]>, out: &mut Target<'_>) {
    integer(x, panel, bias, out, 0, |word, k| i32::from(word.to_le_bytes()[k].cast_signed()));
}

/// One row after the other; `code(word, k)` is code `k` of a word, `corrected` 1 where codes have an offset of 8.
fn integer(
    x: Codes<'_>,
    panel: Panel<'_>,
    bias: Option<&[f32; LANES]>,
    out: &mut Target<'_>,
    corrected: i32,
    code: impl Fn(u32, usize) -> i32,
) {
    const EACH: usize = BLOCK / Q8_WORDS;
    for row in 0..x.count {
        let mut sums = bias.copied().unwrap_or_default();
        for block in 0..x.blocks {
            let at = row * x.blocks + block;
            let mut dots = [corrected * (i32::from(x.corrections[at] as i16) + (x.corrections[at] >> 16)); LANES];
            let words = &panel.words[block * Q8_WORDS * LANES..(block + 1) * Q8_WORDS * LANES];
            let codes = &x.codes[at * BLOCK..(at + 1) * BLOCK];
            for (words, codes) in words.chunks_exact(LANES).zip(codes.chunks_exact(EACH)) {
                for (k, &a) in codes.iter().enumerate() {
                    dots.iter_mut().zip(words).for_each(|(d, &w)| *d += i32::from(a) * code(w, k));
                }
            }
            let scales = &panel.scales[block * LANES..(block + 1) * LANES];
            for ((sum, dot), scale) in sums.iter_mut().zip(dots).zip(scales) {
                *sum += dot as f32 * (scale * x.scales[at]);
            }
        }
        let to = &mut out.values[row * out.stride..][..LANES];
        to.iter_mut().zip(sums).for_each(|(y, sum)| *y = if bias.is_some() { sum } else { *y + sum });
    }
}
