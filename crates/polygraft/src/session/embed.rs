//! Embedding rows by hand: what the `Embed` and `Positions` steps give, where adapters change words or stand for them, and for a backend
//! elsewhere that has no tables.

use crate::backend::Backend;
use crate::batch::{self, Layout, Row};
use crate::compose::Resolved;
use crate::error::{Error, Result};
use crate::ir::{AdapterIr, Meeting, Op, Rewording, Site, Stands};
use crate::model::ModelSpec;
use crate::program::Relative;
use crate::steps::embed_token;

/// Whether a row under `resolved` has words that no table has.
pub(super) fn changes_words(resolved: &Resolved) -> bool {
    resolved.placed.iter().any(|p| matches!(p.site, Site::Word | Site::Position | Site::TokenType))
}

/// Words that a row under `resolved` may have: those of the table that an adapter brings, if one does.
pub(super) fn vocabulary(resolved: &Resolved, spec: &ModelSpec) -> usize {
    let own = |p: &crate::compose::Placed| match &p.payload.op {
        Op::Rewording(r) if p.site == Site::Word && r.0.stands_for() == Stands::Table => Some(r.0.shape().0),
        _ => None,
    };
    resolved.placed.iter().find_map(own).unwrap_or(spec.vocab)
}

/// Shows the adapter's changes of tables the tables that they change: the base's, or its own.
pub(super) fn prepare<B: Backend>(adapter: &mut AdapterIr, spec: &ModelSpec, backend: &B) -> Result<()> {
    let mut own: Vec<(Site, Rewording)> = Vec::new();
    for patch in &mut adapter.patches {
        let Op::Rewording(change) = &patch.op else { continue };
        let Some(table) = spec.table(patch.site) else { continue };
        let whole = own.iter().find(|(site, _)| *site == patch.site).map(|(_, change)| change);
        let prepared = change.0.prepared(&mut |row, out| match whole {
            Some(Rewording(whole)) => {
                whole.apply(row as u32, out);
                Ok(())
            }
            None => backend.weight_row(table, row, out),
        })?;
        if change.0.stands_for() == Stands::Table {
            own.push((patch.site, change.clone()));
        }
        if let Some(change) = prepared {
            patch.op = Op::Rewording(change);
        }
    }
    Ok(())
}

/// `word + position + type` of every token, in the order of the rows, added as the step adds them; virtual tokens and
/// changed words included. `resolved[of[i]]` is what row `i` takes; rows must have passed [`batch::check_row`].
pub(super) fn gather<B: Backend>(
    rows: &[Row],
    of: &[usize],
    resolved: &[&Resolved],
    spec: &ModelSpec,
    backend: &B,
) -> Result<Vec<f32>> {
    let tables = spec.embeddings;
    let width = spec.embedding;
    let (mut out, mut other) = (Vec::new(), vec![0.0; width]);
    for (row, &composition) in rows.iter().zip(of) {
        let resolved = resolved[composition];
        let laid = batch::lay(row, resolved.rows, spec);
        let changes =
            [Site::Word, Site::Position, Site::TokenType].map(|site| (tables.at(site), changes(resolved, site)));
        let prompt = resolved.placed.iter().find_map(|p| match &p.payload.op {
            Op::Prompt(prompt) if p.site == Site::Word => Some(prompt),
            _ => None,
        });
        for t in 0..laid.ids.len() {
            let start = out.len();
            out.resize(start + width, 0.0);
            let at = [laid.ids[t], laid.positions[t], laid.types[t]];
            let virtual_row = prompt.filter(|_| laid.virtuals.contains(&t)).map(|p| (p, t - laid.virtuals.start));
            embed_token(tables, at, &mut out[start..], &mut other, |id, row, out| {
                if let Some((prompt, at)) = virtual_row.filter(|_| id == tables.word) {
                    prompt.vectors.decode_row(at, out);
                    return Ok(());
                }
                if row < spec.weight(id).rows {
                    backend.weight_row(id, row, out)?;
                } else {
                    // A word of an adapter's own table, which overwrites this.
                    out.fill(0.0);
                }
                if let Some((_, changes)) = changes.iter().find(|(table, _)| *table == Some(id)) {
                    reword(changes, row as u32, out);
                }
                Ok(())
            })?;
        }
    }
    Ok(out)
}

/// What the `Positions` step gives where adapters change its table: block by block, changed as the block's rows say.
pub(super) fn gather_positions<B: Backend>(
    relative: &Relative,
    layout: &Layout,
    resolved: &[&Resolved],
    spec: &ModelSpec,
    backend: &B,
) -> Result<Option<Vec<f32>>> {
    let Some(table) = spec.table(Site::Relative) else { return Ok(None) };
    let width = spec.weight(table).cols;
    let mut out = vec![0.0; relative.count() * relative.buckets.len() * width];
    for (row, block) in relative.blocks.iter().enumerate() {
        if row > 0 && relative.blocks[row - 1] == *block {
            continue;
        }
        let changes = changes(resolved[layout.compositions[row]], Site::Relative);
        let places = relative.block(*block as usize);
        let rows = out[places.start * width..places.end * width].chunks_exact_mut(width);
        for (y, bucket) in rows.zip(&relative.buckets) {
            backend.weight_row(table, *bucket as usize, y)?;
            reword(&changes, *bucket, y);
        }
    }
    Ok(Some(out))
}

/// The changes of the table at `site`, each with its scale.
fn changes(resolved: &Resolved, site: Site) -> Vec<(&Rewording, f32)> {
    let here = resolved.placed.iter().filter(|p| p.site == site);
    here.filter_map(|p| if let Op::Rewording(change) = &p.payload.op { Some((change, p.scale)) } else { None })
        .collect()
}

/// As weights are folded: what adds sees the base's row, what follows sees all before it.
pub(crate) fn reword(changes: &[(&Rewording, f32)], id: u32, row: &mut [f32]) {
    if changes.is_empty() {
        return;
    }
    let mut base = row.to_vec();
    for (Rewording(change), scale) in changes.iter().filter(|(r, _)| (id as usize) < r.0.shape().0) {
        match change.meeting() {
            Meeting::Follows | Meeting::Precedes | Meeting::Scales | Meeting::Closes => {
                change.apply(id, row);
                if change.stands_for() == Stands::Table {
                    base.copy_from_slice(row);
                }
            }
            Meeting::Adds => {
                let mut changed = base.clone();
                change.apply(id, &mut changed);
                row.iter_mut().zip(changed.iter().zip(&base)).for_each(|(y, (c, b))| *y += scale * (c - b));
            }
        }
    }
}

/// `values`, `[tokens, width]` in the order of the rows, in the order in which they are packed.
pub(super) fn packed(
    rows: &[Row],
    resolved: &[&Resolved],
    of: &[usize],
    layout: &Layout,
    values: &[f32],
    width: usize,
) -> Result<Vec<f32>> {
    let mut start = 0;
    let mut spans = Vec::with_capacity(rows.len());
    for (row, &composition) in rows.iter().zip(of) {
        let tokens = row.ids.len() + resolved[composition].rows.virtual_tokens as usize;
        let end = start + tokens * width;
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
