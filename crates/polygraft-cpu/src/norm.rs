//! Layer norm, and division by the L2 norm.

use crate::kernels::Isa;
use crate::pack::LANES;
use crate::run::{Frame, wrong_payload};
use crate::slices::{Ended, Slices};
use polygraft::Result;
use polygraft::ir::Op;
use polygraft::program::{Step, StepKind};

/// Rows of a task.
const CHUNK: usize = 64;

pub(crate) fn layer_norm(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::LayerNorm { x, out, gamma, beta, eps_bits, replaced } = step.kind else { return Ok(Ended::Yes) };
    let (width, eps) = (frame.width(out), f32::from_bits(eps_bits));
    let base = |id: Option<_>| id.map(|id| frame.store.vector(id, width)).transpose();
    let (gamma, beta) = (base(gamma)?.unwrap_or_default(), base(beta)?.unwrap_or_default());
    let segments = replaced.map_or(&[][..], |t| frame.segments(t));
    let input = (x != out).then(|| frame.buffers[x.0 as usize].as_slice());
    slices.each(frame.pieces(step, CHUNK), |rows| {
        for t in rows {
            let (mut g, mut b) = (&*gamma, &*beta);
            if let Some(segment) = segments.iter().find(|s| s.range.contains(&t)) {
                let (Op::ReplaceNorm(own), _) = frame.op(segment)? else { return Err(wrong_payload()) };
                g = own.gamma.as_deref().unwrap_or(g);
                b = own.beta.as_deref().unwrap_or(b);
            }
            let y = &mut y[t * width..(t + 1) * width];
            if let Some(input) = input {
                y.copy_from_slice(&input[t * width..(t + 1) * width]);
            }
            row(frame.isa, y, g, b, eps);
        }
        Ok(())
    })
}

/// One row, in place. The mean is taken in f64 and subtracted before squaring: a row that is far from zero keeps its
/// small differences.
fn row(isa: Isa, x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    isa.vectorize(|| {
        let n = x.len() as f64;
        let mut sums = [0.0f64; LANES];
        for chunk in x.chunks(LANES) {
            sums.iter_mut().zip(chunk).for_each(|(s, &x)| *s += f64::from(x));
        }
        let mean = sums.iter().sum::<f64>() / n;
        let mut squares = [0.0f32; LANES];
        for chunk in x.chunks_mut(LANES) {
            for (x, square) in chunk.iter_mut().zip(&mut squares) {
                *x = (f64::from(*x) - mean) as f32;
                *square += *x * *x;
            }
        }
        let variance = squares.iter().map(|&s| f64::from(s)).sum::<f64>() / n;
        let inverse = (1.0 / (variance + f64::from(eps)).sqrt()) as f32;
        for ((x, g), b) in x.iter_mut().zip(gamma).zip(beta) {
            *x = *x * inverse * g + b;
        }
    });
}

pub(crate) fn normalize(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Normalize { x } = step.kind else { return Ok(Ended::Yes) };
    let width = frame.width(x);
    slices.each(frame.pieces(step, CHUNK), |rows| {
        y[rows.start * width..rows.end * width].chunks_exact_mut(width).for_each(polygraft::steps::normalize);
        Ok(())
    })
}
