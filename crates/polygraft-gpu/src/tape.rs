//! Instructions for runs of tokens. Runs that take the same ones share launches, whichever adapters they use.
//!
//! An op that runs layers of its own (a bottleneck, a blend of several …) is written down for each of its table's
//! segments as a tape of a few kinds of instruction. Tapes of equal kinds differ only in places and scales, which stand
//! in the tables of one launch.

use crate::encode::{Bind, Encoder};
use crate::layers::Args;
use crate::params::{self, NONE};
use crate::steps::norm::{self, Norm};
use crate::steps::pointwise::{self, Sum};
use crate::variants::{Covers, Shape};
use polygraft::Result;
use polygraft::program::{BlockNorm, BufferId, Extent};
use polygraft::steps::by_row;
use std::ops::Range;
use std::sync::Arc;

/// Where a value of each token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A buffer of the Program.
    Buffer(BufferId),
    /// A buffer of this op alone: which one, and its width in numbers.
    Slot(usize, usize),
}

/// What runs, apart from the numbers of the adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// `y = add + scale · gate · f(x Wᵀ + b)`; `add` may be `y`, the gate is a number of [`Place::MEANS`].
    Project { x: Place, y: Place, add: Option<Place>, gate: Option<u32>, activation: u32 },
    /// Layer norm of the sum of `terms`, into `y`: with the model's scale and shift, or the adapter's.
    Norm { terms: [Option<Place>; 2], y: Place, model: Option<BlockNorm> },
    /// `scale · a + b`, and `y` where it is kept, into `y`.
    Sum { a: Place, scale: f32, b: Option<Place>, y: Place, keep: bool },
    /// [`Place::MEANS`] = means over the tokens of a row of numbers of [`Place::LOGITS`].
    Mean { of: Of, extent: Extent },
    /// `y` = attention of `q` over the outputs of adapters, one at a time: the first, the last, or one between.
    Attend { q: Place, k: Place, v: Place, y: Place, first: bool, last: bool, temperature: f32 },
}

/// Of which numbers means are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Of {
    /// Of the first so many, each.
    Each(u32),
    /// Of the softmax of so many.
    Softmax(u32),
    /// Of so many, and their product is what is kept.
    Product(u32),
}

/// Runs of tokens.
pub(crate) type Spans = Arc<[Range<usize>]>;

/// The instructions of one run of tokens.
pub(crate) struct Tape {
    /// The tokens that instructions are for from here on: the run, or parts of its rows.
    pub(crate) rows: Spans,
    code: Vec<(Kind, Args, Spans)>,
    /// Slots of the width of a token in use.
    pub(crate) used: usize,
    /// Numbers of a slot between two layers, and of a token.
    inner: usize,
    width: usize,
}

/// All tapes of a step, those of equal kinds together.
#[derive(Default)]
pub(crate) struct Tapes(Vec<Group>);

struct Group {
    kinds: Vec<Kind>,
    /// Of each tape, for each instruction: its tokens, and what it needs for them.
    runs: Vec<Vec<(Args, Spans)>>,
}

const INNER: usize = 0;
const LOGITS: usize = 1;
const MEANS: usize = 2;
const STATE: usize = 3;
/// Keys and values of rows under prefixes: more than there are tokens.
pub(crate) const KEYS: usize = 4;
pub(crate) const VALUES: usize = 5;
const WIDE: usize = 6;

/// Rows of an item of `project`: the rows of its tile.
const ITEM: usize = 32;

impl Tape {
    pub(crate) fn new(e: &Encoder<'_>, rows: Range<usize>, width: usize) -> Self {
        Self { rows: [rows].into(), code: Vec::new(), used: 0, inner: e.inner, width }
    }

    pub(crate) fn push(&mut self, kind: Kind, args: Args) {
        self.code.push((kind, args, self.rows.clone()));
    }

    /// Between two layers.
    pub(crate) fn inner(&self) -> Place {
        Place::Slot(INNER, self.inner)
    }

