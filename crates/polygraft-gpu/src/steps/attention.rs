//! Attention: a workgroup for some queries of one head of one row.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::params::{self, NONE};
use crate::steps::layers::{Placing, gather};
use crate::steps::linear::number;
use crate::tape::{self, KEYS, Kind, Of, Place, Tape, Tapes, VALUES};
use crate::variants::{Covers, Shape, choose};
use polygraft::Result;
use polygraft::ir::{Op, Payload};
use polygraft::model::Activation;
use polygraft::program::{BufferId, Extent, Prefixes, RelativeBuffers, Step, StepKind, TableId};
use std::ops::Range;

/// A row: its tokens, and where its keys are.
struct Row {
    index: usize,
    tokens: Range<usize>,
    keys: Range<usize>,
}

/// What all rows of a step share.
#[derive(Clone, Copy)]
struct Common {
    out: BufferId,
    heads: usize,
    scale_bits: u32,
    window: Option<u32>,
    relative: Option<RelativeBuffers>,
}

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Attention { q, k, v, out, heads, scale_bits, prefix, window, relative } = step.kind else {
        return Ok(());
    };
    let tables = e.tables;
    // Rows under prefixes apart.
    let (mut plain, mut longer) = (Vec::new(), Vec::new());
    let mut slots = 0;
    for index in 0..tables.rows() {
        let tokens = tables.row(index);
        let own = prefix.map_or(Ok(0), |p| front(e, p, &tokens))?;
        if own == 0 {
            plain.push(Row { index, keys: tokens.clone(), tokens });
        } else {
            let keys = slots..slots + own + tokens.len();
            slots = keys.end;
            longer.push(Row { index, tokens, keys });
        }
    }
    let common = Common { out, heads, scale_bits, window, relative };
    launch(e, &plain, [q, k, v].map(Bind::Activation), common)?;
    if let Some(prefix) = prefix.filter(|_| !longer.is_empty()) {
        let stride = e.stride(k);
        let room = slots * stride as usize;
        let both = [e.slot(KEYS, room), e.slot(VALUES, room)];
        lengthen(e, prefix, &longer, [k, v], both, stride)?;
        launch(e, &longer, [Bind::Activation(q), both[0], both[1]], common)?;
    }
    Ok(())
}

fn launch<'a>(e: &mut Encoder<'a>, rows: &[Row], qkv: [Bind<'a>; 3], common: Common) -> Result<()> {
    if common.window.is_some() || common.relative.is_some() {
        return placed(e, rows, qkv, common);
    }
    let Common { out, heads, scale_bits, .. } = common;
    let head = (e.width(out) / heads) as u32;
    let shape = Shape { head, ..Shape::default() };
    let Some(variant) = choose(Covers::Attention, shape, &e.gpu.tuning) else { return Ok(()) };
    let size = variant.tile.0;
    let items: Vec<_> = rows.iter().flat_map(|row| row.items(size)).collect();
    let count = items.len() as u32;
    let block = params::Attention { stride: e.stride(out), items: e.table(items), scale: f32::from_bits(scale_bits) };
    let extra = ("D", head / variant.reads);
    let [q, k, v] = qkv;
    let binds = vec![q, k, v, Bind::Tables, Bind::Activation(out)];
    e.launch(Covers::Attention, shape, Some(extra), &block, binds, |_| [count, heads as u32, 1])
}

impl Row {
    /// First query, queries, first key, keys: a few queries at a time.
    fn items(&self, size: u32) -> impl Iterator<Item = [u32; 4]> + use<> {
        let (first, tokens) = (self.tokens.start as u32, self.tokens.len() as u32);
        let (key, keys) = (self.keys.start as u32, self.keys.len() as u32);
        (0..tokens).step_by(size as usize).map(move |q| [first + q, size.min(tokens - q), key, keys])
    }
}

/// Attention that knows of places.
fn placed<'a>(e: &mut Encoder<'a>, rows: &[Row], [q, k, v]: [Bind<'a>; 3], common: Common) -> Result<()> {
    let Common { out, heads, scale_bits, window, relative } = common;
    let head = (e.width(out) / heads) as u32;
    let shape = Shape { head, ..Shape::default() };
    let Some(variant) = choose(Covers::Placed, shape, &e.gpu.tuning) else { return Ok(()) };
    let tables = e.tables;
    let mut items = Vec::new();
    for row in rows {
        let slots = (row.keys.len() - row.tokens.len()) as u32;
        let block = tables.relative.as_ref().map_or(0, |r| r.block(r.blocks[row.index] as usize).start as u32);
        for item in row.items(variant.tile.0) {
            items.extend([item, [slots, block, item[0] - row.tokens.start as u32, 0]]);
        }
    }
    let count = items.len() as u32 / 2;
    let places = tables.relative.as_ref().map_or(&[][..], |r| &r.places);
    let quads = places.chunks(4).map(|chunk| std::array::from_fn(|i| chunk.get(i).copied().unwrap_or(0)));
    let terms = relative.map_or([None; 3], |r| [r.bias, r.keys, r.queries]);
    let bit = |(i, term): (usize, &Option<BufferId>)| u32::from(term.is_some()) << i;
    let block = params::Placed {
        stride: e.stride(out),
        items: e.table(items),
        scale: f32::from_bits(scale_bits),
        window: window.unwrap_or(NONE),
        terms: terms.iter().enumerate().map(bit).sum(),
        places: e.table(quads.collect::<Vec<_>>()),
        middle: places.len() as u32 / 2,
        p_stride: e.stride(out),
        b_stride: (heads as u32).div_ceil(4),
    };
    let [bias, keys, queries] = terms.map(|id| id.map_or(Bind::Arena, Bind::Activation));
    let binds = vec![q, k, v, Bind::Tables, Bind::Activation(out), keys, queries, bias];
    e.launch(Covers::Placed, shape, Some(("D", head)), &block, binds, |_| [count, heads as u32, 1])
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
    rows: &[Row],
    own: [BufferId; 2],
    both: [Bind<'a>; 2],
    stride: u32,
) -> Result<()> {
    let mut at: Vec<usize> = rows.iter().map(|row| row.keys.start).collect();
    // The library puts a later adapter's slots before an earlier one's.
    for table in prefix.tables().rev() {
        let mut tapes = Tapes::default();
        let mut lists = [Vec::new(), Vec::new()];
        for (Row { tokens: row, .. }, at) in rows.iter().zip(&mut at) {
            let Some(payload) = taken(e, table, row)? else { continue };
            let Op::Prefix(slots) = &payload.op else { return Err(wrong_payload()) };
            let layers = e.layers(payload)?;
            if slots.gates.is_some() {
                let mut tape = Tape::new(e, row.clone(), e.width(prefix.x));
                let (x, y) = (Place::Buffer(prefix.x), tape.logits());
                let activation = number(Activation::Sigmoid);
                let kind = Kind::Project { x, y, add: None, gate: None, activation };
                tape.push(kind, layers.layer(0)?.args(1.0));
                tape.push(Kind::Mean { of: Of::Each(2), extent: Extent::Tokens }, [0; 7]);
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
        let place = |(row, at): (&Row, &usize)| Placing {
            to: *at as u32,
            rows: row.tokens.len() as u32,
            from: row.tokens.start as u32 * stride,
            gate: NONE,
        };
        let list: Vec<_> = rows.iter().zip(&at).map(place).collect();
        gather(e, &list, [Bind::Activation(from), Bind::Arena, to], stride)?;
    }
    Ok(())
}
