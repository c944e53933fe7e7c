//! Weights in panels of eight outputs: the one layout that every kernel reads.
//!
//! A panel holds [`LANES`] outputs side by side, so that one vector is eight outputs at one place along the inputs.
//! Quantized panels keep one 32-bit word an output: four codes of 8 bits, or eight of 4 bits where bytes (AVX2: four
//! inputs a word) and half words (WebAssembly: two inputs a word) can both be cut out with a shift and a mask:
//! in word `g` of a block, the low nibbles are inputs `8g..8g+4` and the high nibbles inputs `8g+4..8g+8`, in byte order.
//! One kernel wants another order ([`Isa::arrange`]).

use crate::kernels::Isa;
use crate::math::{bf16_to_f32, f16_to_f32};
use polygraft::quant::BLOCK;
use polygraft::quant::codes::Codes;
use polygraft::tensor::{Matrix, Storage};
use std::ops::Range;

/// Outputs in a panel.
pub(crate) const LANES: usize = 8;

/// Words an output takes in a block of 4-bit codes.
pub(crate) const Q4_WORDS: usize = BLOCK / 8;

/// Words an output takes in a block of 8-bit codes.
pub(crate) const Q8_WORDS: usize = BLOCK / 4;

/// A matrix in panels. Outputs past the last are zero.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Outputs.
    pub(crate) rows: usize,
    /// Inputs.
    pub(crate) cols: usize,
    pub(crate) form: Form,
    /// For whose kernels it was packed.
    pub(crate) isa: Isa,
}

/// The numbers, panel by panel.
#[derive(Debug)]
pub(crate) enum Form {
    /// `[panel][input][lane]`.
    F32(Vec<f32>),
    /// `[panel][input][lane]`, half precision bits.
    F16(Vec<u16>),
    /// `[panel][input][lane]`, bfloat16 bits.
    Bf16(Vec<u16>),
    /// Codes `[panel][block][word][lane]`.
    Q8 { codes: Vec<u32>, scales: Scales },
    /// Codes `[panel][block]` and then as [`Isa::arrange`] leaves them, in the end.
    Q4 { codes: Vec<u32>, scales: Scales },
    /// Row after row, as the adapter has them: decoded for a call and forgotten.
    Code(Codes),
}

/// The scales of blocks, as they are stored and as the kernels read them: made for each call, the latter took a
/// twentieth of the time of a row of 32 tokens.
#[derive(Debug)]
pub(crate) struct Scales {
    /// `[panel][block][lane]`, half precision bits.
    pub(crate) stored: Vec<u16>,
    /// `[panel][block][lane]`; of 4-bit codes as [`Isa::fit`] leaves them.
    ready: Vec<f32>,
    /// What [`Isa::fit`] gives, a panel each; 1 for 8-bit codes.
    units: Vec<[f32; LANES]>,
}

impl Scales {
    /// Of panels with `blocks` blocks; `fit` makes a panel's ready.
    fn new(isa: Isa, stored: Vec<u16>, blocks: usize, fit: impl Fn(&mut [f32]) -> [f32; LANES]) -> Self {
        let mut ready = vec![0.0; stored.len()];
        isa.widen(&stored, &mut ready);
        let units = ready.chunks_exact_mut((blocks * LANES).max(1)).map(fit).collect();
        Self { stored, ready, units }
    }

    /// Those of panels with `blocks` blocks, and their units.
    pub(crate) fn of(&self, panels: Range<usize>, blocks: usize) -> (&[f32], &[[f32; LANES]]) {
        (&self.ready[panels.start * blocks * LANES..panels.end * blocks * LANES], &self.units[panels])
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.stored) + size_of_val(&*self.ready) + size_of_val(&*self.units)
    }
}

/// Shift of input `k` of a block inside its 4-bit word.
pub(crate) fn q4_shift(k: usize) -> usize {
    8 * (k % 4) + 4 * (k / 4 % 2)
}

