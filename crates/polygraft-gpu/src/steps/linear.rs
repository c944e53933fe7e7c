//! Linear layers: one launch for each run of rows that share weight and bias, and each part of a large weight.

use crate::encode::{Bind, Encoder, wrong_payload};
use crate::params::{self, NONE};
use crate::schedule::Group;
use crate::store::{Form, Own};
use crate::variants::{Covers, Shape, TALL};
use polygraft::ir::Site;
use polygraft::model::{Activation, WeightId};
use polygraft::program::{BufferId, Step, StepKind};
use polygraft::quant::BLOCK;
use polygraft::{Error, Result};
use std::ops::Range;

/// Whose weights some rows run.
#[derive(Clone, Copy)]
enum Source {
    Base(WeightId),
    /// Where they begin in the arena.
    Arena(u32),
}

/// Rows that run the same weight and bias.
struct Run {
    rows: Range<usize>,
    weight: Source,
    bias: u32,
}

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step, group: Group) -> Result<()> {
    let StepKind::Linear { x, out, .. } = step.kind else { return Ok(()) };
    let activation = match group {
        Group::LinearActivate(function) => number(function),
        Group::One | Group::AddNorm(_) => 0,
    };
    for run in runs(e, step)? {
        let (rows, columns) = (run.rows.len() as u32, e.stride(out));
        let mut block = params::Linear {
            first: run.rows.start as u32,
            rows,
            x_stride: e.stride(x),
            y_stride: columns,
            groups: e.width(x).div_ceil(4) as u32,
            columns,
            weight: 0,
            bias: run.bias,
            column: 0,
            activation,
        };
        let grid =
            |v: &crate::variants::Variant, columns: u32| [columns.div_ceil(v.tile.1), rows.div_ceil(v.tile.0), 1];
        let binds = |codes, scales| vec![Bind::Activation(x), codes, scales, Bind::Arena, Bind::Activation(out)];
        match run.weight {
            Source::Arena(start) => {
                block.weight = start;
                let form = Some(("FORM", Form::F32 as u32));
                let shape = Shape { rows, head: 0 };
                let binds = binds(Bind::Arena, Bind::Arena);
                e.launch(Covers::Linear, shape, form, &block, binds, |v| grid(v, columns))?;
            }
            Source::Base(id) => {
                let gpu = e.gpu;
                let weight = gpu.store.weight(id)?;
                // As on the CPU: what the first layer rounds off passes through all the others.
                let first = step.origin.and_then(Site::layer) == Some(0);
                let covers = match e.fast {
                    _ if first || weight.form == Form::F32 => Covers::Linear,
                    Covers::Half if rows < TALL => Covers::Linear,
                    fast => fast,
                };
                if covers == Covers::Packed {
                    round(e, x, run.rows.clone())?;
                }
                for part in &weight.parts {
                    (block.columns, block.column) = (part.columns, part.column);
                    let form = Some(("FORM", weight.form as u32));
                    let scales = part.scales.as_ref().map_or(Bind::Arena, Bind::Weight);
                    let mut binds = binds(Bind::Weight(&part.codes), scales);
                    if covers == Covers::Packed {
                        binds[0] = Bind::Codes;
                        binds.push(Bind::CodeScales);
                    }
                    let shape = Shape { rows, head: 0 };
                    e.launch(covers, shape, form, &block, binds, |v| grid(v, part.columns))?;
                }
            }
        }
    }
    Ok(())
}

/// Rounds `rows` of `x`, unless that was done for the layer before: query, key and value read the same rows.
fn round(e: &mut Encoder<'_>, x: BufferId, rows: Range<usize>) -> Result<()> {
    if e.rounded.as_ref().is_some_and(|(b, r)| *b == x && r.start <= rows.start && rows.end <= r.end) {
        return Ok(());
    }
    let blocks = (e.width(x) / BLOCK) as u32;
    let count = rows.len() as u32 * blocks;
    let width = count.min(64 * 1024);
    let (first, x_stride) = (rows.start as u32, e.stride(x));
    let block = params::Round { first, rows: rows.len() as u32, x_stride, blocks, width };
    let grid = [width.div_ceil(64), count.div_ceil(width.max(1)), 1];
    let binds = vec![Bind::Activation(x), Bind::Codes, Bind::CodeScales];
    e.launch(Covers::Round, Shape::default(), None, &block, binds, |_| grid)?;
    e.blocks = e.blocks.max(blocks as usize);
    e.rounded = Some((x, rows));
    Ok(())
}

/// The step's rows, cut where a row's own weight or bias begins or ends.
fn runs(e: &Encoder<'_>, step: &Step) -> Result<Vec<Run>> {
    let StepKind::Linear { out, weight, bias, replaced, .. } = step.kind else { return Ok(Vec::new()) };
    let missing = || Error::Program("a row without weights in a linear layer".into());
    let base = weight.map(Source::Base);
    let shared = bias.map_or(Ok(NONE), |b| e.gpu.store.vector(b))?;
    let segments = replaced.map_or(&[][..], |t| e.segments(t));
    let mut list = Vec::new();
    for range in e.tables.ranges(step.scope, e.extent(out)) {
        let mut at = range.start;
        for segment in segments.iter().filter(|s| s.range.end > range.start && s.range.start < range.end) {
            let own = segment.range.start.max(range.start)..segment.range.end.min(range.end);
            if at < own.start {
                list.push(Run { rows: at..own.start, weight: base.ok_or_else(missing)?, bias: shared });
            }
            at = own.end;
            let (_, Own::Linear { weight, bias }) = e.op(segment)? else { return Err(wrong_payload()) };
            let weight = weight.map(|w| Source::Arena(w.start)).or(base).ok_or_else(missing)?;
            list.push(Run { rows: own, weight, bias: bias.map_or(shared, |b| b.start) });
        }
        if at < range.end {
            list.push(Run { rows: at..range.end, weight: base.ok_or_else(missing)?, bias: shared });
        }
    }
    Ok(list)
}

/// The function's number in `activation.wgsl`.
pub(crate) fn number(function: Activation) -> u32 {
    match function {
        Activation::Identity => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::Relu => 3,
        Activation::Silu => 4,
        Activation::Tanh => 5,
        Activation::Sigmoid => 6,
        Activation::QuickGelu => 7,
        Activation::Gelu10 => 8,
        Activation::LeakyRelu => 9,
        Activation::Relu6 => 10,
        Activation::Relu2 => 11,
        Activation::Mish => 12,
        Activation::Laplace => 13,
        Activation::Elu => 14,
    }
}
