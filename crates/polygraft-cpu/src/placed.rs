//! Attention that knows of places: a window, a bias by distance, products with embeddings of relative positions. In f32,
//! whatever the precision, a head of a row at a time.

use crate::attention::{Heads, Task, pack_keys};
use crate::kernels::{Isa, Rows, Target};
use crate::pack::LANES;
use crate::run::{Frame, cut};
use crate::slices::{Ended, Slices};
use polygraft::program::{Relative, RelativeBuffers, Step, StepKind};
use polygraft::steps::prefixed;
use polygraft::{Error, Result};
use std::ops::Range;

/// Products with relative positions, for one head of one row.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    panels: Vec<f32>,
    zeros: Vec<f32>,
    /// `[query][place, padded]`.
    by_key: Vec<f32>,
    /// `[key][place, padded]`.
    by_query: Vec<f32>,
}

/// Queries of a task where a window lets keys be left out.
const WINDOW_QUERIES: usize = 64;

/// A product that weighs nothing, and is still a number to every kernel.
const UNSEEN: f32 = -1e30;

/// What relative positions give: buffers, and the places in them.
#[derive(Clone, Copy)]
struct Terms<'a> {
    relative: &'a Relative,
    bias: Option<&'a [f32]>,
    keys: Option<&'a [f32]>,
    queries: Option<&'a [f32]>,
}

/// One row: its tokens, and its keys with those in front.
struct Row<'a> {
    index: usize,
    tokens: Range<usize>,
    k: &'a [f32],
    v: &'a [f32],
    /// Where the row's own keys begin in `k`.
    first: usize,
    /// Keys in front of them.
    slots: usize,
}

pub(crate) fn attention(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Attention { q, k, v, out, heads, scale_bits, prefix, window, relative } = step.kind else {
        return Ok(Ended::Yes);
    };
    let (width, tables, isa) = (frame.width(out), frame.tables(), frame.isa);
    let (d, scale) = (width / heads, f32::from_bits(scale_bits));
    let buffers = &frame.buffers[..];
    let read = |id: polygraft::program::BufferId| buffers[id.0 as usize].as_slice();
    let [q, k, v] = [q, k, v].map(read);
    let terms = relative.map(|RelativeBuffers { bias, keys, queries }| {
        let relative = tables.relative.as_ref().ok_or_else(|| Error::Program("a call without its positions".into()))?;
        Ok(Terms { relative, bias: bias.map(read), keys: keys.map(read), queries: queries.map(read) })
    });
    let terms = terms.transpose()?;
    let mut longer = Vec::new();
    for row in (0..tables.rows()).map(|row| tables.row(row)) {
        longer.push(match prefix {
            Some(p) => prefixed(tables, p, &row, [read(p.x), k, v], width)?,
            None => None,
        });
    }
    // A window leaves out most keys of a long row; products with positions are made once for all queries.
    let queries =
        if terms.is_none_or(|t| t.keys.is_none() && t.queries.is_none()) { WINDOW_QUERIES } else { usize::MAX };
    let tasks = (0..tables.rows()).flat_map(|index| {
        let row = tables.row(index);
        (0..heads).flat_map(move |head| cut(row.clone(), queries.min(row.len())).map(move |q| (index, head, q)))
    });
    let scratch = &mut frame.scratch.heads;
    slices.each(tasks, |(index, head, queries)| {
        let tokens = tables.row(index);
        let row = match &longer[index] {
            Some([k, v]) => {
                let slots = k.len() / width - tokens.len();
                Row { index, tokens, k, v, first: slots, slots }
            }
            None => Row { index, first: tokens.start, tokens, k, v, slots: 0 },
        };
        let task = Task { keys: row.keys(&queries, window), head, queries };
        scratch.products(isa, &task, [q, row.k, row.v], width, d);
        let stride = task.keys.len().div_ceil(LANES) * LANES;
        if let Some(terms) = terms {
            terms.add(isa, &row, &task, q, [width, d, heads], scale, scratch);
        } else {
            isa.vectorize(|| scratch.scores.iter_mut().for_each(|s| *s *= scale));
        }
        if let Some(window) = window {
            row.mask(&task, window as usize, stride, &mut scratch.scores);
        }
        scratch.weigh(isa, &task, width, d, 1.0, y);
        Ok(())
    })
}

