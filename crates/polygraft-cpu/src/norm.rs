//! Layer norm, and division by the L2 norm.

use crate::kernels::Isa;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use crate::pack::LANES;
use crate::run::{Frame, wrong_payload};
use crate::slices::{Ended, Slices};
use polygraft::ir::{self, Op};
use polygraft::program::{Step, StepKind};
use polygraft::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// Rows of a task.
const CHUNK: usize = 64;

/// A layer norm with the rows that bring their own scale or shift.
pub(crate) struct Norm<'a> {
    gamma: Cow<'a, [f32]>,
    beta: Cow<'a, [f32]>,
    eps: f32,
    /// Rows, then what of their own they have.
    replaced: Vec<(Range<usize>, &'a ir::Norm)>,
}

impl<'a> Norm<'a> {
    pub(crate) fn new(frame: &Frame<'a>, step: &Step) -> Result<Self> {
        let StepKind::LayerNorm { out, gamma, beta, eps_bits, replaced, .. } = step.kind else {
            return Err(Error::Program("a layer norm that is none".into()));
        };
        let width = frame.width(out);
        let base = |id: Option<_>| id.map(|id| frame.store.vector(id, width)).transpose();
        let own = replaced.map_or(&[][..], |t| frame.segments(t)).iter().map(|segment| {
            let (Op::ReplaceNorm(own), _) = frame.op(segment)? else { return Err(wrong_payload()) };
            Ok((segment.range.clone(), own))
        });
        Ok(Self {
            gamma: base(gamma)?.unwrap_or_default(),
            beta: base(beta)?.unwrap_or_else(|| vec![0.0; width].into()),
            eps: f32::from_bits(eps_bits),
            replaced: own.collect::<Result<_>>()?,
        })
    }

    /// Norms row `t`, in place, after adding `other` to it when there is one.
    fn row(&self, isa: Isa, t: usize, x: &mut [f32], other: Option<&[f32]>) {
        let own = self.replaced.iter().find(|(rows, _)| rows.contains(&t)).map(|(_, own)| own);
        let gamma = own.and_then(|o| o.gamma.as_deref()).unwrap_or(&self.gamma);
        let beta = own.and_then(|o| o.beta.as_deref()).unwrap_or(&self.beta);
        isa.norm(x, other, gamma, beta, self.eps);
    }

    /// `sums = norm(sums + branch)` for `rows`.
    pub(crate) fn add(&self, isa: Isa, rows: Range<usize>, branch: &[f32], sums: &mut [f32], width: usize) {
        for t in rows {
            let span = t * width..(t + 1) * width;
            self.row(isa, t, &mut sums[span.clone()], Some(&branch[span]));
        }
    }
}

pub(crate) fn layer_norm(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::LayerNorm { x, out, .. } = step.kind else { return Ok(Ended::Yes) };
    let (width, isa, norm) = (frame.width(out), frame.isa, Norm::new(frame, step)?);
    let input = (x != out).then(|| frame.buffers[x.0 as usize].as_slice());
    slices.each(frame.pieces(step, CHUNK), |rows| {
        for t in rows {
            let y = &mut y[t * width..(t + 1) * width];
            if let Some(input) = input {
                y.copy_from_slice(&input[t * width..(t + 1) * width]);
            }
            norm.row(isa, t, y, None);
        }
        Ok(())
    })
}

/// One row, in place. The mean is subtracted before squaring, and what rounding left of it is found on the way and taken
/// off as well: a row that is far from zero keeps its small differences.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline(always)]
pub(crate) fn norm(x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let n = x.len() as f32;
    let mut sums = [0.0f32; LANES];
    let (main, rest) = x.as_chunks::<LANES>();
    main.iter().for_each(|chunk| sums.iter_mut().zip(chunk).for_each(|(s, x)| *s += x));
    sums.iter_mut().zip(rest).for_each(|(s, x)| *s += x);
    let mean = total(sums) / n;
    let (mut sums, mut squares) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut center = |chunk: &mut [f32]| {
        for ((x, sum), square) in chunk.iter_mut().zip(&mut sums).zip(&mut squares) {
            *x -= mean;
            *sum += *x;
            *square += *x * *x;
        }
    };
    let (main, rest) = x.as_chunks_mut::<LANES>();
    main.iter_mut().for_each(|chunk| center(chunk));
    center(rest);
    let left = total(sums) / n;
    let variance = (total(squares) / n - left * left).max(0.0);
    let inverse = 1.0 / (variance + eps).sqrt();
    for ((x, g), b) in x.iter_mut().zip(gamma).zip(beta) {
        *x = (*x - left) * inverse * g + b;
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
    lanes.iter().sum()
}

pub(crate) fn normalize(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Normalize { x } = step.kind else { return Ok(Ended::Yes) };
    let width = frame.width(x);
    slices.each(frame.pieces(step, CHUNK), |rows| {
        y[rows.start * width..rows.end * width].chunks_exact_mut(width).for_each(polygraft::steps::normalize);
        Ok(())
    })
}
