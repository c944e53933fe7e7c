//! Ops that run layers of their own over some tokens: coupled embeddings, interventions, low-rank updates that depend
//! on their row.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::layers::Layers;
use crate::params::{self, NONE};
use crate::steps::linear::number;
use crate::tape::{self, Kind, Of, Place, Tape, Tapes};
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::ir::{Mixing, Op, Reft};
use polygraft::model::Activation;
use polygraft::program::{Extent, Step, StepKind};
use polygraft::steps::by_row;
use std::ops::Range;

fn project(x: Place, y: Place, add: Option<Place>, activation: u32) -> Kind {
    Kind::Project { x, y, add, gate: None, activation }
}

pub(crate) fn couple(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Couple { x, table, inverse } = step.kind else { return Ok(()) };
    let (place, mut tapes) = (Place::Buffer(x), Tapes::default());
    for segment in e.segments(table) {
        let payload = e.payload(segment)?;
        let Op::Coupling(coupling) = &payload.op else { return Err(wrong_payload()) };
        let layers = e.layers(payload)?;
        let mut tape = Tape::new(e, segment.range.clone(), e.width(x));
        let inner = tape.inner();
        // F moves the first half, then G the second; undone, the other way round.
        for side in if inverse { [2, 0] } else { [0, 2] } {
            let sign = if inverse { -1.0 } else { 1.0 };
            tape.push(project(place, inner, None, number(coupling.activation)), layers.layer(side)?.args(1.0));
            tape.push(project(inner, place, Some(place), 0), layers.layer(side + 1)?.args(sign));
        }
        tapes.add(tape);
    }
    tapes.launch(e)
}

pub(crate) fn reft(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Reft { x, table } = step.kind else { return Ok(()) };
    let (place, width, stride) = (Place::Buffer(x), e.width(x), e.stride(x) as usize);
    let (mut tapes, mut moved) = (Tapes::default(), Vec::new());
    for segment in e.segments(table) {
        let payload = e.payload(segment)?;
        let Op::Reft(own) = &payload.op else { return Err(wrong_payload()) };
        let layers = e.layers(payload)?;
        let last = if own.last.is_some() { LAST } else { 0 };
        let shifted = |by: usize, r: Range<usize>| by + r.start..by + r.end;
        for row in by_row(e.tables, Extent::Tokens, segment.range.clone()) {
            let (prefix, suffix) = ((own.prefix as usize).min(row.len()), own.suffix as usize);
            let mut tape = |rows: Range<usize>, unit: usize, mix: bool| {
                if rows.is_empty() {
                    return Ok(());
                }
                let mut tape = Tape::new(e, rows, width);
                let at = if mix { tape.wide() } else { place };
                let scale = if mix { 1.0 } else { segment.scale };
                intervene(&mut tape, own, layers, unit, at, scale)?;
                if mix {
                    tape.push(Kind::Sum { a: place, scale: -1.0, b: None, y: at, keep: true }, [0; 7]);
                    tape.push(Kind::Sum { a: at, scale: segment.scale, b: None, y: place, keep: true }, [0; 7]);
                }
                tapes.add(tape);
                Ok(())
            };
            if let Some((heads, tail)) = own.positions(row.len()) {
                heads.into_iter().try_for_each(|head| tape(shifted(row.start, head), 0, false))?;
                tape(shifted(row.start, tail), last, false)?;
                continue;
            }
            // A shorter row: what the library makes of its positions lands on others.
            let skipped = (prefix + row.len()).saturating_sub(suffix);
            let cut = row.start + (prefix - skipped).min(row.len());
            tape(row.start..cut, 0, true)?;
            tape(cut..row.end, last, true)?;
            for (rows, from) in [(row.start..cut, row.start + skipped), (cut..row.end, row.start)] {
                let (to, rows, from) = (rows.start as u32, rows.len() as u32, (from * stride) as u32);
                moved.push(Placing { to, rows, from, gate: NONE });
            }
        }
    }
    if !moved.is_empty() {
        let copy = tape::bind(e, Tape::new(e, 0..0, width).wide());
        gather(e, &moved, [Bind::Activation(x), Bind::Arena, copy], stride as u32)?;
    }
    tapes.launch(e)
}

