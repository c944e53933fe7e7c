//! Layer norm, and division by the L2 norm.

use super::{Machine, Weights};
use crate::error::Result;
use crate::program::{Step, StepKind};

pub(super) fn layer_norm<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::LayerNorm { x, out, gamma, beta, eps_bits, replaced } = step.kind else { return Ok(()) };
    let (width, eps) = (m.width(out), f32::from_bits(eps_bits));
    let base = |id: Option<_>| id.map(|id| m.weights.vector(id, width)).transpose();
    let (gamma, beta) = (base(gamma)?.unwrap_or_default(), base(beta)?.unwrap_or_else(|| vec![0.0; width]));
    let input = m.read(x).to_vec();
    let mut y = m.take(out);
    for t in m.scope(step, out) {
        let own = replaced.map(|table| m.replaced_norm(table, t)).transpose()?.flatten();
        let g = own.and_then(|o| o.gamma.as_deref()).unwrap_or(&gamma);
        let b = own.and_then(|o| o.beta.as_deref()).unwrap_or(&beta);
        let y = &mut y[t * width..(t + 1) * width];
        y.copy_from_slice(&input[t * width..(t + 1) * width]);
        layer(y, g, b, eps);
    }
    m.put(out, y);
    Ok(())
}

/// Layer norm of one vector, in place.
pub(super) fn layer(x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
    for (x, (g, b)) in x.iter_mut().zip(gamma.iter().zip(beta)) {
        *x = ((f64::from(*x) - mean) * inverse) as f32 * g + b;
    }
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
