//! Embedding rows by hand: what the `Embed` step gives, for a backend elsewhere that has no tables.

use crate::backend::Backend;
use crate::batch::{self, Layout, Row};
use crate::error::{Error, Result};
use crate::model::ModelSpec;
use crate::steps::embed_token;

/// `word + position + type` of every token, in the order of the rows, added as the step adds them.
pub(super) fn gather<B: Backend>(rows: &[Row], spec: &ModelSpec, backend: &B) -> Result<Vec<f32>> {
    rows.iter().enumerate().try_for_each(|(i, row)| batch::check_row(i, row, spec))?;
    let (width, tables) = (spec.hidden, spec.embeddings);
    let mut out = vec![0.0; width * rows.iter().map(|r| r.ids.len()).sum::<usize>()];
    let mut other = vec![0.0; width];
    let mut targets = out.chunks_exact_mut(width);
    for row in rows {
        let positions = batch::positions(&row.ids, spec);
        for (t, (&id, position)) in row.ids.iter().zip(positions).enumerate() {
            let Some(y) = targets.next() else { break };
            let kind = row.token_types.get(t).copied().unwrap_or(0);
            embed_token(tables, [id, position, kind], y, &mut other, |id, row, out| backend.weight_row(id, row, out))?;
        }
    }
    Ok(out)
}

/// `values`, `[tokens, width]` in the order of the rows, in the order in which they are packed.
pub(super) fn packed(rows: &[Row], layout: &Layout, values: &[f32], width: usize) -> Result<Vec<f32>> {
    let mut start = 0;
    let mut spans = Vec::with_capacity(rows.len());
    for row in rows {
        let end = start + row.ids.len() * width;
        spans.push(start..end);
        start = end;
    }
    if start != values.len() {
        let why = format!("{} embedded numbers for {start}", values.len());
        return Err(Error::Argument { what: "embedded".into(), why });
    }
    let mut out = Vec::with_capacity(values.len());
    layout.order.iter().for_each(|&row| out.extend_from_slice(&values[spans[row].clone()]));
    Ok(out)
}
