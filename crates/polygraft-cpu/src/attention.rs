//! Softmax attention, one head of one row at a time, over that row's keys only.
//!
//! Keys and values are brought into panels, so that both products run on the same kernel as a linear layer. Where there is
//! a kernel on integers, steps that may round run on that.

use crate::kernels::{Attention, Coded, Isa, Rows, Target};
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use crate::math::exp;
use crate::pack::LANES;
use crate::placed;
use crate::run::{Frame, cut};
use crate::slices::{Ended, Slices, TASK};
use polygraft::Result;
use polygraft::backend::Precision;
use polygraft::program::{Step, StepKind};
use polygraft::steps::prefixed;
use std::ops::Range;

/// Scratch for one head of one row.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// `[panel of keys][dimension][lane]`.
    keys: Vec<f32>,
    /// `[panel of dimensions][key][lane]`.
    values: Vec<f32>,
    /// `[query][key, padded]`: products, then weights.
    pub(crate) scores: Vec<f32>,
    /// `1 / Σ weights`, a query.
    inverses: Vec<f32>,
    /// `[query][dimension, padded]`.
    context: Vec<f32>,
    /// Zeros, as the kernel's bias.
    zeros: Vec<f32>,
    /// Products with relative positions.
    pub(crate) placed: placed::Scratch,
    coded: Coded,
}

/// One head of one row for some of its queries.
pub(crate) struct Task {
    pub(crate) keys: Range<usize>,
    pub(crate) head: usize,
    pub(crate) queries: Range<usize>,
}

pub(crate) fn attention(
    frame: &mut Frame<'_>,
    place: usize,
    step: &Step,
    y: &mut [f32],
    slices: &mut Slices<'_>,
) -> Result<Ended> {
    let StepKind::Attention { q, k, v, out, heads, scale_bits, prefix, window, relative } = step.kind else {
        return Ok(Ended::Yes);
    };
    if window.is_some() || relative.is_some() {
        return placed::attention(frame, step, y, slices);
    }
    let (width, tables) = (frame.width(out), frame.tables());
    let d = width / heads;
    let [q, k, v] = [q, k, v].map(|id| frame.buffers[id.0 as usize].as_slice());
    // Keys and values of rows that have more of them than tokens; few rows do.
    let mut longer = Vec::new();
    for row in (0..tables.rows()).map(|row| tables.row(row)) {
        longer.push(match prefix {
            Some(p) => prefixed(tables, p, &row, [&frame.buffers[p.x.0 as usize], k, v], width)?,
            None => None,
        });
    }
    let tasks = (0..tables.rows()).flat_map(|index| {
        let row = tables.row(index);
        let keys = longer[index].as_ref().map_or(row.clone(), |[k, _]| 0..k.len() / width);
        // Packing keys and values must stay cheap beside the products.
        let queries = (TASK / (2 * d * keys.len()).max(1)).max(16);
        (0..heads).flat_map(move |head| {
            let keys = keys.clone();
            cut(row.clone(), queries).map(move |queries| (index, Task { keys: keys.clone(), head, queries }))
        })
    });
    let (rounds, isa, pass, scratch) = (rounds(frame, place), frame.isa, frame.index, &mut frame.scratch.heads);
    slices.each(tasks, |(index, task)| {
        let (k, v) = longer[index].as_ref().map_or((k, v), |[k, v]| (k, v));
        let [query, key] = [task.queries.start, task.keys.start].map(|row| row * width + task.head * d);
        let head = Attention {
            q: &q[query..],
            k: &k[key..],
            v: &v[key..],
            stride: width,
            width: d,
            queries: task.queries.len(),
            keys: task.keys.len(),
            scale: f32::from_bits(scale_bits),
            of: (pass, index, task.head),
        };
        if rounds && isa.attend(head, &mut scratch.coded, &mut y[query..]) {
            return Ok(());
        }
        scratch.run(isa, &task, [q, k, v], width, d, f32::from_bits(scale_bits), y);
        Ok(())
    })
}

/// Whether the step at `place` may round on its way. The first one only if it is little: that passes through all layers.
fn rounds(frame: &Frame<'_>, place: usize) -> bool {
    let first = frame.program().steps.iter().position(|s| matches!(s.kind, StepKind::Attention { .. }));
    let later = first.is_some_and(|first| first < place);
    frame.call.precision == Precision::Fast && (later || frame.isa.attends_closely())
}

impl Heads {
    #[allow(clippy::too_many_arguments, reason = "the step's own operands")]
    fn run(
        &mut self,
        isa: Isa,
        task: &Task,
        [q, k, v]: [&[f32]; 3],
        width: usize,
        d: usize,
        scale: f32,
        y: &mut [f32],
    ) {
        self.products(isa, task, [q, k, v], width, d);
        self.weigh(isa, task, width, d, scale, y);
    }

