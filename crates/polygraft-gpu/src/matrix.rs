//! Adapters' matrices as `weights.wgsl` reads them from the arena: numbers, or codes with their book.

use crate::arena::Span;
use polygraft::Result;
use polygraft::quant::codes::{Codes, Group};
use polygraft::tensor::{Matrix, Storage};

/// A matrix in the arena.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    at: Span,
    /// Bits and padding: see `weights.wgsl`.
    form: u32,
    book: Option<Span>,
    /// Inputs and outputs, in fours.
    pub(crate) inputs: u32,
    pub(crate) outputs: u32,
}

impl Placed {
    /// Where it begins, what its numbers are, and where their book is.
    pub(crate) fn words(&self) -> [u32; 3] {
        [self.at.start, self.form, self.book.map_or(0, |b| b.start)]
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + use<> {
        [Some(self.at), self.book].into_iter().flatten()
    }

    /// Puts `matrix` into the arena: in codes where it has them.
    pub(crate) fn put(put: &mut dyn FnMut(&[u32]) -> Result<Span>, matrix: &Matrix) -> Result<Self> {
        if let Storage::Code(codes) = matrix.storage()
            && let Some((form, book)) = book(codes, matrix.rows(), matrix.cols())
        {
            let (inputs, outputs) = (matrix.cols().div_ceil(4) as u32, matrix.rows().div_ceil(4) as u32);
            let (at, book) = (put(&packed(codes, matrix.rows(), matrix.cols()))?, Some(put(&book)?));
            return Ok(Self { at, form, book, inputs, outputs });
        }
        let mut values = vec![0.0; matrix.cols()];
        let mut row = usize::MAX;
        Self::of(put, matrix.rows(), matrix.cols(), |output, input| {
            if row != output {
                matrix.decode_row(output, &mut values);
                row = output;
            }
            values[input]
        })
    }

    /// Puts `outputs × inputs` numbers into the arena, each `at` its output and input, asked for output by output.
    pub(crate) fn of(
        put: &mut dyn FnMut(&[u32]) -> Result<Span>,
        outputs: usize,
        inputs: usize,
        mut at: impl FnMut(usize, usize) -> f32,
    ) -> Result<Self> {
        let groups = inputs.div_ceil(4);
        let mut words = vec![0; outputs.div_ceil(4) * groups * 16];
        for output in 0..outputs {
            for input in 0..inputs {
                words[((output / 4 * groups + input / 4) * 4 + output % 4) * 4 + input % 4] =
                    at(output, input).to_bits();
            }
        }
        let at = put(&words)?;
        Ok(Self { at, form: 0, book: None, inputs: groups as u32, outputs: outputs.div_ceil(4) as u32 })
    }
}

/// The form of codes, and their book; `None` for groups of inputs that are no whole fours, which have none.
fn book(codes: &Codes, rows: usize, cols: usize) -> Option<(u32, Vec<u32>)> {
    let span = match codes.group() {
        Group::Tensor => 0,
        Group::Row => cols.div_ceil(4),
        Group::Block(n) => Some(usize::from(n) / 4).filter(|_| n.is_multiple_of(4))?,
    };
    let missing = |n: usize| (n.next_multiple_of(4) - n) as u32;
    let form = u32::from(codes.bits()) + 16 * missing(cols) + 64 * missing(rows) + 256 * span as u32;
    let levels = codes.levels();
    // Levels of 1 and 8 bits are evenly spaced.
    let ends = [levels[0], levels[levels.len() - 1]];
    let levels = if matches!(codes.bits(), 1 | 8) { &ends } else { levels };
    Some((form, levels.iter().chain(codes.stats().as_flattened()).map(|x| x.to_bits()).collect()))
}

/// Codes in words, outputs padded to fours of inputs.
fn packed(codes: &Codes, rows: usize, cols: usize) -> Vec<u32> {
    let bits = usize::from(codes.bits());
    let row = cols.next_multiple_of(4) * bits;
    let mut out = vec![0u32; (rows * row).div_ceil(32)];
    if cols.is_multiple_of(4) {
        for (word, bytes) in out.iter_mut().zip(codes.data().chunks(4)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        return out;
    }
    let mask = (1u32 << bits) - 1;
    for output in 0..rows {
        for input in 0..cols {
            let (from, to) = ((output * cols + input) * bits, output * row + input * bits);
            let code = u32::from(codes.data()[from / 8]) >> (from % 8) & mask;
            out[to / 32] |= code << (to % 32);
        }
    }
    out
}
