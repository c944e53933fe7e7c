//! Linear layers with their low-rank updates and what follows them, a chunk of rows at a time.
//!
//! A chunk passes over the weights a few panels at a time; what follows (the updates, the activation, rounding for the
//! next layer) happens while those columns are in the caches, and the norm when the chunk has all its columns.

use crate::kernels::{Codes, Isa, Rows, SIDE, Target};
use crate::lowrank::{Update, updates};
use crate::norm::Norm;
use crate::pack::{LANES, Packed};
use crate::run::{Frame, Scratch, cut, wrong_payload};
use crate::schedule::{Linear, Then};
use crate::slices::{Ended, Slices, TASK};
use crate::store::Own;
use crate::{decode, rows};
use polygraft::backend::Precision;
use polygraft::ir::{LayerLinear, LinearSite, Op, Site};
use polygraft::program::{BufferId, Step, StepKind};
use polygraft::quant::BLOCK;
use polygraft::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// Rows that pass over a panel together: enough to make decoding it cheap, few enough to stay in the caches. Whole
/// groups of [`SIDE`].
pub(crate) const CHUNK: usize = 256;

/// Panels in the columns of a block: what is handed over in 8 bits is rounded in whole blocks.
const BLOCK_PANELS: usize = BLOCK / LANES;

/// How a linear layer with quantized weights takes its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// As it is.
    No,
    /// In 8 bits.
    Once,
    /// In 8 bits and what that leaves in 8 bits more.
    Twice,
}

/// How `step` takes its input. What the first layer's attention rounds passes through all the others: the worst of a
/// hundred texts came to a cosine of 0.9978 when it is rounded once, to 0.9996 when it is not rounded, or twice.
pub(crate) fn rounding(step: &Step, precision: Precision) -> Rounding {
    use LayerLinear::{Key, Query, Value};
    match (precision, step.origin) {
        (Precision::Exact, _) => Rounding::No,
        (Precision::Fast, Some(Site::Linear(LinearSite::Layer(0, Query | Key | Value)))) => Rounding::Twice,
        (Precision::Fast, _) => Rounding::Once,
    }
}

/// Rows that run the same weight and bias.
struct Group<'a> {
    rows: Range<usize>,
    weight: &'a Packed,
    bias: Option<&'a [f32]>,
}

/// One of the layers that share an input.
struct Product<'a> {
    groups: Vec<Group<'a>>,
    updates: Vec<Update<'a>>,
    rounding: Rounding,
    /// Whether the base's own weights take rounded activations: then the updates may, too.
    even: bool,
    /// Its outputs, `[rows, n]`.
    n: usize,
}

/// A piece of the work, in order.
enum Task {
    /// The low-rank hidden values of a chunk.
    Shrink(Range<usize>),
    /// A chunk by a few panels of one of the layers.
    Panels { rows: Range<usize>, product: usize, panels: Range<usize> },
    /// Sum and norm of a chunk.
    Norm(Range<usize>),
}

/// What the tasks of a pass share.
struct Pass<'a> {
    isa: Isa,
    index: usize,
    input: &'a [f32],
    k: usize,
    products: Vec<Product<'a>>,
    work: &'a Linear,
    activation: Option<rows::Pointwise>,
}

pub(crate) fn linear(frame: &mut Frame<'_>, work: &Linear, slices: &mut Slices<'_>) -> Result<Ended> {
    let steps = &frame.program().steps;
    let StepKind::Linear { x, .. } = steps[work.products[0].step].kind else { return Ok(Ended::Yes) };
    let targets: Vec<BufferId> = work.products.iter().map(|p| steps[p.step].kind.target()).collect();
    // The buffers that are written are out of the list meanwhile, so that the input can be borrowed.
    let mut outs: Vec<Vec<f32>> = targets.iter().map(|id| frame.take(*id)).collect();
    let sum = match work.then {
        Then::AddNorm { add, .. } => Some(steps[add].kind.target()),
        Then::Nothing | Then::Activate(_) => None,
    };
    let mut sums = sum.map(|id| frame.take(id)).unwrap_or_default();
    let ended = run(frame, work, x, &mut outs, &mut sums, slices);
    targets.into_iter().zip(outs).for_each(|(id, values)| frame.put(id, values));
    if let Some(id) = sum {
        frame.put(id, sums);
    }
    ended
}