    /// Products of queries and keys, and the values in panels.
    pub(crate) fn products(&mut self, isa: Isa, task: &Task, [q, k, v]: [&[f32]; 3], width: usize, d: usize) {
        let (keys, count, first) = (task.keys.len(), task.queries.len(), task.head * d);
        let stride = keys.div_ceil(LANES) * LANES;
        self.zeros.resize(self.zeros.len().max(stride).max(d.div_ceil(LANES) * LANES), 0.0);
        if !(keys.is_multiple_of(LANES) && d.is_multiple_of(LANES)) {
            self.keys.clear();
            self.values.clear();
        }
        pack_keys(isa, &task.keys, k, width, first..first + d, &mut self.keys);
        pack_values(&task.keys, v, width, first..first + d, &mut self.values);
        self.scores.resize(count * stride, 0.0);
        let queries = Rows { values: &q[task.queries.start * width + first..], stride: width, count, width: d };
        isa.gemm(queries, &self.keys, &self.zeros[..stride], &mut Target { values: &mut self.scores, stride });
    }

    /// Softmax of the scores and the sum of values.
    pub(crate) fn weigh(&mut self, isa: Isa, task: &Task, width: usize, d: usize, scale: f32, y: &mut [f32]) {
        let (keys, count, first) = (task.keys.len(), task.queries.len(), task.head * d);
        let [stride, d_stride] = [keys, d].map(|n| n.div_ceil(LANES) * LANES);
        self.inverses.resize(count, 0.0);
        for (scores, inverse) in self.scores.chunks_exact_mut(stride).zip(&mut self.inverses) {
            *inverse = 1.0 / isa.softmax(&mut scores[..keys], scale);
        }
        self.context.resize(count * d_stride, 0.0);
        let weights = Rows { values: &self.scores, stride, count, width: keys };
        let target = &mut Target { values: &mut self.context, stride: d_stride };
        isa.gemm(weights, &self.values, &self.zeros[..d_stride], target);
        isa.vectorize(|| {
            let contexts = self.context.chunks_exact(d_stride).zip(&self.inverses);
            for (t, (context, inverse)) in task.queries.clone().zip(contexts) {
                let y = &mut y[t * width + first..][..d];
                y.iter_mut().zip(context).for_each(|(y, c)| *y = c * inverse);
            }
        });
    }
}

/// Brings a head's keys into panels. Lanes past the last stay as they are: zero, if `out` was cleared.
pub(crate) fn pack_keys(isa: Isa, row: &Range<usize>, k: &[f32], width: usize, head: Range<usize>, out: &mut Vec<f32>) {
    let (keys, d) = (row.len(), head.len());
    out.resize(keys.div_ceil(LANES) * LANES * d, 0.0);
    for (panel, rows) in cut(row.clone(), LANES).enumerate() {
        let panel = &mut out[panel * LANES * d..(panel + 1) * LANES * d];
        let own = &k[rows.start * width + head.start..];
        if rows.len() == LANES {
            isa.transpose(own, width, panel);
        } else {
            for (lane, own) in own.chunks(width).take(rows.len()).enumerate() {
                panel[lane..].iter_mut().step_by(LANES).zip(&own[..d]).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// Brings a head's values into panels, likewise.
fn pack_values(row: &Range<usize>, v: &[f32], width: usize, head: Range<usize>, out: &mut Vec<f32>) {
    let (keys, d) = (row.len(), head.len());
    out.resize(d.div_ceil(LANES) * LANES * keys, 0.0);
    for (at, t) in row.clone().enumerate() {
        // Arrays, not slices: a copy of unknown length is a call in WebAssembly.
        let (whole, rest) = v[t * width + head.start..][..d].as_chunks::<LANES>();
        for (panel, from) in whole.iter().enumerate() {
            if let Some(to) = out[(panel * keys + at) * LANES..].first_chunk_mut() {
                *to = *from;
            }
        }
        let to = &mut out[(whole.len() * keys + at) * LANES * usize::from(!rest.is_empty())..];
        to.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }
}

/// `exp(scale · x − peak)` in place; the sum.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline(always)]
pub(crate) fn softmax(x: &mut [f32], scale: f32) -> f32 {
    let mut peaks = [f32::NEG_INFINITY; LANES];
    for chunk in x.chunks_mut(LANES) {
        for (x, peak) in chunk.iter_mut().zip(&mut peaks) {
            *x *= scale;
            *peak = if *x > *peak { *x } else { *peak };
        }
    }
    let peak = peaks.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let mut sums = [0.0f32; LANES];
    for chunk in x.chunks_mut(LANES) {
        for (x, sum) in chunk.iter_mut().zip(&mut sums) {
            *x = exp(*x - peak);
            *sum += *x;
        }
    }
    sums.iter().sum()
}
