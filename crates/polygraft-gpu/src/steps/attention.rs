//! Attention: a workgroup for some queries of one head of one row.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::params::{self, NONE};
use crate::steps::layers::{Placing, gather};
use crate::steps::linear::number;
use crate::tape::{self, KEYS, Kind, Place, Tape, Tapes, VALUES};
use crate::variants::{Covers, Shape, choose};
use polygraft::Result;
use polygraft::ir::{Op, Payload};
use polygraft::model::Activation;
use polygraft::program::{BufferId, Prefixes, Step, StepKind, TableId};
use std::ops::Range;

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Attention { q, k, v, out, heads, scale_bits, prefix, window, relative } = step.kind else {
        return Ok(());
    };
    if window.is_some() || relative.is_some() {
        return Err(crate::failed("attention that knows of places has no kernel yet; use the cpu backend".into()));
    }
    let tables = e.tables;
    // Of each row its tokens, and where its keys are; rows under prefixes apart.
    let (mut plain, mut longer) = (Vec::new(), Vec::new());
    let mut slots = 0;
    for row in (0..tables.rows()).map(|row| tables.row(row)) {
        let own = prefix.map_or(Ok(0), |p| front(e, p, &row))?;
        if own == 0 {
            plain.push((row.clone(), row));
        } else {
            let keys = slots..slots + own + row.len();
            slots = keys.end;
            longer.push((row, keys));
        }
    }
    let heads = (heads, scale_bits);
    launch(e, &plain, [q, k, v].map(Bind::Activation), out, heads)?;
    if let Some(prefix) = prefix.filter(|_| !longer.is_empty()) {
        let stride = e.stride(k);
        let room = slots * stride as usize;
        let both = [e.slot(KEYS, room), e.slot(VALUES, room)];
        lengthen(e, prefix, &longer, [k, v], both, stride)?;
        launch(e, &longer, [Bind::Activation(q), both[0], both[1]], out, heads)?;
    }
    Ok(())
}

fn launch<'a>(
    e: &mut Encoder<'a>,
    rows: &[(Range<usize>, Range<usize>)],
    [q, k, v]: [Bind<'a>; 3],
    out: BufferId,
    (heads, scale_bits): (usize, u32),
) -> Result<()> {
    let head = (e.width(out) / heads) as u32;
    let shape = Shape { head, ..Shape::default() };
    let Some(variant) = choose(Covers::Attention, shape, &e.gpu.tuning) else { return Ok(()) };
    let size = variant.tile.0;
    let mut items = Vec::new();
    for (row, keys) in rows {
        let (first, tokens, key) = (row.start as u32, row.len() as u32, [keys.start as u32, keys.len() as u32]);
        items.extend((0..tokens).step_by(size as usize).map(|q| [first + q, size.min(tokens - q), key[0], key[1]]));
    }
    let count = items.len() as u32;
    let block = params::Attention { stride: e.stride(out), items: e.table(items), scale: f32::from_bits(scale_bits) };
    let extra = ("D", head / variant.reads);
    let binds = vec![q, k, v, Bind::Tables, Bind::Activation(out)];
    e.launch(Covers::Attention, shape, Some(extra), &block, binds, |_| [count, heads as u32, 1])
}

/// The prefix of a table that `row` takes.
fn taken<'a>(e: &Encoder<'a>, table: TableId, row: &Range<usize>) -> Result<Option<&'a Payload>> {
    let segment = e.segments(table).iter().find(|s| s.range.contains(&row.start));
    segment.map(|s| e.payload(s)).transpose()
}

/// Keys in front of a row's own.
fn front(e: &Encoder<'_>, prefix: Prefixes, row: &Range<usize>) -> Result<usize> {
    let taken = prefix.tables().filter_map(|table| taken(e, table, row).transpose());
    taken.map(|payload| Ok(e.layers(payload?)?.slots())).sum()
}

/// Writes keys and values of rows under prefixes: the slots, gated, then the row's own.
fn lengthen<'a>(
    e: &mut Encoder<'a>,
    prefix: Prefixes,
    rows: &[(Range<usize>, Range<usize>)],
    own: [BufferId; 2],
    both: [Bind<'a>; 2],
    stride: u32,
) -> Result<()> {
    let mut at: Vec<usize> = rows.iter().map(|(_, keys)| keys.start).collect();
    // The library puts a later adapter's slots before an earlier one's.
    for table in prefix.tables().rev() {
        let mut tapes = Tapes::default();
        let mut lists = [Vec::new(), Vec::new()];
        for ((row, _), at) in rows.iter().zip(&mut at) {
            let Some(payload) = taken(e, table, row)? else { continue };
            let Op::Prefix(slots) = &payload.op else { return Err(wrong_payload()) };
            let layers = e.layers(payload)?;
            if slots.gates.is_some() {
                let mut tape = Tape::new(e, row.clone(), e.width(prefix.x));
                let (x, y) = (Place::Buffer(prefix.x), tape.logits());
                let activation = number(Activation::Sigmoid);
                let kind = Kind::Project { x, y, add: None, gate: None, activation };
                tape.push(kind, layers.layer(0)?.args(1.0));
                tape.push(Kind::Mean { softmax: false, numbers: 2 }, [0; 5]);
                tapes.add(tape);
            }
            for (i, list) in lists.iter_mut().enumerate() {
                let (from, rows) = layers.rows(i)?;
                let gate = slots.gates.as_ref().map_or(NONE, |_| tape::gate(e, row.start, i as u32));
                list.push(Placing { to: *at as u32, rows, from, gate });
            }
            *at += layers.slots();
        }
        tapes.launch(e)?;
        let gates = tape::gates(e);
        for (list, to) in lists.iter().zip(both) {
            gather(e, list, [Bind::Arena, gates, to], stride)?;
        }
    }
    for (from, to) in own.into_iter().zip(both) {
        let place = |((row, _), at): (&(Range<usize>, Range<usize>), &usize)| Placing {
            to: *at as u32,
            rows: row.len() as u32,
            from: row.start as u32 * stride,
            gate: NONE,
        };
        let list: Vec<_> = rows.iter().zip(&at).map(place).collect();
        gather(e, &list, [Bind::Activation(from), Bind::Arena, to], stride)?;
    }
    Ok(())
}
