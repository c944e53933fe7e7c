//! The linear layer, with rows that run an adapter's own weights, and the low-rank update of its output.

use super::{Machine, Weights, dot, wrong_payload};
use crate::error::{Error, Result};
use crate::ir::{Dense, Op};
use crate::program::{Step, StepKind};

pub(super) fn linear<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Linear { x, out, weight, bias, replaced } = step.kind else { return Ok(()) };
    let (k, n) = (m.width(x), m.width(out));
    let scope = m.scope(step, out);
    let mut own: Vec<Option<&Dense>> = vec![None; m.tables.len(m.program.buffers[out.0 as usize].extent)];
    for segment in replaced.map_or(&[][..], |t| m.segments(t)) {
        let Op::ReplaceLinear(dense) = m.op(segment)? else {
            return Err(wrong_payload());
        };
        segment.range.clone().for_each(|t| own[t] = Some(dense));
    }
    let shared = bias.map(|b| m.weights.vector(b, n)).transpose()?;
    let mut y = m.take(out);
    let x = m.read(x);
    let mut w = vec![0.0; k];
    for j in 0..n {
        if let Some(id) = weight {
            m.weights.row(id, j, &mut w)?;
        }
        for &t in &scope {
            let input = &x[t * k..(t + 1) * k];
            let product = match own[t].and_then(|d| d.weight.as_ref()) {
                Some(matrix) => {
                    let mut mine = vec![0.0; k];
                    matrix.decode_row(j, &mut mine);
                    dot(input, &mine)
                }
                None if weight.is_some() => dot(input, &w),
                None => return Err(Error::Program("a row without weights in a linear layer".into())),
            };
            let bias = own[t].and_then(|d| d.bias.as_deref()).or(shared.as_deref());
            y[t * n + j] = product + bias.map_or(0.0, |b| b[j]);
        }
    }
    m.put(out, y);
    Ok(())
}

pub(super) fn low_rank<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::LowRank { x, out, table } = step.kind else { return Ok(()) };
    let (k, n) = (m.width(x), m.width(out));
    let mut y = m.take(out);
    let x = m.read(x);
    for segment in m.segments(table) {
        let Op::LowRank(lora) = m.op(segment)? else { return Err(wrong_payload()) };
        let (a, b, rank) = (lora.a.to_f32(), lora.b.to_f32(), lora.a.rows());
        let scale = lora.scale * segment.scale;
        for t in segment.range.clone() {
            let h: Vec<f32> = a.chunks(k).map(|a| dot(&x[t * k..(t + 1) * k], a)).collect();
            for (j, y) in y[t * n..(t + 1) * n].iter_mut().enumerate() {
                let bias = lora.bias.as_ref().map_or(0.0, |b| b[j]);
                *y += scale * (dot(&h, &b[j * rank..(j + 1) * rank]) + bias);
            }
        }
    }
    m.put(out, y);
    Ok(())
}
