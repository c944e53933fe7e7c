//! Adapters' matrices in codes: decoded a few outputs at a time, or multiplied in integers by rounded activations.
//!
//! One bit is `middle ± half`, so that `y = middle · Σx + half · Σ ±x`, both sums of integers: it runs as 4-bit codes 7 and 9
//! on the kernel of 4-bit weights. Levels of two and four bits are not evenly spaced. A panel is made for the rows at hand
//! and forgotten.

use crate::decode;
use crate::kernels::{self, Bits, Isa, Panels, Rows, SIDE, Target};
use crate::pack::{LANES, Q4_WORDS};
use polygraft::quant::BLOCK;
use polygraft::quant::codes::{Codes, Group};
use std::ops::Range;

/// Decodes `panels` of a `rows × cols` matrix: `[panel][input][lane]`, zeros past the last output.
pub(crate) fn panels(isa: Isa, codes: &Codes, (rows, cols): (usize, usize), panels: Range<usize>, out: &mut [f32]) {
    let mut row = Vec::new();
    for (panel, out) in panels.zip(out.chunks_exact_mut((cols * LANES).max(1))) {
        let first = panel * LANES;
        let rows = first..rows.min(first + LANES);
        if let [low, high] = *codes.levels() {
            isa.vectorize(|| one_bit(codes, rows, cols, [low, high], out));
            continue;
        }
        out.fill(0.0);
        row.resize(cols, 0.0);
        for (lane, output) in rows.enumerate() {
            codes.decode_row(output, &mut row);
            out.iter_mut().skip(lane).step_by(LANES).zip(&row).for_each(|(o, x)| *o = *x);
        }
    }
}

/// Eight outputs at a time, a word of each: a fifth of the time that row after row takes.
#[inline(always)]
fn one_bit(codes: &Codes, rows: Range<usize>, cols: usize, [low, high]: [f32; 2], out: &mut [f32]) {
    let span = codes.group().span(cols);
    for (index, out) in out.chunks_mut(span * LANES).enumerate() {
        // A lane without an output is nothing times the first level.
        let (mut means, mut deviations) = ([0.0; LANES], [0.0; LANES]);
        for (lane, row) in rows.clone().enumerate() {
            [means[lane], deviations[lane]] = codes.stats()[codes.group().first(row, cols) + index];
        }
        for (at, out) in out.chunks_mut(32 * LANES).enumerate() {
            let mut words = [0u32; LANES];
            for (word, row) in words.iter_mut().zip(rows.clone()) {
                *word = window(codes.data(), row * cols + index * span + at * 32);
            }
            for (k, out) in out.chunks_exact_mut(LANES).enumerate() {
                for lane in 0..LANES {
                    let (low, high) = (low.to_bits(), high.to_bits());
                    // Chosen by its bits: a select of eight numbers at once.
                    let level = f32::from_bits(low ^ ((low ^ high) & (words[lane] >> k & 1).wrapping_neg()));
                    out[lane] = level * deviations[lane] + means[lane];
                }
            }
        }
    }
}

/// The 32 bits from bit `at` on, as far as there are any.
#[inline(always)]
fn window(data: &[u8], at: usize) -> u32 {
    let (from, shift) = (at / 8, at % 8);
    let bytes = data.get(from..).unwrap_or_default();
    let word = match bytes.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    (word >> shift) as u32
}

/// Whether a matrix can be multiplied in integers: one bit, and statistics that hold for whole blocks.
pub(crate) fn is_even(codes: &Codes, cols: usize) -> bool {
    let whole = match codes.group() {
        Group::Tensor | Group::Row => true,
        Group::Block(n) => usize::from(n).is_multiple_of(BLOCK),
    };
    codes.bits() == 1 && cols.is_multiple_of(BLOCK) && whole
}

/// A few panels as the integer kernels read them: memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct Even {
    /// As [`crate::pack::Form::Q4`] stores them.
    words: Vec<u32>,
    cut: Vec<u32>,
    /// `[panel][block][lane]`: what the integers are multiplied by.
    halves: Vec<f32>,
    units: Vec<[f32; LANES]>,
    /// `[panel][block][lane]`: what the sums of activations are.
    middles: Vec<f32>,
    /// Sums of activations, `[row][block]`.
    sums: Vec<f32>,
}

