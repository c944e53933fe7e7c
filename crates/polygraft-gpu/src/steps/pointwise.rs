//! Sums, pointwise functions, and offsets of the pooled vector.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::params;
use crate::steps::linear::number;
use crate::store::Own;
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::program::{Step, StepKind};
use std::ops::Range;

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
    let ranges = e.tables.ranges(step.scope, e.extent(out));
    launch(e, ranges, [left, right, Bind::Activation(out)], e.stride(out), Sum { terms, ..Sum::default() })
}

pub(crate) fn activate(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Activate { x, function } = step.kind else { return Ok(()) };
    let ranges = e.tables.ranges(step.scope, e.extent(x));
    let sum = Sum { terms: 4, activation: number(function), ..Sum::default() };
    launch(e, ranges, [Bind::Arena, Bind::Arena, Bind::Activation(x)], e.stride(x), sum)
}

/// `y = f(left · a + b + y)`, of those terms that are asked for: 1 for `a`, 2 for `b`, 4 for `y`.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    pub(crate) terms: u32,
    pub(crate) activation: u32,
    pub(crate) left: f32,
}

impl Default for Sum {
    fn default() -> Self {
        Self { terms: 0, activation: 0, left: 1.0 }
    }
}

/// Sums `[a, b, y]` into `y` for some rows, all of `stride` vec4.
pub(crate) fn launch<'a>(
    e: &mut Encoder<'a>,
    ranges: Vec<Range<usize>>,
    [a, b, y]: [Bind<'a>; 3],
    stride: u32,
    sum: Sum,
) -> Result<()> {
    let Sum { terms, activation, left } = sum;
    for range in ranges {
        let count = range.len() as u32 * stride;
        let width = count.min(ROW * 64);
        let first = range.start as u32 * stride;
        let block = params::Pointwise { first, count, width, terms, activation, left };
        let grid = [width.div_ceil(64), count.div_ceil(width.max(1)), 1];
        e.launch(Covers::Pointwise, Shape::default(), None, &block, vec![a, b, y], |_| grid)?;
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