fn run(
    frame: &mut Frame<'_>,
    work: &Linear,
    x: BufferId,
    outs: &mut [Vec<f32>],
    sums: &mut [f32],
    slices: &mut Slices<'_>,
) -> Result<Ended> {
    let program = frame.program();
    let (k, first) = (frame.width(x), &program.steps[work.products[0].step]);
    let shared = work.products.iter().map(|p| match program.steps[p.step].kind {
        StepKind::Linear { bias: Some(id), out, .. } => frame.store.vector(id, frame.width(out)).map(Some),
        _ => Ok(None),
    });
    let shared: Vec<Option<Cow<'_, [f32]>>> = shared.collect::<Result<_>>()?;
    let products = work.products.iter().zip(&shared).map(|(p, bias)| {
        let step = &program.steps[p.step];
        let rounding = rounding(step, frame.call.precision);
        let base = match step.kind {
            StepKind::Linear { weight: Some(id), .. } => frame.store.panels(id)?.is_quantized(),
            _ => false,
        };
        Ok(Product {
            groups: groups(frame, step, bias.as_deref())?,
            updates: updates(frame, p.updates.clone())?,
            rounding,
            even: base && rounding == Rounding::Once,
            n: frame.width(step.kind.target()),
        })
    });
    let products: Vec<Product<'_>> = products.collect::<Result<_>>()?;
    let norm = match work.then {
        Then::AddNorm { norm, .. } => Some(Norm::new(frame, &program.steps[norm])?),
        Then::Nothing | Then::Activate(_) => None,
    };
    let activation = match work.then {
        Then::Activate(step) => rows::pointwise(&program.steps[step], frame.call.precision),
        Then::Nothing | Then::AddNorm { .. } => None,
    };
    let tasks = tasks(frame, first, &products, k, norm.is_some());
    let (isa, index) = (frame.isa, frame.index);
    let input = frame.buffers[x.0 as usize].as_slice();
    let pass = Pass { isa, index, input, k, products, work, activation };
    let scratch = &mut *frame.scratch;
    if work.hands_over {
        let rows = outs[0].len() / pass.products[0].n.max(1);
        scratch.handed[1].resize(isa, rows, pass.products[0].n);
    }
    let ended = slices.each(tasks, |task| {
        match task {
            Task::Shrink(rows) => pass.shrink(&rows, scratch),
            Task::Panels { rows, product, panels } => pass.panels(&rows, product, panels, scratch, &mut outs[product]),
            Task::Norm(rows) => {
                let width = pass.products[0].n;
                if let Some(norm) = &norm {
                    norm.add(isa, rows, &outs[0], sums, width);
                }
            }
        }
        Ok(())
    })?;
    if ended == Ended::Yes && work.hands_over {
        scratch.handed.swap(0, 1);
    }
    Ok(ended)
}

fn tasks(frame: &Frame<'_>, step: &Step, products: &[Product<'_>], k: usize, norm: bool) -> Vec<Task> {
    let mut tasks = Vec::new();
    for rows in frame.pieces(step, CHUNK) {
        if products.iter().flat_map(|p| &p.updates).any(|u| u.within(&rows).is_some()) {
            tasks.push(Task::Shrink(rows.clone()));
        }
        // Whole blocks of columns, as far as that keeps a task short: rounding for the next layer wants them.
        let panels = (TASK / (rows.len() * k * LANES).max(1)).max(1).next_multiple_of(BLOCK_PANELS);
        for (product, own) in products.iter().enumerate() {
            let all = 0..own.n.div_ceil(LANES);
            tasks.extend(cut(all, panels).map(|panels| Task::Panels { rows: rows.clone(), product, panels }));
        }
        if norm {
            tasks.push(Task::Norm(rows));
        }
    }
    tasks
}

