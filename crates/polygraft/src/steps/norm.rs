//! Layer norm, and division by the L2 norm.

use super::{Machine, Weights, wrong_payload};
use crate::error::Result;
use crate::ir::Op;
use crate::program::{Step, StepKind};

pub(super) fn layer_norm<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::LayerNorm { x, out, gamma, beta, eps_bits, replaced } = step.kind else { return Ok(()) };
    let (width, eps) = (m.width(out), f32::from_bits(eps_bits));
    let base = |id: Option<_>| id.map(|id| m.weights.vector(id, width)).transpose();
    let (gamma, beta) = (base(gamma)?.unwrap_or_default(), base(beta)?.unwrap_or_default());
    let input = m.read(x).to_vec();
    let mut y = m.take(out);
    for t in m.scope(step, out) {
        let (mut g, mut b) = (gamma.as_slice(), beta.as_slice());
        if let Some(table) = replaced
            && let Some(segment) = m.segments(table).iter().find(|s| s.range.contains(&t))
        {
            let Op::ReplaceNorm(own) = m.op(segment)? else { return Err(wrong_payload()) };
            g = own.gamma.as_deref().unwrap_or(g);
            b = own.beta.as_deref().unwrap_or(b);
        }
        let row = &input[t * width..(t + 1) * width];
        let n = width as f64;
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
        for (i, (y, &x)) in y[t * width..(t + 1) * width].iter_mut().zip(row).enumerate() {
            *y = ((f64::from(x) - mean) * inverse) as f32 * g[i] + b[i];
        }
    }
    m.put(out, y);
    Ok(())
}

pub(super) fn eval_normalize<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Normalize { x } = step.kind else { return Ok(()) };
    let width = m.width(x);
    let mut y = m.take(x);
    for t in m.scope(step, x) {
        normalize(&mut y[t * width..(t + 1) * width]);
    }
    m.put(x, y);
    Ok(())
}

/// Divides `x` by its L2 norm, or by 1e-12 if that is larger (`torch.nn.functional.normalize`).
pub fn normalize(x: &mut [f32]) {
    let norm = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(1e-12);
    x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
}
