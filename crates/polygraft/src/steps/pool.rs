//! Token vectors of a row to one vector.

use super::{Machine, Weights};
use crate::error::Result;
use crate::model::Pooling;
use crate::program::{Step, StepKind};

pub(super) fn eval<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Pool { x, out, pooling } = step.kind else { return Ok(()) };
    let width = m.width(out);
    let mut y = m.take(out);
    for row in m.scope(step, out) {
        let span = m.tables.row(row);
        let tokens = &m.read(x)[span.start * width..span.end * width];
        let y = &mut y[row * width..(row + 1) * width];
        match pooling {
            Pooling::Cls => y.copy_from_slice(&tokens[..width]),
            Pooling::Last => y.copy_from_slice(&tokens[tokens.len() - width..]),
            Pooling::Max => {
                y.fill(f32::NEG_INFINITY);
                tokens.chunks(width).for_each(|t| y.iter_mut().zip(t).for_each(|(y, &x)| *y = y.max(x)));
            }
            Pooling::Mean | Pooling::MeanSqrtLen => {
                let n = span.len() as f32;
                let divisor = if pooling == Pooling::Mean { n } else { n.sqrt() };
                y.fill(0.0);
                tokens.chunks(width).for_each(|t| y.iter_mut().zip(t).for_each(|(y, &x)| *y += x));
                y.iter_mut().for_each(|y| *y /= divisor);
            }
        }
    }
    m.put(out, y);
    Ok(())
}