impl Even {
    /// Adds `x Wᵀ` for the outputs of a matrix that [`is_even`] to `out`, a few panels at a time.
    pub(crate) fn multiply(
        &mut self,
        isa: Isa,
        codes: &Codes,
        (rows, cols): (usize, usize),
        x: kernels::Codes<'_>,
        out: &mut Target<'_>,
    ) {
        self.sum(isa, x);
        let (each, blocks) = (LANES * isa.abreast(), cols / BLOCK);
        for first in (0..rows).step_by(each) {
            self.fill(codes, first..rows.min(first + each), cols);
            self.words.chunks_exact_mut(blocks * Q4_WORDS * LANES).for_each(|panel| isa.arrange(panel));
            let target = &mut out.columns(first);
            self.units.clear();
            self.units.extend(self.halves.chunks_exact_mut(blocks * LANES).map(|halves| isa.fit(halves)));
            let words = decode::bytes(isa, &self.words, blocks, &mut self.cut);
            let panels = Panels { bits: Bits::Four, words, scales: &self.halves, units: &self.units, ahead: &[] };
            isa.gemm_codes(x, panels, None, target);
            let sums = Rows { values: &self.sums, stride: x.blocks, count: x.count, width: blocks };
            isa.gemm_onto(sums, &self.middles, target);
        }
    }

    #[allow(clippy::modulo_one, reason = "a group has one row in some builds")]
    fn sum(&mut self, isa: Isa, x: kernels::Codes<'_>) {
        self.sums.clear();
        for row in 0..x.count {
            let at = row / SIDE * SIDE * x.blocks + row % SIDE;
            let places = (0..x.blocks).map(|block| at + block * SIDE);
            self.sums.extend(places.map(|at| x.scales[at] * isa.sum(x.corrections[at]) as f32));
        }
    }

    fn fill(&mut self, codes: &Codes, rows: Range<usize>, cols: usize) {
        let (blocks, levels) = (cols / BLOCK, codes.levels());
        // The integer that is the middle, in every place: it stays in lanes without an output.
        let panels = rows.len().div_ceil(LANES);
        self.words.clear();
        self.words.resize(panels * blocks * Q4_WORDS * LANES, 0x8888_8888);
        for list in [&mut self.halves, &mut self.middles] {
            list.clear();
            list.resize(panels * blocks * LANES, 0.0);
        }
        let (span, half) = (codes.group().span(cols), (levels[1] - levels[0]) / 2.0);
        for (index, row) in rows.enumerate() {
            let (panel, lane) = (index / LANES, index % LANES);
            for block in 0..blocks {
                let [mean, deviation] = codes.stats()[codes.group().first(row, cols) + block * BLOCK / span];
                let at = panel * blocks + block;
                self.halves[at * LANES + lane] = half * deviation;
                self.middles[at * LANES + lane] = f32::midpoint(levels[0], levels[1]) * deviation + mean;
                let bits = window(codes.data(), row * cols + block * BLOCK);
                let words = self.words[at * Q4_WORDS * LANES + lane..].iter_mut().step_by(LANES).take(Q4_WORDS);
                words.enumerate().for_each(|(w, word)| *word = sevens_and_nines(bits >> (8 * w) & 255));
            }
        }
    }
}

/// Eight bits as a word of 4-bit codes, 7 for 0 and 9 for 1: the first four in the low halves of bytes, the others in the
/// high halves.
fn sevens_and_nines(bits: u32) -> u32 {
    let spread = |four: u32| four.wrapping_mul(0x0020_4081) & 0x0101_0101;
    0x7777_7777 + 2 * (spread(bits & 15) | spread(bits >> 4) << 4)
}

#[cfg(all(test, not(target_arch = "wasm32")))]
#[allow(clippy::unwrap_used, clippy::modulo_one, reason = "tests; a group has one row in some builds")]
mod tests {
    use super::*;
    use crate::quantize::Quantized;
    use polygraft::quant::codes::Book;
    use polygraft::tensor::{Matrix, Storage};
    use polygraft::testing::Random;

    const GROUPS: [Group; 5] = [Group::Tensor, Group::Row, Group::Block(32), Group::Block(64), Group::Block(6)];

