//! Rows × compositions → a packed batch: rows sorted by composition, `cu_seqlens`, and one table a step that adapters share.

use crate::compose::Resolved;
use crate::error::{Error, Result};
use crate::ir::{Payload, Site};
use crate::model::ModelSpec;
use crate::program::{Extent, Program, Purpose, Segment, Table, TableDesc, Tables};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// One sequence of a batch: token ids as they are run, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token types; all 0 when empty.
    pub token_types: Vec<u32>,
}

impl From<Vec<u32>> for Row {
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, token_types: Vec::new() }
    }
}

/// Checks that the model can run `row` as it is.
///
/// # Errors
/// An empty row, an id or type outside its table, more tokens than positions.
pub fn check_row(index: usize, row: &Row, spec: &ModelSpec) -> Result<()> {
    let bad = |why: String| Err(Error::Row { row: index, why });
    if row.ids.is_empty() {
        return bad("it has no token; a row needs at least one".into());
    }
    if row.ids.len() > spec.max_positions {
        return Err(Error::TooLong { row: index, tokens: row.ids.len(), limit: spec.max_positions });
    }
    if let Some((at, id)) = row.ids.iter().enumerate().find(|(_, id)| **id as usize >= spec.vocab) {
        return bad(format!(
            "token {at} has id {id}; the vocabulary has {} entries (0 to {})",
            spec.vocab,
            spec.vocab - 1
        ));
    }
    if !row.token_types.is_empty() && row.token_types.len() != row.ids.len() {
        return bad(format!("{} token types for {} tokens", row.token_types.len(), row.ids.len()));
    }
    let types = spec.token_types.max(1);
    if let Some(t) = row.token_types.iter().find(|t| **t as usize >= types) {
        return bad(format!("token type {t}; the model has {types} (0 to {})", types - 1));
    }
    Ok(())
}

/// The order in which rows are packed, and the way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `order[p]` is the caller's index of packed row `p`.
    pub order: Vec<usize>,
    /// Which composition packed row `p` takes.
    pub compositions: Vec<usize>,
}

impl Layout {
    /// Sorts rows by composition, keeping the caller's order inside each.
    #[must_use]
    pub fn new(compositions: &[usize]) -> Self {
        let mut order: Vec<usize> = (0..compositions.len()).collect();
        order.sort_by_key(|&row| compositions[row]);
        let compositions = order.iter().map(|&row| compositions[row]).collect();
        Self { order, compositions }
    }

    /// Where the caller's row `row` is packed.
    #[must_use]
    pub fn packed(&self) -> Vec<usize> {
        let mut at = vec![0; self.order.len()];
        for (packed, &row) in self.order.iter().enumerate() {
            at[row] = packed;
        }
        at
    }
}

/// Position ids: BERT counts tokens; RoBERTa counts the tokens that are not padding, from its offset, and gives a
/// padding id inside a row the padding's own position (`create_position_ids_from_input_ids`).
pub(crate) fn positions(ids: &[u32], spec: &ModelSpec) -> Vec<u32> {
    let Some(pad) = spec.position_offset.checked_sub(1) else { return (0..ids.len() as u32).collect() };
    let mut next = spec.position_offset;
    let place = |id: &u32| {
        if *id == pad {
            return pad;
        }
        next += 1;
        next - 1
    };
    ids.iter().map(place).collect()
}

/// Fills the tables of one call.
///
/// `resolved[layout.compositions[p]]` is what packed row `p` takes. Rows must have passed [`check_row`].
#[must_use]
pub fn fill(program: &Program, spec: &ModelSpec, rows: &[Row], layout: &Layout, resolved: &[&Resolved]) -> Tables {
    let mut out = Tables { cu_seqlens: vec![0], ..Tables::default() };
    for &index in &layout.order {
        let row = &rows[index];
        out.ids.extend(&row.ids);
        out.positions.extend(positions(&row.ids, spec));
        if row.token_types.is_empty() {
            out.token_types.resize(out.ids.len(), 0);
        } else {
            out.token_types.extend(&row.token_types);
        }
        out.cu_seqlens.push(out.ids.len() as u32);
    }
    let mut payloads = Payloads::default();
    let entries: Vec<HashMap<Purpose, Entry>> = resolved.iter().map(|r| entries(r, &mut payloads)).collect();
    out.tables = program.tables.iter().map(|desc| table(desc, &out, layout, &entries)).collect();
    out.payloads = payloads.list;
    out
}

#[derive(Default)]
struct Payloads {
    list: Vec<Arc<Payload>>,
    by_id: HashMap<crate::ir::PayloadId, u32>,
}

impl Payloads {
    fn index(&mut self, payload: &Arc<Payload>) -> u32 {
        *self.by_id.entry(payload.id).or_insert_with(|| {
            self.list.push(payload.clone());
            self.list.len() as u32 - 1
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Entry {
    payload: Option<u32>,
    scale: f32,
}

/// What a composition puts into each kind of table.
fn entries(resolved: &Resolved, payloads: &mut Payloads) -> HashMap<Purpose, Entry> {
    let mut out = HashMap::new();
    for placed in &resolved.placed {
        out.insert(placed.purpose(), Entry { payload: Some(payloads.index(&placed.payload)), scale: placed.scale });
        if placed.site == Site::Pooled {
            out.insert(Purpose::Shifted, Entry { payload: None, scale: 1.0 });
        }
    }
    if let Some(head) = &resolved.head {
        out.insert(Purpose::Head(head.key()), Entry { payload: None, scale: 1.0 });
    }
    out
}

fn table(desc: &TableDesc, tables: &Tables, layout: &Layout, entries: &[HashMap<Purpose, Entry>]) -> Table {
    let mut segments: Vec<Segment> = Vec::new();
    for (packed, &composition) in layout.compositions.iter().enumerate() {
        let Some(entry) = entries[composition].get(&desc.purpose) else { continue };
        let range: Range<usize> = match desc.extent {
            Extent::Tokens => tables.row(packed),
            Extent::Rows => packed..packed + 1,
        };
        match segments.last_mut() {
            Some(last)
                if last.range.end == range.start && last.payload == entry.payload && last.scale == entry.scale =>
            {
                last.range.end = range.end;
            }
            _ => segments.push(Segment { range, payload: entry.payload, scale: entry.scale }),
        }
    }
    Table { segments }
}