/// Places of a second intervention's layers, after the first's.
const LAST: usize = 3;

/// `x += scale · (f(W x + b) − R x) R`, or without `R x`.
fn intervene(tape: &mut Tape, own: &Reft, layers: &Layers, unit: usize, x: Place, scale: f32) -> Result<()> {
    let inner = tape.inner();
    tape.push(project(x, inner, None, number(own.activation)), layers.layer(unit)?.args(1.0));
    if own.subtract {
        tape.push(project(x, inner, Some(inner), 0), layers.layer(unit + 1)?.args(-1.0));
    }
    tape.push(project(inner, x, Some(x), 0), layers.layer(unit + 2)?.args(scale));
    Ok(())
}

/// Rows of an item of `gather`.
const ITEM: u32 = 32;

/// Rows to put somewhere: their place in `y`, how many, where they begin in `x`, and which gate multiplies them.
pub(crate) struct Placing {
    pub(crate) to: u32,
    pub(crate) rows: u32,
    pub(crate) from: u32,
    pub(crate) gate: u32,
}

pub(crate) fn gather<'a>(
    e: &mut Encoder<'a>,
    list: &[Placing],
    [x, gates, y]: [Bind<'a>; 3],
    stride: u32,
) -> Result<()> {
    let mut items = Vec::new();
    for Placing { to, rows, from, gate } in list {
        let starts = (0..*rows).step_by(ITEM as usize);
        items.extend(starts.map(|at| [to + at, ITEM.min(rows - at), from + at * stride, *gate]));
    }
    let count = items.len() as u32;
    let block = params::Gather { stride, items: e.table(items) };
    let binds = vec![x, Bind::Tables, gates, y];
    e.launch(Covers::Gather, Shape::default(), None, &block, binds, |v| [count, stride.div_ceil(v.tile.1), 1])
}

pub(crate) fn insert(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Insert { x, table } = step.kind else { return Ok(()) };
    let mut list = Vec::new();
    for segment in e.segments(table) {
        let (from, rows) = e.layers(e.payload(segment)?)?.rows(0)?;
        // Rows that stand together share a segment: each begins with the first vector.
        for start in segment.range.clone().step_by(rows.max(1) as usize) {
            let rows = rows.min((segment.range.end - start) as u32);
            list.push(Placing { to: start as u32, rows, from, gate: NONE });
        }
    }
    let stride = e.stride(x);
    gather(e, &list, [Bind::Arena, Bind::Arena, Bind::Activation(x)], stride)
}

pub(crate) fn mixed(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::MixedLowRank { x, out, table } = step.kind else { return Ok(()) };
    let extent = e.extent(out);
    let (x, y, mut tapes) = (Place::Buffer(x), Place::Buffer(out), Tapes::default());
    for segment in e.segments(table) {
        let payload = e.payload(segment)?;
        let Op::MixedLowRank(own) = &payload.op else { return Err(wrong_payload()) };
        let layers = e.layers(payload)?;
        let mut tape = Tape::new(e, segment.range.clone(), e.width(out));
        let (hidden, logits) = (tape.inner(), tape.logits());
        tape.push(project(x, hidden, None, 0), layers.layer(0)?.args(1.0));
        let (from, activation, of, experts) = match &own.mixing {
            Mixing::Gate(gates) => (x, number(Activation::Sigmoid), Of::Product(gates.len() as u32), 1),
            Mixing::Route(router) => (hidden, 0, Of::Softmax(router.rows() as u32), router.rows() as u32),
        };
        tape.push(project(from, logits, None, activation), layers.layer(1)?.args(1.0));
        tape.push(Kind::Mean { of, extent }, [0; 7]);
        for expert in 0..experts {
            let kind = Kind::Project { x: hidden, y, add: Some(y), gate: Some(expert), activation: 0 };
            tape.push(kind, layers.layer(2 + expert as usize)?.args(segment.scale * own.lora.scale));
        }
        tapes.add(tape);
    }
    tapes.launch(e)
}