    /// What gates are means of.
    pub(crate) fn logits(&self) -> Place {
        Place::Slot(LOGITS, self.inner)
    }

    /// A value of the width of a token; free again when `used` is set back.
    pub(crate) fn wide(&mut self) -> Place {
        self.used += 1;
        Place::Slot(WIDE + self.used - 1, self.width)
    }
}

impl Tapes {
    pub(crate) fn add(&mut self, tape: Tape) {
        let (kinds, run): (Vec<_>, Vec<_>) =
            tape.code.into_iter().map(|(kind, args, rows)| (kind, (args, rows))).unzip();
        match self.0.iter_mut().find(|group| group.kinds == kinds) {
            Some(group) => group.runs.push(run),
            None => self.0.push(Group { kinds, runs: vec![run] }),
        }
    }

    pub(crate) fn launch(self, e: &mut Encoder<'_>) -> Result<()> {
        for group in &self.0 {
            for (index, kind) in group.kinds.iter().enumerate() {
                let of =
                    |(args, rows): &(Args, Spans)| rows.iter().map(|rows| (rows.clone(), *args)).collect::<Vec<_>>();
                let runs: Vec<_> = group.runs.iter().flat_map(|run| of(&run[index])).collect();
                if !runs.is_empty() {
                    launch(e, *kind, &runs)?;
                }
            }
        }
        Ok(())
    }
}

/// Runs that lie side by side, as one.
fn joined(runs: &[(Range<usize>, Args)]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for (rows, _) in runs {
        match out.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => out.push(rows.clone()),
        }
    }
    out
}

/// The gates that were found last, as a place of one number: the row's, by any token of it.
pub(crate) fn gate(e: &Encoder<'_>, token: usize, number: u32) -> u32 {
    (token * e.inner) as u32 + number
}

/// The buffer of the gates.
pub(crate) fn gates<'a>(e: &mut Encoder<'a>) -> Bind<'a> {
    bind(e, Place::Slot(MEANS, e.inner))
}

/// The buffer of a place.
pub(crate) fn bind<'a>(e: &mut Encoder<'a>, at: Place) -> Bind<'a> {
    place(e, at).0
}

/// The buffer of a place, and its vec4 a token.
fn place<'a>(e: &mut Encoder<'a>, place: Place) -> (Bind<'a>, u32) {
    match place {
        Place::Buffer(id) => (Bind::Activation(id), e.stride(id)),
        Place::Slot(index, width) => {
            let stride = width.div_ceil(4);
            let rows = e.tables.tokens().max(e.tables.len(Extent::Positions));
            (e.slot(index, stride * rows), stride as u32)
        }
    }
}

/// Numbers of a token in a place.
fn width(e: &Encoder<'_>, place: Place) -> usize {
    match place {
        Place::Buffer(id) => e.width(id),
        Place::Slot(_, width) => width,
    }
}

