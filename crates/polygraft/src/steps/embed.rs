//! `out[t] = word[id] + position[pos] + type[tt]`.

use super::{Machine, Weights};
use crate::error::Result;
use crate::program::{Step, StepKind};

pub(super) fn eval<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Embed { out, word, position, token_type } = step.kind else { return Ok(()) };
    let width = m.width(out);
    let mut y = m.take(out);
    let mut row = vec![0.0; width];
    for t in m.scope(step, out) {
        let y = &mut y[t * width..(t + 1) * width];
        m.weights.row(word, m.tables.ids[t] as usize, y)?;
        let others = [(Some(position), m.tables.positions[t]), (token_type, m.tables.token_types[t])];
        for (table, index) in others {
            let Some(table) = table else { continue };
            m.weights.row(table, index as usize, &mut row)?;
            y.iter_mut().zip(&row).for_each(|(y, x)| *y += x);
        }
    }
    m.put(out, y);
    Ok(())
}
