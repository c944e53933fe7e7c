//! Steps whose rows are columns of other rows: copies, gates, rotations, neighbours.

use crate::encode::{Bind, Encoder};
use crate::params;
use crate::steps::linear::number;
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::program::{BufferId, Step, StepKind};
use polygraft::steps::angles;

const COPY: u32 = 0;
const GATE: u32 = 1;
const ROTATE: u32 = 2;
const NEIGHBOURS: u32 = 3;

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    match step.kind {
        StepKind::Copy { x, first, out } => launch(e, step, x, out, first, [COPY, 0, 0]),
        StepKind::Gate { x, out, function } => launch(e, step, x, out, 0, [GATE, number(function), 0]),
        StepKind::Rotate { x, first, out, heads, theta_bits } => {
            let d = e.width(out) / heads;
            let items = turns(e, d, theta_bits);
            launch(e, step, x, out, first, [ROTATE, d as u32 / 2, items])
        }
        StepKind::Unfold { x, out } => {
            let tables = e.tables;
            let spans = (0..tables.rows()).map(|row| tables.row(row));
            let items = spans.flat_map(|s| s.clone().map(move |_| [s.start as u32, s.end as u32, 0, 0]));
            let items = e.table(items.collect::<Vec<_>>());
            launch(e, step, x, out, 0, [NEIGHBOURS, e.width(x) as u32, items])
        }
        _ => Ok(()),
    }
}

fn launch(
    e: &mut Encoder<'_>,
    step: &Step,
    x: BufferId,
    out: BufferId,
    column: usize,
    [kind, size, items]: [u32; 3],
) -> Result<()> {
    let width = e.width(out) as u32;
    for range in e.tables.ranges(step.scope, e.extent(out)) {
        let (x_stride, y_stride) = (e.stride(x), e.stride(out));
        let (first, rows) = (range.start as u32, range.len() as u32);
        let block = params::Columns { first, x_stride, y_stride, width, column: column as u32, kind, size, items };
        let binds = vec![Bind::Activation(x), Bind::Tables, Bind::Activation(out)];
        e.launch(Covers::Columns, Shape::default(), None, &block, binds, |v| [width.div_ceil(v.tile.1), rows, 1])?;
    }
    Ok(())
}

/// Cosines and sines of every token: the device's own are not exact for large angles. Layers share them.
fn turns(e: &mut Encoder<'_>, d: usize, theta_bits: u32) -> u32 {
    if let Some((.., at)) = e.turns.iter().find(|(theta, width, _)| (*theta, *width) == (theta_bits, d)) {
        return *at;
    }
    let mut words = Vec::new();
    for &position in &e.tables.positions {
        let pairs: Vec<[f32; 2]> = angles(position, d, f32::from_bits(theta_bits)).collect();
        words.extend(pairs.chunks(2).map(|two| {
            let [a, b] = [two[0], two.get(1).copied().unwrap_or_default()];
            [a[0], a[1], b[0], b[1]].map(f32::to_bits)
        }));
    }
    let at = e.table(words);
    e.turns.push((theta_bits, d, at));
    at
}
