//! Add, activate, gate, copy, and the offset of a pooled vector.

use super::{Machine, Weights, wrong_payload};
use crate::error::Result;
use crate::ir::Op;
use crate::program::{Step, StepKind};

pub(super) fn add<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Add { a, b, out } = step.kind else { return Ok(()) };
    let width = m.width(out);
    let (a, b) = (m.read(a).to_vec(), m.read(b).to_vec());
    let mut y = m.take(out);
    for t in m.scope(step, out) {
        for i in t * width..(t + 1) * width {
            y[i] = a[i] + b[i];
        }
    }
    m.put(out, y);
    Ok(())
}

pub(super) fn copy<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Copy { x, first, out } = step.kind else { return Ok(()) };
    let (stride, width) = (m.width(x), m.width(out));
    let mut y = m.take(out);
    for t in m.scope(step, out) {
        y[t * width..(t + 1) * width].copy_from_slice(&m.read(x)[t * stride + first..][..width]);
    }
    m.put(out, y);
    Ok(())
}

pub(super) fn gate<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Gate { x, out, function } = step.kind else { return Ok(()) };
    let width = m.width(out);
    let mut y = m.take(out);
    for t in m.scope(step, out) {
        let (x, by) = m.read(x)[2 * t * width..2 * (t + 1) * width].split_at(width);
        for (y, (x, by)) in y[t * width..(t + 1) * width].iter_mut().zip(x.iter().zip(by)) {
            *y = function.eval(*x) * by;
        }
    }
    m.put(out, y);
    Ok(())
}

pub(super) fn insert<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Insert { x, table } = step.kind else { return Ok(()) };
    let width = m.width(x);
    let mut y = m.take(x);
    for segment in m.segments(table) {
        let Op::Prompt(prompt) = m.op(segment)? else { return Err(wrong_payload()) };
        // Rows that stand together share a segment: each begins with the first vector.
        for (at, t) in segment.range.clone().enumerate() {
            prompt.vectors.decode_row(at % prompt.vectors.rows(), &mut y[t * width..(t + 1) * width]);
        }
    }
    m.put(x, y);
    Ok(())
}

pub(super) fn activate<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Activate { x, function } = step.kind else { return Ok(()) };
    let width = m.width(x);
    let mut y = m.take(x);
    for t in m.scope(step, x) {
        y[t * width..(t + 1) * width].iter_mut().for_each(|x| *x = function.eval(*x));
    }
    m.put(x, y);
    Ok(())
}

pub(super) fn eval_offset<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Offset { x, table } = step.kind else { return Ok(()) };
    let width = m.width(x);
    let mut y = m.take(x);
    for segment in m.segments(table) {
        let Op::Offset(own) = m.op(segment)? else { return Err(wrong_payload()) };
        for row in segment.range.clone() {
            offset(&mut y[row * width..(row + 1) * width], &own.vector, segment.scale);
        }
    }
    m.put(x, y);
    Ok(())
}

/// `x += scale · vector`.
pub fn offset(x: &mut [f32], vector: &[f32], scale: f32) {
    x.iter_mut().zip(vector).for_each(|(x, v)| *x += scale * v);
}
