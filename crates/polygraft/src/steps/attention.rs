//! Softmax attention inside each row, over real keys only.

use super::{Machine, Weights, dot};
use crate::error::Result;
use crate::program::{Step, StepKind};

pub(super) fn eval<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Attention { q, k, v, out, heads, scale_bits } = step.kind else { return Ok(()) };
    let (width, scale) = (m.width(out), f32::from_bits(scale_bits));
    let d = width / heads;
    let mut y = m.take(out);
    let (q, k, v) = (m.read(q), m.read(k), m.read(v));
    for row in 0..m.tables.rows() {
        let span = m.tables.row(row);
        for head in 0..heads {
            let at = |t: usize| t * width + head * d..t * width + (head + 1) * d;
            for t in span.clone() {
                let mut p: Vec<f32> = span.clone().map(|s| dot(&q[at(t)], &k[at(s)]) * scale).collect();
                let peak = p.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
                p.iter_mut().for_each(|p| *p = (*p - peak).exp());
                let sum: f32 = p.iter().sum();
                let y = &mut y[at(t)];
                y.fill(0.0);
                for (p, s) in p.iter().zip(span.clone()) {
                    y.iter_mut().zip(&v[at(s)]).for_each(|(y, v)| *y += p * v);
                }
                y.iter_mut().for_each(|y| *y /= sum);
            }
        }
    }
    m.put(out, y);
    Ok(())
}
