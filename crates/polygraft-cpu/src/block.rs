//! Ops that rewrite tokens through an adapter's own layers: bottlenecks, fusions, couplings, interventions.
//!
//! The order of operations is the canonical one (`polygraft::steps`); the products, norms and functions are this
//! backend's. A task is the tokens of one row: gates are means over it.

use crate::decode;
use crate::kernels::{Isa, Rows, Target};
use crate::pack::{LANES, Packed};
use crate::run::{Frame, wrong_payload};
use crate::slices::{Ended, Slices};
use crate::store::Own;
use polygraft::Result;
use polygraft::ir::{Norm, Op, Payload};
use polygraft::model::Activation;
use polygraft::program::{Step, StepKind};
use polygraft::steps::{self, Factor, ModelNorm, Products, Tokens};
use std::ops::Range;
use std::sync::Arc;

/// This backend's products.
struct Simd<'a> {
    isa: Isa,
    payloads: &'a [Arc<Payload>],
    own: &'a [Arc<Own>],
    panels: &'a mut Vec<f32>,
    bias: &'a mut Vec<f32>,
    tile: &'a mut Vec<f32>,
}

impl Simd<'_> {
    fn packed(&self, payload: &Payload, factor: Factor) -> Option<&Packed> {
        let at = self.payloads.iter().position(|p| p.id == payload.id)?;
        if let Own::Factors(list) = self.own.get(at)?.as_ref() {
            list.iter().find(|(f, _)| *f == factor).map(|(_, packed)| packed)
        } else {
            None
        }
    }
}

impl Products for Simd<'_> {
    fn product(&mut self, payload: &Payload, factor: Factor, x: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let (matrix, vector) = steps::factor(&payload.op, factor).ok_or_else(wrong_payload)?;
        let (k, n) = (matrix.cols(), matrix.rows());
        let count = x.len() / k;
        let (mut panels, mut bias, mut tile) =
            (std::mem::take(self.panels), std::mem::take(self.bias), std::mem::take(self.tile));
        let packed = self.packed(payload, factor).ok_or_else(wrong_payload)?;
        let stride = packed.panels() * LANES;
        bias.clear();
        bias.resize(stride, 0.0);
        if let Some(vector) = vector {
            bias[..n].copy_from_slice(vector);
        }
        let weights = decode::panels(self.isa, packed, 0..packed.panels(), &mut panels);
        let rows = Rows { values: x, stride: k, count, width: k };
        out.clear();
        if stride == n {
            out.resize(count * n, 0.0);
            self.isa.gemm(rows, weights, &bias, &mut Target { values: out, stride });
        } else {
            tile.clear();
            tile.resize(count * stride, 0.0);
            self.isa.gemm(rows, weights, &bias, &mut Target { values: &mut tile, stride });
            tile.chunks_exact(stride).for_each(|row| out.extend_from_slice(&row[..n]));
        }
        (*self.panels, *self.bias, *self.tile) = (panels, bias, tile);
        Ok(())
    }

    fn norm(&mut self, x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
        x.chunks_exact_mut(gamma.len()).for_each(|x| self.isa.norm(x, None, gamma, beta, eps));
    }

    fn activate(&mut self, function: Activation, x: &mut [f32]) {
        crate::rows::Pointwise::Close(function).run(self.isa, x);
    }
}

/// The runs of a step's table, a row of the batch at a time.
fn tasks<'a>(frame: &Frame<'a>, step: &Step) -> Result<Vec<(&'a Payload, f32, Range<usize>)>> {
    let (StepKind::Bottleneck { table, .. }
    | StepKind::Insert { table, .. }
    | StepKind::Couple { table, .. }
    | StepKind::Reft { table, .. }
    | StepKind::MixedLowRank { table, .. }) = step.kind
    else {
        return Ok(Vec::new());
    };
    let mut out = Vec::new();
    let extent = frame.program().tables[table.0 as usize].extent;
    for segment in frame.segments(table) {
        let payload = frame.payload(segment)?;
        let rows = steps::by_row(frame.tables(), extent, segment.range.clone());
        out.extend(rows.map(|row| (payload, segment.scale, row)));
    }
    Ok(out)
}

