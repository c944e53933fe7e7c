//! Low-rank updates: two launches a step, whichever adapters its rows take.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::params::{self, NONE};
use crate::store::Own;
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::program::{Step, StepKind};

/// Rows of an item, the work of one workgroup: the tile of both kernels.
const ROWS: usize = 8;

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::LowRank { x, out, table } = step.kind else { return Ok(()) };
    let mut rows = Vec::new();
    let mut widest = 0;
    for segment in e.segments(table) {
        let (_, Own::LowRank { a, b, bias, quads, scale }) = e.op(segment)? else { return Err(wrong_payload()) };
        widest = widest.max(*quads);
        for start in segment.range.clone().step_by(ROWS) {
            let count = ROWS.min(segment.range.end - start) as u32;
            rows.push([start as u32, count, *quads, a.start]);
            rows.push([b.start, bias.map_or(NONE, |b| b.start), (scale * segment.scale).to_bits(), 0]);
        }
    }
    let items = (rows.len() / 2) as u32;
    let at = e.table(rows);
    e.hidden = e.hidden.max(widest as usize);
    let (groups, columns) = (e.width(x).div_ceil(4) as u32, e.stride(out));
    let shrink = params::Shrink { x_stride: e.stride(x), h_stride: widest, groups, items: at };
    let binds = vec![Bind::Activation(x), Bind::Arena, Bind::Tables, Bind::Hidden];
    e.launch(Covers::Shrink, Shape::default(), None, &shrink, binds, |_| [items, 1, 1])?;
    let expand = params::Expand { y_stride: columns, h_stride: widest, columns, items: at };
    let binds = vec![Bind::Hidden, Bind::Arena, Bind::Tables, Bind::Activation(out)];
    e.launch(Covers::Expand, Shape::default(), None, &expand, binds, |v| [items, columns.div_ceil(v.tile.1), 1])
}
