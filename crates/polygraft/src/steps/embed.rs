//! `out[t] = word[id] + position[pos] + type[tt]`.

use super::{Machine, Weights};
use crate::error::{Error, Result};
use crate::model::{EmbeddingWeights, WeightId};
use crate::program::{Step, StepKind};

/// The id of a token that is no word, such as an image's patch: zeros stand for its row of the word table.
pub const NO_WORD: u32 = u32::MAX;

/// One token: `y = word[id] + position[pos] + type[tt]`, added in this order by whoever has the tables; `row` decodes a
/// row of one, `scratch` is as long as `y`. `at` is id, position and type.
///
/// # Errors
/// As `row`.
pub fn embed_token(
    tables: EmbeddingWeights,
    at: [u32; 3],
    y: &mut [f32],
    scratch: &mut [f32],
    mut row: impl FnMut(WeightId, usize, &mut [f32]) -> Result<()>,
) -> Result<()> {
    let [id, position, kind] = at.map(|index| index as usize);
    if at[0] == NO_WORD {
        y.fill(0.0);
    } else {
        row(tables.word, id, y)?;
    }
    for (table, index) in [(tables.position, position), (tables.token_type, kind)] {
        let Some(table) = table else { continue };
        row(table, index, scratch)?;
        y.iter_mut().zip(&*scratch).for_each(|(y, x)| *y += x);
    }
    Ok(())
}

/// `out` is the call's patches.
pub(super) fn patches<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Patches { out } = step.kind else { return Ok(()) };
    let pixels = m.tables.pixels.as_ref().ok_or_else(|| Error::Program("patches without images".into()))?;
    m.put(out, pixels.clone());
    Ok(())
}

pub(super) fn eval<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Embed { out, word, position, token_type } = step.kind else { return Ok(()) };
    let tables = EmbeddingWeights { word, position, token_type };
    let width = m.width(out);
    let mut y = m.take(out);
    let mut row = vec![0.0; width];
    for t in m.scope(step, out) {
        let y = &mut y[t * width..(t + 1) * width];
        embed_token(tables, m.tables.embedding(t), y, &mut row, |id, row, out| m.weights.row(id, row, out))?;
    }
    m.put(out, y);
    Ok(())
}