impl Packed {
    /// Packs `matrix` for the kernels of `isa`.
    pub(crate) fn new(isa: Isa, matrix: &Matrix) -> Self {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let panels = rows.div_ceil(LANES);
        let blocks = cols / BLOCK;
        let form = match matrix.storage() {
            Storage::F32(v) => Form::F32(interleave(v, rows, cols)),
            Storage::F16(v) => Form::F16(interleave(v, rows, cols)),
            Storage::Bf16(v) => Form::Bf16(interleave(v, rows, cols)),
            Storage::Q8_0 { codes, scales } => {
                let mut words = vec![0u32; panels * blocks * Q8_WORDS * LANES];
                for (row, codes) in codes.chunks_exact(cols.max(1)).enumerate() {
                    let (panel, lane) = (row / LANES, row % LANES);
                    for (word, four) in codes.chunks_exact(4).enumerate() {
                        words[(panel * blocks * Q8_WORDS + word) * LANES + lane] =
                            u32::from_le_bytes([four[0], four[1], four[2], four[3]].map(i8::cast_unsigned));
                    }
                }
                let scales = interleave(scales, rows, blocks);
                Form::Q8 { codes: words, scales: Scales::new(isa, scales, blocks, |_| [1.0; LANES]) }
            }
            Storage::Q4_0 { codes, scales } => {
                let mut words = vec![0u32; panels * blocks * Q4_WORDS * LANES];
                for (row, codes) in codes.chunks_exact((cols / 2).max(1)).enumerate() {
                    let (panel, lane) = (row / LANES, row % LANES);
                    for (block, codes) in codes.as_chunks().0.iter().enumerate() {
                        let at = (panel * blocks + block) * Q4_WORDS * LANES + lane;
                        for (g, word) in q4_words(codes).into_iter().enumerate() {
                            words[at + g * LANES] = word;
                        }
                    }
                }
                words.chunks_exact_mut((blocks * Q4_WORDS * LANES).max(1)).for_each(|panel| isa.arrange(panel));
                let scales = interleave(scales, rows, blocks);
                Form::Q4 { codes: words, scales: Scales::new(isa, scales, blocks, |scales| isa.fit(scales)) }
            }
            Storage::Code(codes) => Form::Code(codes.clone()),
        };
        Self { rows, cols, form, isa }
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Blocks along the inputs, for quantized forms.
    pub(crate) fn blocks(&self) -> usize {
        self.cols / BLOCK
    }

    /// Whether the weights are integer codes with block scales.
    pub(crate) fn is_quantized(&self) -> bool {
        matches!(self.form, Form::Q8 { .. } | Form::Q4 { .. })
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        match &self.form {
            Form::F32(v) => v.len() * 4,
            Form::F16(v) | Form::Bf16(v) => v.len() * 2,
            Form::Q8 { codes, scales } | Form::Q4 { codes, scales } => codes.len() * 4 + scales.bytes(),
            // The adapter's own, shared.
            Form::Code(_) => 0,
        }
    }

    /// The 4-bit code of output `row` and input `k`, out of `codes` of [`Form::Q4`].
    pub(crate) fn code(&self, codes: &[u32], row: usize, k: usize) -> u8 {
        let block = row / LANES * self.blocks() + k / BLOCK;
        let (word, shift) = self.isa.place(k / BLOCK, row % LANES, k % BLOCK);
        (codes[block * Q4_WORDS * LANES + word] >> shift) as u8 & 15
    }

    /// Decodes output `row` into `out`, `cols` long: the same numbers as the matrix it was packed from.
    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        if let Form::Code(codes) = &self.form {
            return codes.decode_row(row, out);
        }
        let (panel, lane) = (row / LANES, row % LANES);
        let at = |k: usize| (panel * self.cols + k) * LANES + lane;
        let scale =
            |scales: &Scales, k: usize| f16_to_f32(scales.stored[(panel * self.blocks() + k / BLOCK) * LANES + lane]);
        for (k, o) in out.iter_mut().enumerate() {
            *o = match &self.form {
                Form::F32(v) => v[at(k)],
                Form::F16(v) => f16_to_f32(v[at(k)]),
                Form::Bf16(v) => bf16_to_f32(v[at(k)]),
                Form::Q8 { codes, scales } => {
                    let word = codes[(panel * self.blocks() * Q8_WORDS + k / 4) * LANES + lane];
                    let code = word.to_le_bytes()[k % 4].cast_signed();
                    f32::from(code) * scale(scales, k)
                }
                Form::Q4 { codes, scales } => (f32::from(self.code(codes, row, k)) - 8.0) * scale(scales, k),
                Form::Code(_) => *o,
            };
        }
    }
}

/// The words of a block: its bytes hold inputs `k` and `k + 16` in their low and high halves. Four bytes at a time, since
/// this is what a model's layers wait for when they are loaded.
fn q4_words(codes: &[u8; BLOCK / 2]) -> [u32; Q4_WORDS] {
    let four = |i: usize| u32::from_le_bytes([codes[i], codes[i + 1], codes[i + 2], codes[i + 3]]);
    let stored = [four(0), four(4), four(8), four(12)];
    let inputs = |eighth: usize| stored[eighth % 4] >> (eighth / 4 * 4) & 0x0f0f_0f0f;
    std::array::from_fn(|g| inputs(2 * g) | inputs(2 * g + 1) << 4)
}

/// `[row][col]` to `[panel][col][lane]`, zeros past the last row.
fn interleave<T: Copy + Default>(values: &[T], rows: usize, cols: usize) -> Vec<T> {
    let mut out = vec![T::default(); rows.div_ceil(LANES) * cols * LANES];
    for (row, values) in values.chunks_exact(cols.max(1)).enumerate() {
        let (panel, lane) = (row / LANES, row % LANES);
        for (col, &x) in values.iter().enumerate() {
            out[(panel * cols + col) * LANES + lane] = x;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use polygraft::tensor::Scheme;
    use polygraft::testing::{Random, store};

    #[test]
    fn packing_keeps_every_number() {
        let mut random = Random(1);
        for scheme in [Scheme::F32, Scheme::F16, Scheme::Bf16, Scheme::Q8_0, Scheme::Q4_0] {
            for (rows, cols) in [(1, 32), (8, 64), (19, 96)] {
                let matrix = store(rows, cols, random.vec(rows * cols, 2.0), scheme);
                let packed = Packed::new(Isa::detect(), &matrix);
                let (mut a, mut b) = (vec![0.0; cols], vec![0.0; cols]);
                for row in 0..rows {
                    matrix.decode_row(row, &mut a);
                    packed.decode_row(row, &mut b);
                    assert_eq!(a, b, "{scheme:?} {rows}x{cols} row {row}");
                }
            }
        }
    }
}
