//! Low-rank updates, unmerged: for each run of rows with the same payload, two thin products.

use crate::decode;
use crate::kernels::{Rows, Target};
use crate::linear::padded;
use crate::pack::LANES;
use crate::run::{Frame, Scratch, cut, wrong_payload};
use crate::slices::{Ended, Slices, TASK};
use crate::store::Own;
use polygraft::Result;
use polygraft::ir::Op;
use polygraft::program::{Step, StepKind};

/// Rows that pass over the factors together, at most.
const CHUNK: usize = 256;

pub(crate) fn low_rank(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::LowRank { x, out, table } = step.kind else { return Ok(Ended::Yes) };
    let (k, n) = (frame.width(x), frame.width(out));
    let mut runs = Vec::new();
    for segment in frame.segments(table) {
        let (Op::LowRank(lora), Own::LowRank { a, b }) = frame.op(segment)? else { return Err(wrong_payload()) };
        runs.push((segment.range.clone(), lora, a, b, lora.scale * segment.scale));
    }
    let tasks = runs.into_iter().flat_map(|(range, lora, a, b, scale)| {
        let rows = (TASK / (a.rows.max(1) * (k + n))).clamp(8, CHUNK);
        cut(range, rows).map(move |rows| (rows, lora, a, b, scale))
    });
    let isa = frame.isa;
    let input = &frame.buffers[x.0 as usize];
    let Scratch { panels, bias, tile, hidden, .. } = &mut *frame.scratch;
    slices.each(tasks, |(rows, lora, a, b, scale)| {
        let count = rows.len();
        let x = Rows { values: &input[rows.start * k..rows.end * k], stride: k, count, width: k };
        let stride = a.panels() * LANES;
        hidden.resize(count * stride, 0.0);
        padded(bias, None, &(0..a.panels()), a.rows);
        let weights = decode::panels(isa, a, 0..a.panels(), panels);
        isa.gemm(x, weights, bias, &mut Target { values: hidden, stride });
        let h = Rows { values: hidden, stride, count, width: a.rows };
        for pair in cut(0..b.panels(), 2) {
            padded(bias, lora.bias.as_deref(), &pair, n);
            let weights = decode::panels(isa, b, pair.clone(), panels);
            let width = bias.len();
            tile.resize(count * width, 0.0);
            isa.gemm(h, weights, bias, &mut Target { values: tile, stride: width });
            let columns = pair.start * LANES..n.min(pair.end * LANES);
            isa.vectorize(|| {
                for (row, tile) in rows.clone().zip(tile.chunks_exact(width)) {
                    let y = &mut y[row * n..(row + 1) * n][columns.clone()];
                    y.iter_mut().zip(tile).for_each(|(y, t)| *y += scale * t);
                }
            });
        }
        Ok(())
    })
}
