//! Panels back to the matrix that they were packed from, code for code: for a device that takes the weights over.

use crate::pack::{Form, LANES, Packed, Q8_WORDS};
use polygraft::quant::BLOCK;
use polygraft::tensor::{Matrix, Storage};

impl Packed {
    /// The matrix. `None` only for panels that no matrix could have been.
    pub(crate) fn unpack(&self) -> Option<Matrix> {
        let blocks = self.blocks();
        let storage = match &self.form {
            Form::F32(v) => Storage::F32(separate(v, self.rows, self.cols)),
            Form::F16(v) => Storage::F16(separate(v, self.rows, self.cols)),
            Form::Bf16(v) => Storage::Bf16(separate(v, self.rows, self.cols)),
            Form::Q8 { codes, scales } => {
                let words = separate(codes, self.rows, blocks * Q8_WORDS);
                let codes = words.iter().flat_map(|w| w.to_le_bytes().map(u8::cast_signed)).collect();
                Storage::Q8_0 { codes, scales: separate(&scales.stored, self.rows, blocks) }
            }
            Form::Q4 { codes, scales } => {
                let byte = |row: usize, at: usize| {
                    let k = at / (BLOCK / 2) * BLOCK + at % (BLOCK / 2);
                    self.code(codes, row, k) | self.code(codes, row, k + BLOCK / 2) << 4
                };
                let bytes = |row| (0..self.cols / 2).map(move |at| byte(row, at));
                let codes = (0..self.rows).flat_map(bytes).collect();
                Storage::Q4_0 { codes, scales: separate(&scales.stored, self.rows, blocks) }
            }
            Form::Code(codes) => Storage::Code(codes.clone()),
        };
        Matrix::new(self.rows, self.cols, storage)
    }
}

/// Rows out of `[panel][column][lane]`.
fn separate<T: Copy>(panels: &[T], rows: usize, cols: usize) -> Vec<T> {
    let place = |row: usize, column: usize| (row / LANES * cols + column) * LANES + row % LANES;
    (0..rows).flat_map(|row| (0..cols).map(move |column| panels[place(row, column)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;
    use polygraft::tensor::Scheme;
    use polygraft::testing::{Random, store};

    #[test]
    fn every_form_comes_back_code_for_code() {
        for scheme in [Scheme::F32, Scheme::F16, Scheme::Bf16, Scheme::Q8_0, Scheme::Q4_0, Scheme::Code(1)] {
            for (rows, cols) in [(1, 32), (8, 64), (13, 96)] {
                let matrix = store(rows, cols, Random(3).vec(rows * cols, 2.0), scheme);
                assert_eq!(Packed::new(Isa::detect(), &matrix).unpack().unwrap(), matrix, "{scheme:?} {rows}x{cols}");
            }
        }
    }
}
