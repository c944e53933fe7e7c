//! Activations to 8 bits: each row in blocks of 32 along its width, one f32 scale a block.

use crate::kernels::{Code, Codes, Isa, ROW, Rows, SIDE};
use crate::math::ROUND;
use polygraft::quant::BLOCK;
use std::ops::Range;

/// Quantized rows of one buffer, kept over the panels that read them.
#[derive(Debug, Default)]
pub(crate) struct Quantized {
    codes: Vec<Code>,
    scales: Vec<f32>,
    corrections: Vec<i32>,
    /// Of the rows in `shared`.
    shares: Vec<u32>,
    tops: Vec<f32>,
    shared: Range<usize>,
    /// Blocks of a row.
    blocks: usize,
    /// Whose activations these are: a kernel's place, and its rows.
    of: Option<(usize, Range<usize>)>,
}

impl Quantized {
    /// The codes of `x`, whose owner is `whose`: quantized once for each owner in turn.
    pub(crate) fn of(&mut self, isa: Isa, whose: (usize, Range<usize>), x: Rows<'_>) -> Codes<'_> {
        let count = x.count;
        if self.of.as_ref() != Some(&whose) {
            self.resize(isa, count, x.width);
            self.put(isa, 0, 0, x);
            self.of = Some(whose);
        }
        self.rows(isa, &(0..count))
    }

    /// The codes of what rounding leaves of `x`: together with the codes of `x` itself, 16 bits.
    pub(crate) fn rest_of(&mut self, isa: Isa, whose: (usize, Range<usize>), x: Rows<'_>) -> Codes<'_> {
        let (count, width) = (x.count, x.width);
        if self.of.as_ref() != Some(&whose) {
            let mut rest = vec![0.0; count * width];
            isa.vectorize(|| {
                for (row, rest) in rest.chunks_exact_mut(width.max(1)).enumerate() {
                    let input = &x.values[row * x.stride..][..width];
                    for (input, rest) in input.chunks_exact(BLOCK).zip(rest.chunks_exact_mut(BLOCK)) {
                        let (scale, inverse) = scale_of(input);
                        for (r, x) in rest.iter_mut().zip(input) {
                            *r = x - ((x * inverse + ROUND) - ROUND) * scale;
                        }
                    }
                }
            });
            self.of = None;
            return self.of(isa, whose, Rows { values: &rest, stride: width, count, width });
        }
        self.rows(isa, &(0..count))
    }

    /// Makes room for `rows` rows of `width`; what is there stays when nothing changes.
    pub(crate) fn resize(&mut self, isa: Isa, rows: usize, width: usize) {
        let (rows, blocks) = (rows.next_multiple_of(SIDE), width / BLOCK);
        self.blocks = isa.filled(blocks);
        self.codes.resize(rows * self.blocks * ROW, 0);
        self.scales.resize(rows * self.blocks, 0.0);
        self.corrections.resize(rows * self.blocks, 0);
        if self.blocks > blocks {
            let (group, empty) = (self.blocks * SIDE, blocks * SIDE..self.blocks * SIDE);
            self.codes.chunks_exact_mut(group * ROW).for_each(|c| c[empty.start * ROW..].fill(0));
            self.scales.chunks_exact_mut(group).for_each(|s| s[empty.clone()].fill(0.0));
            self.corrections.chunks_exact_mut(group).for_each(|c| c[empty.clone()].fill(0));
        }
    }

    /// Quantizes `x` into rows from `first` on, columns from `column` on: whole blocks.
    pub(crate) fn put(&mut self, isa: Isa, first: usize, column: usize, x: Rows<'_>) {
        self.shared = 0..0;
        isa.vectorize(|| {
            for row in 0..x.count {
                let group = (first + row) / SIDE;
                let side = first + row - group * SIDE;
                let input = &x.values[row * x.stride..][..x.width];
                for (index, input) in input.as_chunks().0.iter().enumerate() {
                    let at = (group * self.blocks + column / BLOCK + index) * SIDE;
                    let codes = &mut self.codes[at * ROW..(at + SIDE) * ROW];
                    let (scale, correction) = isa.quantize(input, codes, side);
                    self.scales[at + side] = scale;
                    self.corrections[at + side] = correction;
                }
            }
        });
    }

    /// The codes of `rows`, which start where a group does.
    pub(crate) fn rows(&mut self, isa: Isa, rows: &Range<usize>) -> Codes<'_> {
        debug_assert!(rows.start.is_multiple_of(SIDE), "rows start in the middle of a group");
        let at = rows.start * self.blocks;
        let segments = isa.segments(self.blocks).unwrap_or(0);
        if segments > 0 && !(self.shared.start <= rows.start && rows.end <= self.shared.end) {
            self.share(isa, rows, segments);
        }
        let (shares, tops) = match rows.start.checked_sub(self.shared.start) {
            Some(rows) if segments > 0 => (&self.shares[rows * self.blocks..], &self.tops[rows * segments..]),
            _ => (&[][..], &[][..]),
        };
        Codes {
            codes: &self.codes[at * ROW..],
            scales: &self.scales[at..],
            corrections: &self.corrections[at..],
            shares,
            tops,
            count: rows.len(),
            blocks: self.blocks,
        }
    }

    /// See [`Isa::shares`]: of these rows, for as long as they are asked for.
    fn share(&mut self, isa: Isa, rows: &Range<usize>, segments: usize) {
        let count = rows.len().next_multiple_of(SIDE);
        self.shares.resize(count * self.blocks, 0);
        self.tops.resize(count * segments, 0.0);
        let group = self.blocks * SIDE;
        let at = rows.start * self.blocks;
        let rounded = self.codes[at * ROW..].chunks_exact(group * ROW).zip(self.scales[at..].chunks_exact(group));
        let places = self.shares.chunks_exact_mut(group).zip(self.tops.chunks_exact_mut(segments * SIDE));
        for ((codes, scales), (words, tops)) in rounded.zip(places) {
            isa.shares(codes, scales, words, tops);
        }
        self.shared = rows.clone();
    }
}

/// A block's scale, and one over it.
#[inline(always)]
fn scale_of(input: &[f32]) -> (f32, f32) {
    // The largest magnitude by its bits: a NaN or an infinity is larger than every number and ends up in the scale,
    // so that it is not lost on the way to the outputs.
    let peak = input.iter().fold(0u32, |m, x| m.max(x.to_bits() & 0x7fff_ffff));
    let scale = f32::from_bits(peak) / 127.0;
    // One over a smaller number is infinite.
    (scale, if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 })
}

