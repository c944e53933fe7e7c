//! Steps that move or change rows one by one: embed, add, copy, activate, gate, offset, pool.

use crate::failed;
use crate::kernels::Isa;
use crate::math;
use crate::run::{Frame, wrong_payload};
use crate::slices::{Ended, Slices};
use polygraft::Result;
use polygraft::backend::Precision;
use polygraft::ir::Op;
use polygraft::model::{Activation, EmbeddingWeights, Pooling};
use polygraft::program::{Step, StepKind};
use polygraft::steps::embed_token;

/// Rows of a task.
const CHUNK: usize = 64;

pub(crate) fn embed(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Embed { out, word, position, token_type } = step.kind else { return Ok(Ended::Yes) };
    let (width, tables) = (frame.width(out), frame.tables());
    let weights = EmbeddingWeights { word, position, token_type };
    let mut row = vec![0.0; width];
    let embedded = tables.embedded.as_deref();
    slices.each(frame.pieces(step, CHUNK), |tokens| {
        if let Some(rows) = embedded {
            let span = tokens.start * width..tokens.end * width;
            y[span.clone()].copy_from_slice(&rows[span]);
            return Ok(());
        }
        for t in tokens {
            let y = &mut y[t * width..(t + 1) * width];
            embed_token(weights, tables.embedding(t), y, &mut row, |id, row, out| frame.store.row(id, row, out))?;
        }
        Ok(())
    })
}

/// The call's patches are there already.
pub(crate) fn patches(frame: &Frame<'_>, y: &mut [f32]) -> Result<Ended> {
    let pixels = frame.tables().pixels.as_deref().filter(|p| p.len() == y.len());
    y.copy_from_slice(pixels.ok_or_else(|| failed("patches without images".into()))?);
    Ok(Ended::Yes)
}

pub(crate) fn add(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Add { a, b, out } = step.kind else { return Ok(Ended::Yes) };
    let width = frame.width(out);
    // The target is not in the list of buffers while it is written: an operand that is the target is read from it.
    let [a, b] = [a, b].map(|id| (id != out).then(|| frame.buffers[id.0 as usize].as_slice()));
    slices.each(frame.pieces(step, CHUNK), |rows| {
        let span = rows.start * width..rows.end * width;
        let y = &mut y[span.clone()];
        frame.isa.vectorize(|| match (a, b) {
            (Some(a), Some(b)) => {
                y.iter_mut().zip(&a[span.clone()]).zip(&b[span]).for_each(|((y, a), b)| *y = a + b);
            }
            (Some(other), None) | (None, Some(other)) => {
                y.iter_mut().zip(&other[span]).for_each(|(y, x)| *y += x);
            }
            (None, None) => y.iter_mut().for_each(|y| *y += *y),
        });
        Ok(())
    })
}

pub(crate) fn copy(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Copy { x, first, out } = step.kind else { return Ok(Ended::Yes) };
    let (stride, width, x) = (frame.width(x), frame.width(out), &frame.buffers[x.0 as usize]);
    slices.each(frame.pieces(step, CHUNK), |rows| {
        for t in rows {
            y[t * width..(t + 1) * width].copy_from_slice(&x[t * stride + first..][..width]);
        }
        Ok(())
    })
}

pub(crate) fn gate(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Gate { x, out, function } = step.kind else { return Ok(Ended::Yes) };
    let (width, function) = (frame.width(out), close(function, frame.call.precision));
    let x = &frame.buffers[x.0 as usize];
    slices.each(frame.pieces(step, CHUNK), |rows| {
        for t in rows {
            let (x, by) = x[2 * t * width..2 * (t + 1) * width].split_at(width);
            let y = &mut y[t * width..(t + 1) * width];
            y.copy_from_slice(x);
            function.run(frame.isa, y);
            frame.isa.vectorize(|| y.iter_mut().zip(by).for_each(|(y, by)| *y *= by));
        }
        Ok(())
    })
}

/// A pointwise function as it is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pointwise {
    /// By its definition, to the last few bits.
    Close(Activation),
    /// GELU for outputs that are rounded to 8 bits afterwards.
    FastGelu,
}