pub(crate) fn bottleneck(frame: &mut Frame<'_>, step: &Step, h: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Bottleneck { x, norm, turn, .. } = step.kind else { return Ok(Ended::Yes) };
    let width = frame.width(x);
    let base = norm
        .map(|n| {
            let beta = n.beta.map_or_else(|| Ok(vec![0.0; width].into()), |b| frame.store.vector(b, width));
            Ok((frame.store.vector(n.gamma, width)?, beta?))
        })
        .transpose()?;
    let mut replaced: Vec<(Range<usize>, &Norm)> = Vec::new();
    for segment in norm.and_then(|n| n.replaced).map_or(&[][..], |t| frame.segments(t)) {
        let (Op::ReplaceNorm(own), _) = frame.op(segment)? else { return Err(wrong_payload()) };
        replaced.push((segment.range.clone(), own));
    }
    let tasks = tasks(frame, step)?;
    let (input, scratch) = (&frame.buffers[x.0 as usize], &mut *frame.scratch);
    let (isa, payloads, own) = (frame.isa, &frame.call.tables.payloads, frame.own);
    let ids = &frame.call.tables.ids;
    slices.each(tasks, |(payload, scale, row)| {
        let at = row.start * width..row.end * width;
        let norms = match norm.zip(base.as_ref()) {
            Some((n, (gamma, beta))) => {
                let model = ModelNorm { gamma, beta, eps: f32::from_bits(n.eps_bits) };
                let own = |t| Ok(replaced.iter().find(|(rows, _)| rows.contains(&t)).map(|(_, own)| *own));
                steps::norms(row.clone(), model, own)?
            }
            None => Vec::new(),
        };
        let tokens = Tokens { x: &input[at.clone()], ids: &ids[row], width, norms: &norms, turn };
        let (panels, bias, tile) = (&mut scratch.panels, &mut scratch.bias, &mut scratch.tile);
        let mut products = Simd { isa, payloads, own, panels, bias, tile };
        steps::rewrite(payload, scale, &mut h[at], &tokens, &mut products)
    })
}

pub(crate) fn insert(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Insert { x, .. } = step.kind else { return Ok(Ended::Yes) };
    let (width, tasks) = (frame.width(x), tasks(frame, step)?);
    slices.each(tasks, |(payload, _, row)| {
        let Op::Prompt(prompt) = &payload.op else { return Err(wrong_payload()) };
        for (at, t) in row.enumerate() {
            prompt.vectors.decode_row(at, &mut y[t * width..(t + 1) * width]);
        }
        Ok(())
    })
}

pub(crate) fn couple(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Couple { x, inverse, .. } = step.kind else { return Ok(Ended::Yes) };
    let (width, tasks) = (frame.width(x), tasks(frame, step)?);
    let scratch = &mut *frame.scratch;
    let (isa, payloads, own) = (frame.isa, &frame.call.tables.payloads, frame.own);
    slices.each(tasks, |(payload, _, row)| {
        let (panels, bias, tile) = (&mut scratch.panels, &mut scratch.bias, &mut scratch.tile);
        let mut products = Simd { isa, payloads, own, panels, bias, tile };
        steps::couple(payload, inverse, &mut y[row.start * width..row.end * width], width, &mut products)
    })
}

/// A handful of tokens a row: the definition is fast enough.
pub(crate) fn reft(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Reft { x, .. } = step.kind else { return Ok(Ended::Yes) };
    let (width, tasks, isa) = (frame.width(x), tasks(frame, step)?, frame.isa);
    slices.each(tasks, |(payload, scale, row)| {
        let Op::Reft(own) = &payload.op else { return Err(wrong_payload()) };
        isa.vectorize(|| steps::reft(own, scale, &mut y[row.start * width..row.end * width], width));
        Ok(())
    })
}

pub(crate) fn mixed(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::MixedLowRank { x, out, .. } = step.kind else { return Ok(Ended::Yes) };
    let (k, n, tasks, isa) = (frame.width(x), frame.width(out), tasks(frame, step)?, frame.isa);
    let input = &frame.buffers[x.0 as usize];
    slices.each(tasks, |(payload, scale, row)| {
        let Op::MixedLowRank(own) = &payload.op else { return Err(wrong_payload()) };
        let x = &input[row.start * k..row.end * k];
        isa.vectorize(|| steps::mixed(own, scale, x, &mut y[row.start * n..row.end * n]));
        Ok(())
    })
}
