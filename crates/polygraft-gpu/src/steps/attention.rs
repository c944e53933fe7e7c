//! Attention: a workgroup for some queries of one head of one row.

use crate::encode::{Bind, Encoder};
use crate::params;
use crate::variants::{Covers, Shape, choose};
use polygraft::Result;
use polygraft::program::{Step, StepKind};

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Attention { q, k, v, out, heads, scale_bits, prefix } = step.kind else { return Ok(()) };
    if prefix.is_some() {
        return Err(crate::failed("prefixes have no kernel yet; use the cpu backend".into()));
    }
    let head = (e.width(out) / heads) as u32;
    let shape = Shape { head, ..Shape::default() };
    let Some(variant) = choose(Covers::Attention, shape, &e.gpu.tuning) else { return Ok(()) };
    let size = variant.tile.0;
    let mut items = Vec::new();
    for row in 0..e.tables.rows() {
        let span = e.tables.row(row);
        let (first, tokens) = (span.start as u32, span.len() as u32);
        items.extend((0..tokens).step_by(size as usize).map(|q| [first + q, size.min(tokens - q), first, tokens]));
    }
    let count = items.len() as u32;
    let block = params::Attention { stride: e.stride(out), items: e.table(items), scale: f32::from_bits(scale_bits) };
    let extra = ("D", head / variant.reads);
    let binds =
        vec![Bind::Activation(q), Bind::Activation(k), Bind::Activation(v), Bind::Tables, Bind::Activation(out)];
    e.launch(Covers::Attention, shape, Some(extra), &block, binds, |_| [count, heads as u32, 1])
}