fn launch(e: &mut Encoder<'_>, kind: Kind, runs: &[(Range<usize>, Args)]) -> Result<()> {
    match kind {
        Kind::Project { .. } => project(e, kind, runs),
        Kind::Norm { terms, y, model } => {
            let norm = match model {
                Some(n) => Norm::of(e, Some(n.gamma), n.beta, n.eps_bits, n.replaced)?,
                None => {
                    let own =
                        |(rows, args): &(Range<usize>, Args)| [rows.start as u32, rows.end as u32, args[0], args[1]];
                    let own = runs.iter().map(own).collect();
                    Norm { gamma: NONE, beta: NONE, own, eps: polygraft::ir::OwnNorm::EPS }
                }
            };
            let mut bits = 0;
            let mut binds = [Bind::Arena; 3];
            for (i, term) in terms.into_iter().enumerate() {
                match term {
                    Some(term) if term == y => bits |= 4,
                    Some(term) => {
                        bits |= 1 << i;
                        binds[i] = place(e, term).0;
                    }
                    None => {}
                }
            }
            binds[2] = place(e, y).0;
            let width = width(e, y);
            norm::launch(e, joined(runs), &norm, bits, binds, width)
        }
        Kind::Sum { a, scale, b, y, keep } => {
            let terms = 1 + 2 * u32::from(b.is_some()) + 4 * u32::from(keep);
            let ((a, _), (y, stride)) = (place(e, a), place(e, y));
            let b = b.map_or(Bind::Arena, |b| place(e, b).0);
            pointwise::launch(e, joined(runs), [a, b, y], stride, Sum { terms, activation: 0, left: scale })
        }
        Kind::Mean { of, extent } => {
            let inner = e.inner;
            let ((x, stride), (y, _)) = (place(e, Place::Slot(LOGITS, inner)), place(e, Place::Slot(MEANS, inner)));
            let (numbers, n, product) = match of {
                Of::Each(n) => (n, 0, 0),
                Of::Softmax(n) => (n, n, 0),
                Of::Product(n) => (1, 0, n),
            };
            let tables = e.tables;
            let rows = runs.iter().flat_map(|(rows, _)| by_row(tables, extent, rows.clone()));
            let items: Vec<_> = rows.map(|row| [row.start as u32, row.len() as u32, n, product]).collect();
            let count = items.len() as u32;
            let block = params::Mean { stride, items: e.table(items) };
            let binds = vec![x, Bind::Tables, y];
            e.launch(Covers::Mean, Shape::default(), None, &block, binds, |_| [count, numbers.div_ceil(4), 1])
        }
        Kind::Attend { q, k, v, y, first, last, temperature } => {
            let [(q, _), (k, _), (v, _), (y, stride)] = [q, k, v, y].map(|p| place(e, p));
            let (state, _) = place(e, Place::Slot(STATE, 4));
            for range in joined(runs) {
                let rows = range.len() as u32;
                let block = params::Attend {
                    first: range.start as u32,
                    rows,
                    stride,
                    width: stride,
                    place: u32::from(first) + 2 * u32::from(last),
                    temperature,
                };
                let binds = vec![q, k, v, state, y];
                let grid = |v: &crate::variants::Variant| [rows.div_ceil(v.tile.0), 1, 1];
                e.launch(Covers::Attend, Shape::default(), None, &block, binds, grid)?;
            }
            Ok(())
        }
    }
}

/// Adds the items of `project` for `range`.
pub(crate) fn items(to: &mut Vec<[u32; 4]>, range: Range<usize>, args: Args) {
    let [weight, form, book, bias, inputs, outputs, scale] = args;
    for start in range.clone().step_by(ITEM) {
        let count = ITEM.min(range.end - start) as u32;
        to.push([start as u32, count, weight, bias]);
        to.push([inputs | outputs << 16, scale, form, book]);
    }
}

fn project(e: &mut Encoder<'_>, kind: Kind, runs: &[(Range<usize>, Args)]) -> Result<()> {
    let Kind::Project { x, y, add, gate, activation } = kind else { return Ok(()) };
    let mut rows = Vec::new();
    let mut widest = 0;
    for (range, args) in runs {
        widest = widest.max(args[5]);
        items(&mut rows, range.clone(), *args);
    }
    let items = (rows.len() / 2) as u32;
    let ((x, x_stride), (y_bind, y_stride)) = (place(e, x), place(e, y));
    let none = (Bind::Arena, 0);
    let (bits, (r, r_stride)) = match add {
        Some(add) if add == y => (2, none),
        Some(add) => (1, place(e, add)),
        None => (0, none),
    };
    let (gates, g_stride) = if gate.is_some() { place(e, Place::Slot(MEANS, e.inner)) } else { none };
    let block = params::Project {
        x_stride,
        y_stride,
        r_stride,
        g_stride,
        items: e.table(rows),
        add: bits,
        gate: gate.unwrap_or(NONE),
        activation,
    };
    let binds = vec![x, Bind::Arena, Bind::Tables, gates, r, y_bind];
    e.launch(Covers::Project, Shape::default(), None, &block, binds, |v| [items, widest.div_ceil(v.tile.1), 1])
}