/// One block of one row, in plain Rust: its codes, then its scale and correction.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline(always)]
pub(crate) fn block(input: &[f32; BLOCK], codes: &mut [Code]) -> (f32, i32) {
    let (scale, inverse) = scale_of(input);
    let mut rounded = [0i32; BLOCK];
    let mut sums = [0i32; 8];
    for (rounded, input) in rounded.chunks_exact_mut(8).zip(input.chunks_exact(8)) {
        for ((r, x), sum) in rounded.iter_mut().zip(input).zip(&mut sums) {
            *r = (x * inverse + ROUND).to_bits().cast_signed().wrapping_sub(ROUND.to_bits().cast_signed());
            *sum = sum.wrapping_add(*r);
        }
    }
    codes.iter_mut().zip(rounded).for_each(|(code, r)| *code = r as Code);
    // At most 8 × 16 × 127, which fits 16 bits; what a NaN leaves here does not matter.
    let half =
        |at: usize| [0, 1, 4, 5].into_iter().fold(0i32, |s, i| s.wrapping_add(sums[at + i])).wrapping_mul(-8) as i16;
    (scale, i32::from(half(0)) & 0xffff | i32::from(half(2)) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_makes_sixteen_bits() {
        let values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin() * i as f32).collect();
        let x = Rows { values: &values, stride: 64, count: 1, width: 64 };
        let (mut once, mut rest) = (Quantized::default(), Quantized::default());
        let isa = Isa::detect();
        let (a, b) = (once.of(isa, (0, 0..1), x), rest.rest_of(isa, (0, 0..1), x));
        for (i, value) in values.iter().enumerate() {
            let part = |c: &Codes<'_>| f32::from(c.codes[i]) * c.scales[i / BLOCK];
            assert!((part(&a) + part(&b) - value).abs() <= 64.0 / 127.0 / 127.0 / 2.0, "{i}");
        }
    }

    #[test]
    fn codes_are_half_a_step_off_at_most_and_zeros_stay() {
        let values: Vec<f32> = (0..96).map(|i| if i < 32 { 0.0 } else { (i as f32 * 0.7).sin() * i as f32 }).collect();
        let x = Rows { values: &values, stride: 96, count: 1, width: 96 };
        let mut quantized = Quantized::default();
        let codes = quantized.of(Isa::detect(), (0, 0..1), x);
        for (i, value) in values.iter().enumerate() {
            let scale = codes.scales[i / BLOCK];
            let code = i32::from(codes.codes[i]);
            assert!((code as f32 * scale - value).abs() <= 0.501 * scale && code.abs() <= 127, "{i}");
        }
        let halves = [codes.corrections[1] as i16, (codes.corrections[1] >> 16) as i16].map(i32::from);
        assert_eq!(halves.iter().sum::<i32>(), -8 * codes.codes[32..64].iter().map(|&c| i32::from(c)).sum::<i32>());
        assert_eq!((codes.scales[0], codes.corrections[0]), (0.0, 0));
    }
}
