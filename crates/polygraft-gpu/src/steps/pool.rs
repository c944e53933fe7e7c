//! A row's tokens to one vector.

use crate::encode::{Bind, Encoder};
use crate::params;
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::model::Pooling;
use polygraft::program::{Step, StepKind};

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Pool { x, out, pooling } = step.kind else { return Ok(()) };
    let pooling = match pooling {
        Pooling::Mean => 0,
        Pooling::Cls => 1,
        Pooling::Last => 2,
        Pooling::Max => 3,
        Pooling::MeanSqrtLen => 4,
    };
    let tables = e.tables;
    let item = |row: usize| [row as u32, tables.row(row).start as u32, tables.row(row).len() as u32, 0];
    let items: Vec<_> = tables.ranges(step.scope, e.extent(out)).into_iter().flatten().map(item).collect();
    let (count, width) = (items.len() as u32, e.stride(out));
    let block = params::Pool { x_stride: e.stride(x), y_stride: width, width, pooling, items: e.table(items) };
    let binds = vec![Bind::Activation(x), Bind::Tables, Bind::Activation(out)];
    e.launch(Covers::Pool, Shape::default(), None, &block, binds, |v| [count, width.div_ceil(v.tile.1), 1])
}