impl Row<'_> {
    /// The keys that `queries` see, in `k`.
    fn keys(&self, queries: &Range<usize>, window: Option<u32>) -> Range<usize> {
        let whole = self.first - self.slots..self.first + self.tokens.len();
        let Some(window) = window.filter(|_| self.slots == 0) else { return whole };
        let [start, end] = [queries.start, queries.end].map(|t| t - self.tokens.start);
        let near = start.saturating_sub(window as usize)..(end + window as usize).min(self.tokens.len());
        self.first + near.start..self.first + near.end
    }

    /// Takes away what is outside the window.
    fn mask(&self, task: &Task, window: usize, stride: usize, scores: &mut [f32]) {
        for (t, scores) in task.queries.clone().zip(scores.chunks_exact_mut(stride)) {
            let query = t - self.tokens.start;
            for (at, score) in task.keys.clone().zip(scores) {
                if at >= self.first && query.abs_diff(at - self.first) > window {
                    *score = UNSEEN;
                }
            }
        }
    }
}

impl Terms<'_> {
    /// Scales the products and adds what positions give.
    #[allow(clippy::too_many_arguments, reason = "the step's own operands")]
    fn add(
        &self,
        isa: Isa,
        row: &Row<'_>,
        task: &Task,
        q: &[f32],
        [width, d, heads]: [usize; 3],
        scale: f32,
        scratch: &mut Heads,
    ) {
        let Heads { scores, placed, .. } = scratch;
        let stride = task.keys.len().div_ceil(LANES) * LANES;
        let own = row.first - (task.keys.start.min(row.first))..task.keys.end - task.keys.start;
        let first = task.keys.start.max(row.first);
        let place = |t: usize, key: usize| self.relative.place(row.index, t - row.tokens.start, key - row.first);
        // Only the places that this row's distances have.
        let near = [row.tokens.len() - 1, 0].map(|i| self.relative.place(row.index, i, row.tokens.len() - 1 - i));
        let range = near[0].min(near[1])..near[0].max(near[1]) + 1;
        let range = if self.bias.is_some() { 0..0 } else { range };
        let p_stride = range.len().div_ceil(LANES) * LANES;
        let columns = task.head * d..(task.head + 1) * d;
        let queries = Rows {
            values: &q[task.queries.start * width + columns.start..],
            stride: width,
            count: task.queries.len(),
            width: d,
        };
        let keys = Rows { values: &row.k[first * width + columns.start..], stride: width, count: own.len(), width: d };
        let Scratch { panels, zeros, by_key, by_query } = placed;
        zeros.resize(zeros.len().max(p_stride), 0.0);
        for (rows, positions, out) in [(queries, self.keys, &mut *by_key), (keys, self.queries, &mut *by_query)] {
            let Some(positions) = positions else { continue };
            panels.clear();
            pack_keys(isa, &range, positions, width, columns.clone(), panels);
            out.resize(rows.count * p_stride, 0.0);
            isa.gemm(rows, panels, &zeros[..p_stride], &mut Target { values: out, stride: p_stride });
        }
        for (i, (t, scores)) in task.queries.clone().zip(scores.chunks_exact_mut(stride)).enumerate() {
            scores.iter_mut().for_each(|s| *s *= scale);
            for (j, score) in scores[own.clone()].iter_mut().enumerate() {
                let p = place(t, first + j);
                if let Some(bias) = self.bias {
                    *score += bias[p * heads + task.head];
                    continue;
                }
                let mut term = 0.0;
                if self.keys.is_some() {
                    term += by_key[i * p_stride + p - range.start];
                }
                if self.queries.is_some() {
                    term += by_query[j * p_stride + p - range.start];
                }
                *score += term * scale;
            }
        }
    }
}
