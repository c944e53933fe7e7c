//! Activations to 8 bits: each row in blocks of 32 along its width, one f32 scale a block.

use crate::kernels::{Code, Codes, Isa, ORDER, RUN, Rows, SIDE};
use crate::math::ROUND;
use polygraft::quant::BLOCK;
use std::ops::Range;

/// Quantized rows of one buffer, kept over the panels that read them.
#[derive(Debug, Default)]
pub(crate) struct Quantized {
    codes: Vec<Code>,
    scales: Vec<f32>,
    corrections: Vec<i32>,
    /// Whose activations these are: a step's place in the Program, and its rows.
    of: Option<(usize, Range<usize>)>,
}

impl Quantized {
    /// The codes of `x`, which are rows `rows` of the input of step `step`.
    pub(crate) fn of(&mut self, isa: Isa, step: usize, rows: Range<usize>, x: Rows<'_>) -> Codes<'_> {
        let blocks = x.width / BLOCK;
        let whose = Some((step, rows));
        if self.of != whose {
            let rows = x.count.next_multiple_of(SIDE);
            self.codes.resize(rows * x.width, 0);
            self.scales.resize(rows * blocks, 0.0);
            self.corrections.resize(rows * blocks, 0);
            isa.vectorize(|| self.fill(x));
            self.of = whose;
        }
        let Self { codes, scales, corrections, .. } = self;
        Codes { codes, scales, corrections, count: x.count, blocks }
    }

    #[inline(always)]
    fn fill(&mut self, x: Rows<'_>) {
        let blocks = x.width / BLOCK;
        for row in 0..x.count {
            let group = row / SIDE;
            let side = row - group * SIDE;
            let input = &x.values[row * x.stride..][..x.width];
            for (index, input) in input.chunks_exact(BLOCK).enumerate() {
                let at = (group * blocks + index) * SIDE;
                let codes = &mut self.codes[at * BLOCK..(at + SIDE) * BLOCK];
                let (scale, correction) = block(input, codes, side);
                self.scales[at + side] = scale;
                self.corrections[at + side] = correction;
            }
        }
    }
}

/// One block: its codes among those of its group, then its scale and correction.
#[inline(always)]
fn block(input: &[f32], codes: &mut [Code], side: usize) -> (f32, i32) {
    // The largest magnitude by its bits: a NaN or an infinity is larger than every number and ends up in the scale,
    // so that it is not lost on the way to the outputs.
    let peak = input.iter().fold(0u32, |m, x| m.max(x.to_bits() & 0x7fff_ffff));
    let scale = f32::from_bits(peak) / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut rounded = [0i32; BLOCK];
    let mut sums = [0i32; 8];
    for (rounded, input) in rounded.chunks_exact_mut(8).zip(input.chunks_exact(8)) {
        for ((r, x), sum) in rounded.iter_mut().zip(input).zip(&mut sums) {
            *r = (x * inverse + ROUND).to_bits().cast_signed().wrapping_sub(ROUND.to_bits().cast_signed());
            *sum = sum.wrapping_add(*r);
        }
    }
    for (codes, rounded) in codes.chunks_exact_mut(8 * SIDE).zip(rounded.chunks_exact(8)) {
        for (codes, order) in codes.chunks_exact_mut(RUN * SIDE).zip(ORDER.chunks_exact(RUN)) {
            for (code, &from) in codes[side * RUN..(side + 1) * RUN].iter_mut().zip(order) {
                *code = rounded[from] as Code;
            }
        }
    }
    // At most 8 × 16 × 127, which fits 16 bits; what a NaN leaves here does not matter.
    let half = |at: usize| (-8 * (sums[at] + sums[at + 1] + sums[at + 4] + sums[at + 5])) as i16;
    (scale, i32::from(half(0)) & 0xffff | i32::from(half(2)) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_half_a_step_off_at_most_and_zeros_stay() {
        let values: Vec<f32> = (0..96).map(|i| if i < 32 { 0.0 } else { (i as f32 * 0.7).sin() * i as f32 }).collect();
        let x = Rows { values: &values, stride: 96, count: 1, width: 96 };
        let mut quantized = Quantized::default();
        let codes = quantized.of(Isa::detect(), 0, 0..1, x);
        for (i, value) in values.iter().enumerate() {
            let ordered = ORDER.iter().position(|&o| o == i % 8).unwrap();
            let place = i / 8 * 8 * SIDE + ordered / RUN * RUN * SIDE + ordered % RUN;
            let scale = codes.scales[i / BLOCK * SIDE];
            let code = i32::from(codes.codes[place]);
            assert!((code as f32 * scale - value).abs() <= 0.501 * scale && code.abs() <= 127, "{i}");
        }
        let halves = [codes.corrections[1] as i16, (codes.corrections[1] >> 16) as i16].map(i32::from);
        assert_eq!(halves.iter().sum::<i32>(), -8 * codes.codes[32..64].iter().map(|&c| i32::from(c)).sum::<i32>());
        assert_eq!((codes.scales[0], codes.corrections[0]), (0.0, 0));
    }
}
