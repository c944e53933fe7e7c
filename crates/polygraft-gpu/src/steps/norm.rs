//! Layer norm, with a residual before it where the schedule says so, and division by the L2 norm.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::params::{self, NONE};
use crate::store::Own;
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::model::WeightId;
use polygraft::program::{BufferId, Step, StepKind, TableId};
use std::ops::Range;

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step, added: Option<BufferId>) -> Result<()> {
    let StepKind::LayerNorm { x, out, gamma, beta, eps_bits, replaced } = step.kind else { return Ok(()) };
    let norm = Norm::of(e, gamma, beta, eps_bits, replaced)?;
    // What is normed: the buffer itself, with what is added to it, or another one.
    let (other, terms) = match added {
        Some(other) => (Bind::Activation(other), 4 | 1),
        None if x == out => (Bind::Arena, 4),
        None => (Bind::Activation(x), 1),
    };
    let ranges = e.tables.ranges(step.scope, e.extent(out));
    launch(e, ranges, &norm, terms, [other, Bind::Arena, Bind::Activation(out)], e.width(out))
}

/// Scales and shifts: most rows', and those of rows that bring their own, as [first row, end, scale, shift].
pub(crate) struct Norm {
    pub(crate) gamma: u32,
    pub(crate) beta: u32,
    pub(crate) own: Vec<[u32; 4]>,
    pub(crate) eps: f32,
}

impl Norm {
    /// A norm of the base's, with the rows of a table that run an adapter's.
    pub(crate) fn of(
        e: &Encoder<'_>,
        gamma: Option<WeightId>,
        beta: Option<WeightId>,
        eps_bits: u32,
        replaced: Option<TableId>,
    ) -> Result<Self> {
        let vector = |id: Option<_>| id.map_or(Ok(NONE), |id| e.gpu.store.vector(id));
        let (gamma, beta) = (vector(gamma)?, vector(beta)?);
        let mut own = Vec::new();
        for segment in replaced.map_or(&[][..], |t| e.segments(t)) {
            let (_, Own::Norm { gamma: g, beta: b }) = e.op(segment)? else { return Err(wrong_payload()) };
            let places = [g.map_or(gamma, |g| g.start), b.map_or(beta, |b| b.start)];
            own.push([segment.range.start as u32, segment.range.end as u32, places[0], places[1]]);
        }
        Ok(Self { gamma, beta, own, eps: f32::from_bits(eps_bits) })
    }
}

/// Norms of some rows: `terms` of `[a, b, y]`, into `y`, all of one width.
pub(crate) fn launch<'a>(
    e: &mut Encoder<'a>,
    ranges: Vec<Range<usize>>,
    norm: &Norm,
    terms: u32,
    [a, b, y]: [Bind<'a>; 3],
    width: usize,
) -> Result<()> {
    let owns = norm.own.len() as u32;
    let own = e.table(norm.own.iter().copied());
    for range in ranges {
        let rows = range.len() as u32;
        let block = params::Norm {
            first: range.start as u32,
            rows,
            stride: width.div_ceil(4) as u32,
            width: width as u32,
            terms,
            gamma: norm.gamma,
            beta: norm.beta,
            own,
            owns,
            eps: norm.eps,
        };
        let binds = vec![a, b, Bind::Arena, Bind::Tables, y];
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