/// The step's rows, cut where a row's own weight or bias begins or ends.
fn groups<'a>(frame: &Frame<'a>, step: &Step, shared: Option<&'a [f32]>) -> Result<Vec<Group<'a>>> {
    let StepKind::Linear { weight, replaced, .. } = step.kind else { return Ok(Vec::new()) };
    let base = weight.map(|id| frame.store.panels(id)).transpose()?;
    let missing = || Error::Program("a row without weights in a linear layer".into());
    let segments = replaced.map_or(&[][..], |t| frame.segments(t));
    let mut out = Vec::new();
    for range in frame.scope(step) {
        let mut at = range.start;
        for segment in segments.iter().filter(|s| s.range.end > range.start && s.range.start < range.end) {
            let own = segment.range.start.max(range.start)..segment.range.end.min(range.end);
            if at < own.start {
                out.push(Group { rows: at..own.start, weight: base.ok_or_else(missing)?, bias: shared });
            }
            at = own.end;
            let (Op::ReplaceLinear(dense), Own::Linear(packed)) = frame.op(segment)? else {
                return Err(wrong_payload());
            };
            let weight = packed.as_ref().or(base).ok_or_else(missing)?;
            out.push(Group { rows: own, weight, bias: dense.bias.as_deref().or(shared) });
        }
        if at < range.end {
            out.push(Group { rows: at..range.end, weight: base.ok_or_else(missing)?, bias: shared });
        }
    }
    Ok(out)
}

/// What of `a` is in `b` too, when there is anything.
pub(crate) fn overlap(a: &Range<usize>, b: &Range<usize>) -> Option<Range<usize>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

/// Puts the biases of `panels` into `out`, zeros where there are none.
fn padded(out: &mut Vec<f32>, bias: Option<&[f32]>, panels: &Range<usize>, n: usize) {
    out.clear();
    out.resize(panels.len() * LANES, 0.0);
    if let Some(bias) = bias {
        let own = &bias[panels.start * LANES..n.min(panels.end * LANES)];
        out[..own.len()].copy_from_slice(own);
    }
}