/// How the step's function is computed; `None` when there is nothing to compute.
pub(crate) fn pointwise(step: &Step, precision: Precision) -> Option<Pointwise> {
    let StepKind::Activate { function, .. } = step.kind else { return None };
    Some(close(function, precision))
}

fn close(function: Activation, precision: Precision) -> Pointwise {
    match (function, precision) {
        (Activation::Gelu, Precision::Fast) => Pointwise::FastGelu,
        (function, _) => Pointwise::Close(function),
    }
}

impl Pointwise {
    pub(crate) fn run(self, isa: Isa, y: &mut [f32]) {
        isa.vectorize(|| match self {
            Self::FastGelu => isa.gelu_fast(y),
            Self::Close(Activation::Gelu) => y.iter_mut().for_each(|x| *x = math::gelu(*x)),
            Self::Close(Activation::GeluTanh) => y.iter_mut().for_each(|x| *x = math::gelu_tanh(*x)),
            Self::Close(Activation::Relu) => y.iter_mut().for_each(|x| *x = x.max(0.0)),
            Self::Close(Activation::Silu) => y.iter_mut().for_each(|x| *x *= math::sigmoid(*x)),
            Self::Close(Activation::Tanh) => y.iter_mut().for_each(|x| *x = math::tanh(*x)),
            Self::Close(Activation::Sigmoid) => y.iter_mut().for_each(|x| *x = math::sigmoid(*x)),
            Self::Close(Activation::Identity) => {}
            Self::Close(rare) => y.iter_mut().for_each(|x| *x = rare.eval(*x)),
        });
    }
}

pub(crate) fn activate(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Activate { x, .. } = step.kind else { return Ok(Ended::Yes) };
    let Some(function) = pointwise(step, frame.call.precision) else { return Ok(Ended::Yes) };
    let width = frame.width(x);
    slices.each(frame.pieces(step, CHUNK), |rows| {
        function.run(frame.isa, &mut y[rows.start * width..rows.end * width]);
        Ok(())
    })
}

pub(crate) fn offset(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Offset { x, table } = step.kind else { return Ok(Ended::Yes) };
    let width = frame.width(x);
    slices.each(frame.segments(table), |segment| {
        let (Op::Offset(own), _) = frame.op(segment)? else { return Err(wrong_payload()) };
        for row in segment.range.clone() {
            polygraft::steps::offset(&mut y[row * width..(row + 1) * width], &own.vector, segment.scale);
        }
        Ok(())
    })
}

pub(crate) fn pool(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Pool { x, out, pooling } = step.kind else { return Ok(Ended::Yes) };
    let (width, tables) = (frame.width(out), frame.tables());
    let input = &frame.buffers[x.0 as usize];
    slices.each(frame.pieces(step, 1), |rows| {
        for row in rows {
            let span = tables.row(row);
            let tokens = &input[span.start * width..span.end * width];
            let y = &mut y[row * width..(row + 1) * width];
            frame.isa.vectorize(|| pool_row(pooling, tokens, y));
        }
        Ok(())
    })
}

#[inline(always)]
fn pool_row(pooling: Pooling, tokens: &[f32], y: &mut [f32]) {
    let width = y.len();
    match pooling {
        Pooling::Cls => y.copy_from_slice(&tokens[..width]),
        Pooling::Last => y.copy_from_slice(&tokens[tokens.len() - width..]),
        Pooling::Max => {
            y.fill(f32::NEG_INFINITY);
            tokens.chunks_exact(width).for_each(|t| y.iter_mut().zip(t).for_each(|(y, &x)| *y = y.max(x)));
        }
        Pooling::Mean | Pooling::MeanSqrtLen => {
            let n = (tokens.len() / width) as f32;
            let divisor = if pooling == Pooling::Mean { n } else { n.sqrt() };
            y.fill(0.0);
            tokens.chunks_exact(width).for_each(|t| y.iter_mut().zip(t).for_each(|(y, &x)| *y += x));
            y.iter_mut().for_each(|y| *y /= divisor);
        }
    }
}
