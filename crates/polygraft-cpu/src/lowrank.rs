//! Low-rank updates, unmerged: for each run of rows with the same payload, two thin products.

use crate::codes::{Even, is_even};
use crate::decode;
use crate::kernels::{self, Isa, Rows, Target};
use crate::linear::overlap;
use crate::pack::{Form, LANES, Packed};
use crate::run::{Frame, cut, wrong_payload};
use crate::slices::{Ended, Slices};
use crate::store::Own;
use polygraft::Result;
use polygraft::ir::{LowRank, Op};
use polygraft::program::{Step, StepKind};
use std::ops::Range;

/// Rows of a task, where a step of this kind stands alone.
const CHUNK: usize = 64;

/// A run of rows under one payload.
pub(crate) struct Update<'a> {
    rows: Range<usize>,
    lora: &'a LowRank,
    a: &'a Packed,
    b: &'a Packed,
    scale: f32,
    /// Whether its first factor can multiply rounded activations.
    pub(crate) even: bool,
}

/// The runs of rows that the low-rank steps at `steps` update, in order.
pub(crate) fn updates<'a>(frame: &Frame<'a>, steps: Range<usize>) -> Result<Vec<Update<'a>>> {
    let mut out = Vec::new();
    for step in &frame.program().steps[steps] {
        let StepKind::LowRank { table, .. } = step.kind else { continue };
        for segment in frame.segments(table) {
            let (Op::LowRank(lora), Own::LowRank { a, b }) = frame.op(segment)? else { return Err(wrong_payload()) };
            let even = matches!(&a.form, Form::Code(codes) if is_even(codes, a.cols));
            out.push(Update { rows: segment.range.clone(), lora, a, b, scale: lora.scale * segment.scale, even });
        }
    }
    Ok(out)
}

impl Update<'_> {
    /// Its rows among `rows`.
    pub(crate) fn within(&self, rows: &Range<usize>) -> Option<Range<usize>> {
        overlap(&self.rows, rows)
    }

    /// Numbers that the hidden values of `rows` rows take.
    pub(crate) fn hidden(&self, rows: usize) -> usize {
        rows * self.a.panels() * LANES
    }

    /// Appends `scale · x Aᵀ` to `hidden`.
    pub(crate) fn shrink(
        &self,
        isa: Isa,
        x: Rows<'_>,
        hidden: &mut Vec<f32>,
        decoded: &mut Vec<f32>,
        bias: &mut Vec<f32>,
    ) {
        let (start, stride) = (hidden.len(), self.a.panels() * LANES);
        hidden.resize(start + self.hidden(x.count), 0.0);
        bias.clear();
        bias.resize(stride, 0.0);
        let weights = decode::panels(isa, self.a, 0..self.a.panels(), decoded);
        let values = &mut hidden[start..];
        isa.gemm(x, weights, bias, &mut Target { values, stride });
        isa.vectorize(|| values.iter_mut().for_each(|h| *h *= self.scale));
    }

    /// The same of rounded rows, in integers; the first `lead` rows of `x` are not this update's.
    pub(crate) fn shrink_even(
        &self,
        isa: Isa,
        (x, lead): (kernels::Codes<'_>, usize),
        hidden: &mut Vec<f32>,
        even: &mut Even,
        tile: &mut Vec<f32>,
    ) {
        let Form::Code(codes) = &self.a.form else { return };
        let stride = self.a.panels() * LANES;
        tile.clear();
        tile.resize(x.count * stride, 0.0);
        even.multiply(isa, codes, (self.a.rows, self.a.cols), x, &mut Target { values: tile, stride });
        hidden.extend(tile[lead * stride..].iter().map(|h| h * self.scale));
    }

    /// Adds `h Bᵀ + scale · bias` for the columns of `panels`, which stand from the target's first on. Columns past
    /// the last are there and hold nothing of worth.
    pub(crate) fn expand(
        &self,
        isa: Isa,
        rows: usize,
        hidden: &[f32],
        panels: &Range<usize>,
        decoded: &mut Vec<f32>,
        target: &mut Target<'_>,
    ) {
        let h = Rows { values: hidden, stride: self.a.panels() * LANES, count: rows, width: self.a.rows };
        let weights = decode::panels(isa, self.b, panels.clone(), decoded);
        isa.gemm_onto(h, weights, target);
        if let Some(bias) = &self.lora.bias {
            let bias = &bias[panels.start * LANES..self.b.rows.min(panels.end * LANES)];
            for row in 0..rows {
                let y = &mut target.values[row * target.stride..][..bias.len()];
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += self.scale * b);
            }
        }
    }
}

/// The step by itself, where it does not follow its linear layer.
pub(crate) fn low_rank(
    frame: &mut Frame<'_>,
    index: usize,
    step: &Step,
    y: &mut [f32],
    slices: &mut Slices<'_>,
) -> Result<Ended> {
    let StepKind::LowRank { x, out, .. } = step.kind else { return Ok(Ended::Yes) };
    let (k, n, isa) = (frame.width(x), frame.width(out), frame.isa);
    let updates = updates(frame, index..index + 1)?;
    let input = &frame.buffers[x.0 as usize];
    let scratch = &mut *frame.scratch;
    slices.each(updates.iter().flat_map(|u| cut(u.rows.clone(), CHUNK).map(move |rows| (u, rows))), |(update, rows)| {
        let x = Rows { values: &input[rows.start * k..rows.end * k], stride: k, count: rows.len(), width: k };
        scratch.hidden.clear();
        update.shrink(isa, x, &mut scratch.hidden, &mut scratch.panels, &mut scratch.bias);
        let stride = update.b.panels() * LANES;
        scratch.tile.clear();
        scratch.tile.resize(rows.len() * stride, 0.0);
        let target = &mut Target { values: &mut scratch.tile, stride };
        update.expand(isa, rows.len(), &scratch.hidden, &(0..update.b.panels()), &mut scratch.panels, target);
        for (y, tile) in y[rows.start * n..rows.end * n].chunks_exact_mut(n).zip(scratch.tile.chunks_exact(stride)) {
            y.iter_mut().zip(tile).for_each(|(y, t)| *y += t);
        }
        Ok(())
    })
}
