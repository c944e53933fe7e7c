//! Sums, pointwise functions, and offsets of the pooled vector.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::params;
use crate::steps::linear::number;
use crate::store::Own;
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::program::{BufferId, Step, StepKind};

/// Workgroups along a row of the grid: enough for any batch within the limit of one direction.
const ROW: u32 = 1024;

pub(crate) fn add(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Add { a, b, out } = step.kind else { return Ok(()) };
    let bind = |id| if id == out { (Bind::Arena, 4) } else { (Bind::Activation(id), 0) };
    let ((left, own), (right, same)) = (bind(a), bind(b));
    let terms = match (own, same) {
        (0, 0) => 3,
        (4, 0) => 4 | 2,
        (0, _) => 4 | 1,
        // `x + x`: no planner asks for it.
        _ => return Err(polygraft::Error::Program("a buffer added to itself".into())),
    };
    pointwise(e, step, out, [left, right], terms, 0)
}

pub(crate) fn activate(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Activate { x, function } = step.kind else { return Ok(()) };
    pointwise(e, step, x, [Bind::Arena; 2], 4, number(function))
}

fn pointwise<'a>(
    e: &mut Encoder<'a>,
    step: &Step,
    out: BufferId,
    [a, b]: [Bind<'a>; 2],
    terms: u32,
    activation: u32,
) -> Result<()> {
    let stride = e.stride(out);
    for range in e.tables.ranges(step.scope, e.extent(out)) {
        let count = range.len() as u32 * stride;
        let width = count.min(ROW * 64);
        let block = params::Pointwise { first: range.start as u32 * stride, count, width, terms, activation };
        let binds = vec![a, b, Bind::Activation(out)];
        let grid = [width.div_ceil(64), count.div_ceil(width.max(1)), 1];
        e.launch(Covers::Pointwise, Shape::default(), None, &block, binds, |_| grid)?;
    }
    Ok(())
}

pub(crate) fn offset(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Offset { x, table } = step.kind else { return Ok(()) };
    let mut items = Vec::new();
    for segment in e.segments(table) {
        let (_, Own::Offset(vector)) = e.op(segment)? else { return Err(wrong_payload()) };
        let (start, end) = (segment.range.start as u32, segment.range.end as u32);
        items.push([start, end, vector.start, segment.scale.to_bits()]);
    }
    let (count, width) = (items.len() as u32, e.stride(x));
    let block = params::Offset { stride: width, width, items: e.table(items) };
    let binds = vec![Bind::Arena, Bind::Tables, Bind::Activation(x)];
    e.launch(Covers::Offset, Shape::default(), None, &block, binds, |v| [count, width.div_ceil(v.tile.1), 1])
}
