//! Interventions on a layer's output at the first and last positions of a row (ReFT).

use super::block::by_row;
use super::{Machine, Weights, dot, wrong_payload};
use crate::error::Result;
use crate::ir::{Op, Reft, ReftUnit};
use crate::program::{Extent, Step, StepKind};

pub(super) fn eval<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Reft { x, table } = step.kind else { return Ok(()) };
    let width = m.width(x);
    let mut y = m.take(x);
    for segment in m.segments(table) {
        let Op::Reft(own) = m.op(segment)? else { return Err(wrong_payload()) };
        for part in by_row(m.tables, Extent::Tokens, segment.range.clone()) {
            reft(own, segment.scale, &mut y[part.start * width..part.end * width], width);
        }
    }
    m.put(x, y);
    Ok(())
}

/// Intervenes in `x`, the tokens of one row, in place. Both units read the states as they came.
pub fn reft(own: &Reft, scale: f32, x: &mut [f32], width: usize) {
    let n = x.len() / width;
    let last = own.last.as_ref().unwrap_or(&own.first);
    let Some((heads, tails)) = own.positions(n) else {
        return short(own, scale, x, width, (own.prefix as usize).min(n), last);
    };
    let heads = heads.into_iter().flatten().map(|t| (t, &own.first));
    for (t, unit) in heads.chain(tails.map(|t| (t, last))) {
        intervene(own, unit, scale, &mut x[t * width..(t + 1) * width]);
    }
}

/// A row shorter than the suffix: the library puts what it made of the prefix and of the suffix one after the other and
/// takes as many from the end as the suffix is long, so that results land on positions that they were not made from.
fn short(own: &Reft, scale: f32, x: &mut [f32], width: usize, prefix: usize, last: &ReftUnit) {
    let n = x.len() / width;
    let states = x.to_vec();
    let start = (prefix + n).saturating_sub(own.suffix as usize);
    for (t, x) in x.chunks_exact_mut(width).enumerate() {
        let from = start + t;
        let (from, unit) = if from < prefix { (from, &own.first) } else { (from - prefix, last) };
        let mut made = states[from * width..(from + 1) * width].to_vec();
        intervene(own, unit, 1.0, &mut made);
        x.iter_mut().zip(&made).for_each(|(x, m)| *x += scale * (m - *x));
    }
}

fn intervene(own: &Reft, unit: &ReftUnit, scale: f32, x: &mut [f32]) {
    let width = x.len();
    let (w, r) = (unit.source.to_f32(), unit.projection.to_f32());
    let source = w.chunks_exact(width).zip(&unit.bias).map(|(w, b)| own.activation.eval(dot(w, x) + b));
    let moved: Vec<f32> = source
        .zip(r.chunks_exact(width))
        .map(|(s, r)| scale * (s - if own.subtract { dot(r, x) } else { 0.0 }))
        .collect();
    for (m, r) in moved.iter().zip(r.chunks_exact(width)) {
        x.iter_mut().zip(r).for_each(|(x, r)| *x += m * r);
    }
}