impl Pass<'_> {
    fn rows(&self, rows: &Range<usize>) -> Rows<'_> {
        let (k, count) = (self.k, rows.len());
        Rows { values: &self.input[rows.start * k..rows.end * k], stride: k, count, width: k }
    }

    #[allow(clippy::modulo_one, reason = "a group has one row in some builds")]
    fn shrink(&self, rows: &Range<usize>, scratch: &mut Scratch) {
        let Scratch { hidden, panels, bias, quantized, even, tile, .. } = scratch;
        hidden.clear();
        for (product, update) in self.products.iter().flat_map(|p| p.updates.iter().map(move |u| (p, u))) {
            let Some(own) = update.within(rows) else { continue };
            if !(product.even && update.even) {
                update.shrink(self.isa, self.rows(&own), hidden, panels, bias);
                continue;
            }
            // The codes that the products read, too; they are read by whole groups of rows.
            quantized.of(self.isa, (self.index, rows.clone()), self.rows(rows));
            let (start, end) = (own.start - rows.start, own.end - rows.start);
            let lead = start % SIDE;
            let codes = quantized.rows(self.isa, &(start - lead..end));
            update.shrink_even(self.isa, (codes, lead), hidden, even, tile);
        }
    }

    /// The columns of `panels` for `rows`, with updates and activation, to where they belong.
    fn panels(&self, rows: &Range<usize>, index: usize, panels: Range<usize>, scratch: &mut Scratch, y: &mut [f32]) {
        let product = &self.products[index];
        let (n, width) = (product.n, panels.len() * LANES);
        let (first, last) = (panels.start * LANES, n.min(panels.end * LANES));
        let direct = self.activation.is_none() && first + width <= n;
        // Scratch is borrowed piece by piece below.
        let mut tile = std::mem::take(&mut scratch.tile);
        let mut target = if direct {
            Target { values: &mut y[rows.start * n + first..(rows.end - 1) * n + first + width], stride: n }
        } else {
            tile.resize(rows.len() * width, 0.0);
            Target { values: &mut tile, stride: width }
        };
        for group in &product.groups {
            if let Some(own) = overlap(&group.rows, rows) {
                let target = &mut target.from(own.start - rows.start);
                self.product(group, &own, rows, product.rounding, &panels, scratch, target);
            }
        }
        self.expand(rows, index, &panels, scratch, &mut target);
        if !direct {
            if let Some(f) = self.activation {
                f.run(self.isa, &mut tile);
            }
            let x = Rows { values: &tile, stride: width, count: rows.len(), width: last - first };
            if self.work.hands_over {
                scratch.handed[1].put(self.isa, rows.start, first, x);
            } else {
                for (y, tile) in y[rows.start * n..rows.end * n].chunks_exact_mut(n).zip(tile.chunks_exact(width)) {
                    y[first..last].copy_from_slice(&tile[..last - first]);
                }
            }
        }
        scratch.tile = tile;
    }

    /// Adds the low-rank updates of layer `index`.
    fn expand(
        &self,
        rows: &Range<usize>,
        index: usize,
        panels: &Range<usize>,
        scratch: &mut Scratch,
        target: &mut Target<'_>,
    ) {
        let Scratch { hidden, panels: decoded, .. } = scratch;
        let mut hidden = hidden.as_slice();
        for (product, update) in
            self.products.iter().enumerate().flat_map(|(i, p)| p.updates.iter().map(move |u| (i, u)))
        {
            let Some(own) = update.within(rows) else { continue };
            let (mine, rest) = hidden.split_at(update.hidden(own.len()));
            hidden = rest;
            if product == index {
                update.expand(self.isa, own.len(), mine, panels, decoded, &mut target.from(own.start - rows.start));
            }
        }
    }

    /// A group's rows by panels of its weight.
    #[allow(clippy::too_many_arguments, reason = "one caller; a struct would only name the same things twice")]
    fn product(
        &self,
        group: &Group<'_>,
        own: &Range<usize>,
        chunk: &Range<usize>,
        rounding: Rounding,
        panels: &Range<usize>,
        scratch: &mut Scratch,
        target: &mut Target<'_>,
    ) {
        let Scratch { handed, quantized, rest, words, bias, panels: decoded, .. } = scratch;
        let (weight, isa) = (group.weight, self.isa);
        padded(bias, group.bias, panels, weight.rows);
        if rounding == Rounding::No || !weight.is_quantized() {
            for (at, pair) in cut(panels.clone(), 2).enumerate() {
                let weights = decode::panels(isa, weight, pair.clone(), decoded);
                let bias = &bias[at * 2 * LANES..][..pair.len() * LANES];
                isa.gemm(self.rows(own), weights, bias, &mut target.columns(at * 2 * LANES));
            }
            return;
        }
        let x: Codes<'_> = if self.work.takes {
            debug_assert_eq!(own, chunk, "codes are handed over only where no row has weights of its own");
            handed[0].rows(isa, chunk)
        } else {
            quantized.of(isa, (self.index, own.clone()), self.rows(own))
        };
        let rest = (rounding == Rounding::Twice).then(|| rest.rest_of(isa, (self.index, own.clone()), self.rows(own)));
        for own in cut(panels.clone(), isa.abreast()) {
            let at = (own.start - panels.start) * LANES;
            let bias = &bias[at..][..own.len() * LANES];
            let Some(coded) = decode::coded(isa, weight, own, words) else { return };
            let target = &mut target.columns(at);
            isa.gemm_codes(x, coded, Some(bias), target);
            if let Some(rest) = rest {
                isa.gemm_codes(rest, coded, None, target);
            }
        }
    }
}

const _: () = assert!(CHUNK.is_multiple_of(SIDE), "a chunk is whole groups of rows");