    fn matrix(rows: usize, cols: usize, bits: u8, group: Group, random: &mut Random) -> (Codes, Vec<f32>) {
        let values: Vec<f32> = random.vec(rows * cols, 0.3).iter().map(|x| x + 0.1).collect();
        let codes = Codes::encode((rows, cols), &values, bits, group, Book::Median).unwrap();
        let values = Matrix::new(rows, cols, Storage::Code(codes.clone())).unwrap().to_f32();
        (codes, values)
    }

    #[test]
    fn decoded_to_the_bit() {
        let mut random = Random(3);
        for bits in [1, 2, 4, 8] {
            for group in GROUPS {
                for (rows, cols) in [(1, 1), (3, 8), (8, 3), (17, 96), (16, 129), (31, 17)] {
                    let (codes, values) = matrix(rows, cols, bits, group, &mut random);
                    for isa in Isa::every() {
                        let all = rows.div_ceil(LANES);
                        for range in [0..all, all / 2..all] {
                            let mut out = vec![f32::NAN; range.len() * cols * LANES];
                            panels(isa, &codes, (rows, cols), range.clone(), &mut out);
                            for (at, got) in out.iter().enumerate() {
                                let (panel, k, lane) = (at / (cols * LANES), at / LANES % cols, at % LANES);
                                let row = (range.start + panel) * LANES + lane;
                                let want = if row < rows { values[row * cols + k] } else { 0.0 };
                                assert!(*got == want, "{bits} bits {group:?} {rows}×{cols} at {row},{k}: {got} {want}");
                            }
                        }
                    }
                }
            }
        }
    }

    /// The integers give what the decoded matrix gives on the rounded activations.
    fn compare(x: &[f32], cols: usize, codes: &Codes, values: &[f32]) {
        let (rows, count) = (values.len() / cols, x.len() / cols);
        for isa in Isa::every() {
            let mut quantized = Quantized::default();
            let x = Rows { values: x, stride: cols, count, width: cols };
            let x = quantized.of(isa, (0, 0..count), x);
            let stride = rows.next_multiple_of(LANES);
            let mut out = vec![0.25; count * stride];
            Even::default().multiply(isa, codes, (rows, cols), x, &mut Target { values: &mut out, stride });
            for (r, out) in out.chunks_exact(stride).enumerate() {
                let block = |k: usize| (r / SIDE * x.blocks + k / BLOCK) * SIDE + r % SIDE;
                let known = |k: usize| f64::from(x.codes[r * cols + k]) * f64::from(x.scales[block(k)]);
                for (o, out) in out.iter().enumerate() {
                    let weight = |k: usize| if o < rows { f64::from(values[o * cols + k]) } else { 0.0 };
                    let want: f64 = 0.25 + (0..cols).map(|k| known(k) * weight(k)).sum::<f64>();
                    let size: f64 = 1.0 + (0..cols).map(|k| (known(k) * weight(k)).abs()).sum::<f64>();
                    let off = (f64::from(*out) - want).abs() / size;
                    assert!(
                        off <= 1e-6,
                        "{} bits {:?} output {o} of row {r}: {out} {want}",
                        codes.bits(),
                        codes.group()
                    );
                }
            }
        }
    }

    #[test]
    fn integers_agree_with_numbers() {
        let mut random = Random(4);
        for group in GROUPS {
            for (count, cols, rows) in [(1, 32, 1), (3, 64, 3), (17, 384, 8), (5, 96, 16), (513, 32, 17)] {
                let (codes, values) = matrix(rows, cols, 1, group, &mut random);
                if is_even(&codes, cols) {
                    compare(&random.vec(count * cols, 2.0), cols, &codes, &values);
                } else {
                    assert!(group == Group::Block(6), "{group:?} is of whole blocks");
                }
            }
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        for byte in [0x00, 0xff, 0x55] {
            let stats = vec![[3.0, 100.0]; 8];
            let levels = polygraft::quant::codes::levels(1, Book::Median);
            let codes = Codes::new((8, 64), 1, Group::Row, vec![byte; 64], stats, levels).unwrap();
            let values = Matrix::new(8, 64, Storage::Code(codes.clone())).unwrap().to_f32();
            for x in [127.0, -127.0] {
                compare(&[x; 128], 64, &codes, &values);
            }
        }
    }
}
