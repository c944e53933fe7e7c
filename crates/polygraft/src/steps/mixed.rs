//! Low-rank updates whose strength is a matter of the whole row: gates and routed experts.

use super::block::{by_row, gate};
use super::{Machine, Weights, dot, wrong_payload};
use crate::error::Result;
use crate::ir::{MixedLowRank, Mixing, Op};
use crate::program::{Step, StepKind};

pub(super) fn eval<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::MixedLowRank { x, out, table } = step.kind else { return Ok(()) };
    let (k, n, extent) = (m.width(x), m.width(out), m.program.buffers[out.0 as usize].extent);
    let mut y = m.take(out);
    for segment in m.segments(table) {
        let Op::MixedLowRank(own) = m.op(segment)? else { return Err(wrong_payload()) };
        for part in by_row(m.tables, extent, segment.range.clone()) {
            let x = &m.read(x)[part.start * k..part.end * k];
            mixed(own, segment.scale, x, &mut y[part.start * n..part.end * n]);
        }
    }
    m.put(out, y);
    Ok(())
}

/// Adds the update of one row's tokens to `y`.
pub fn mixed(own: &MixedLowRank, scale: f32, x: &[f32], y: &mut [f32]) {
    let lora = &own.lora;
    let (a, b) = (lora.a.to_f32(), lora.b.to_f32());
    let (k, rank, width, n) = (lora.a.cols(), lora.a.rows(), lora.b.cols(), lora.b.rows());
    let mut scale = scale * lora.scale;
    let hidden: Vec<f32> =
        x.chunks_exact(k).flat_map(|x| a.chunks_exact(k).map(|a| dot(x, a)).collect::<Vec<_>>()).collect();
    let mut shares = vec![1.0];
    match &own.mixing {
        Mixing::Gate(gates) => gates.iter().for_each(|g| scale *= gate(g, x)),
        Mixing::Route(router) => shares = route(&router.to_f32(), rank, &hidden),
    }
    for (h, y) in hidden.chunks_exact(rank).zip(y.chunks_exact_mut(n)) {
        let wide: Vec<f32> = shares.iter().flat_map(|p| h.iter().map(move |h| p * h)).collect();
        for (j, (y, b)) in y.iter_mut().zip(b.chunks_exact(width)).enumerate() {
            let bias = lora.bias.as_ref().map_or(0.0, |b| b[j]);
            *y += scale * (dot(&wide, b) + bias);
        }
    }
}

/// The mean over tokens of `softmax(h Rᵀ)`.
fn route(router: &[f32], rank: usize, hidden: &[f32]) -> Vec<f32> {
    let experts = router.len() / rank;
    let mut mean = vec![0.0; experts];
    for h in hidden.chunks_exact(rank) {
        let mut p: Vec<f32> = router.chunks_exact(rank).map(|r| dot(h, r)).collect();
        super::block::softmax(&mut p);
        mean.iter_mut().zip(&p).for_each(|(m, p)| *m += p);
    }
    let n = (hidden.len() / rank) as f32;
    mean.iter_mut().for_each(|m| *m /= n);
    mean
}
