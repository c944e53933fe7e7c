//! Layer norm, with a residual before it where the schedule says so, and division by the L2 norm.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::params::{self, NONE};
use crate::store::Own;
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::program::{BufferId, Step, StepKind};

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step, added: Option<BufferId>) -> Result<()> {
    let StepKind::LayerNorm { x, out, gamma, beta, eps_bits, replaced } = step.kind else { return Ok(()) };
    let vector = |id: Option<_>| id.map_or(Ok(NONE), |id| e.gpu.store.vector(id));
    let (gamma, beta) = (vector(gamma)?, vector(beta)?);
    let mut own = Vec::new();
    for segment in replaced.map_or(&[][..], |t| e.segments(t)) {
        let (_, Own::Norm { gamma: g, beta: b }) = e.op(segment)? else { return Err(wrong_payload()) };
        let places = [g.map_or(gamma, |g| g.start), b.map_or(beta, |b| b.start)];
        own.push([segment.range.start as u32, segment.range.end as u32, places[0], places[1]]);
    }
    let owns = own.len() as u32;
    let own = e.table(own);
    let (other, add) = match added {
        Some(other) => (Bind::Activation(other), 1),
        None if x == out => (Bind::Arena, 0),
        None => (Bind::Activation(x), 2),
    };
    for range in e.tables.ranges(step.scope, e.extent(out)) {
        let rows = range.len() as u32;
        let block = params::Norm {
            first: range.start as u32,
            rows,
            stride: e.stride(out),
            width: e.width(out) as u32,
            add,
            gamma,
            beta,
            own,
            owns,
            eps: f32::from_bits(eps_bits),
        };
        let binds = vec![other, Bind::Arena, Bind::Tables, Bind::Activation(out)];
        let shape = Shape { rows, ..Shape::default() };
        e.launch(Covers::Norm, shape, None, &block, binds, |v| [rows.div_ceil(v.tile.0), 1, 1])?;
    }
    Ok(())
}

pub(crate) fn normalize(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Normalize { x } = step.kind else { return Ok(()) };
    for range in e.tables.ranges(step.scope, e.extent(x)) {
        let rows = range.len() as u32;
        let (first, stride, width) = (range.start as u32, e.stride(x), e.width(x) as u32);
        let block = params::Normalize { first, rows, stride, width };
        let binds = vec![Bind::Activation(x)];
        e.launch(Covers::Normalize, Shape::default(), None, &block, binds, |v| [rows.div_ceil(v.tile.0), 1, 1])?;
    }
    Ok(())
}
