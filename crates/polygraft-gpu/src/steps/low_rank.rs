//! Low-rank updates: two launches a step, whichever adapters its rows take.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::params::{self, NONE};
use crate::store::Own;
use crate::tape;
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::program::{Step, StepKind};

/// Rows of an item of `shrink`: the rows of its tile.
const ROWS: usize = 8;

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::LowRank { x, out, table } = step.kind else { return Ok(()) };
    let (mut down, mut up) = (Vec::new(), Vec::new());
    let mut widest = 0;
    for segment in e.segments(table) {
        let (_, Own::LowRank { a, b, bias, scale }) = e.op(segment)? else { return Err(wrong_payload()) };
        widest = widest.max(a.outputs);
        let [at, form, book] = a.words();
        for start in segment.range.clone().step_by(ROWS) {
            let count = ROWS.min(segment.range.end - start) as u32;
            down.push([start as u32, count, a.outputs, at]);
            down.push([form, book, 0, 0]);
        }
        let [at, form, book] = b.words();
        let (bias, scale) = (bias.map_or(NONE, |b| b.start), (scale * segment.scale).to_bits());
        tape::items(&mut up, segment.range.clone(), [at, form, book, bias, b.inputs, b.outputs, scale]);
    }
    let counts = [down.len() as u32 / 2, up.len() as u32 / 2];
    e.hidden = e.hidden.max(widest as usize);
    let (groups, columns) = (e.width(x).div_ceil(4) as u32, e.stride(out));
    let shrink = params::Shrink { x_stride: e.stride(x), h_stride: widest, groups, items: e.table(down) };
    let binds = vec![Bind::Activation(x), Bind::Arena, Bind::Tables, Bind::Hidden];
    e.launch(Covers::Shrink, Shape::default(), None, &shrink, binds, |_| [counts[0], 1, 1])?;
    let project = params::Project {
        x_stride: widest,
        y_stride: columns,
        r_stride: 0,
        g_stride: 0,
        items: e.table(up),
        add: 2,
        gate: NONE,
        activation: 0,
    };
    let binds = vec![Bind::Hidden, Bind::Arena, Bind::Tables, Bind::Arena, Bind::Arena, Bind::Activation(out)];
    e.launch(Covers::Project, Shape::default(), None, &project, binds, |v| [counts[1], columns.div_ceil(v.tile.1), 1])
}
