//! What changes from call to call: the packed batch, who takes which patch, and where relative positions stand.

use super::{Extent, Program, Scope};
use crate::ir::Payload;
use std::ops::Range;
use std::sync::Arc;

/// A run of rows (or tokens) that take the same payload with the same scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// In units of the table's extent, over the packed batch.
    pub range: Range<usize>,
    /// Index into [`Tables::payloads`]; `None` in tables that only name rows.
    pub payload: Option<u32>,
    /// Multiplies the contribution: the composition's scale, without the op's own.
    pub scale: f32,
}

/// Segments in ascending order, disjoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// The runs.
    pub segments: Vec<Segment>,
}

/// What changes from call to call: the packed batch and who takes which patch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tables {
    /// Token ids, `[T]`.
    pub ids: Vec<u32>,
    /// Position ids, `[T]`.
    pub positions: Vec<u32>,
    /// Token types, `[T]`.
    pub token_types: Vec<u32>,
    /// Row `r` is tokens `cu_seqlens[r]..cu_seqlens[r + 1]`; `R + 1` entries.
    pub cu_seqlens: Vec<u32>,
    /// One a [`super::TableDesc`], in the same order.
    pub tables: Vec<Table>,
    /// The numbers that the segments point to. A call owns them: unloading an adapter does not disturb it.
    pub payloads: Vec<Arc<Payload>>,
    /// Relative positions, for a base that has embeddings of them.
    pub relative: Option<Relative>,
    /// The patches of images, `[T, numbers of a patch]`, zeros for tokens that are none: what the `Patches` step gives.
    pub pixels: Option<Vec<f32>>,
    /// What the `Embed` step gives, `[T, E]`: gathered by whoever holds the tables, for a backend that lacks them. A
    /// backend that has them may gather all the same, which gives the same bits.
    pub embedded: Option<Vec<f32>>,
}

/// The relative positions of a call: rows of their table, once for each block. Rows of the batch whose compositions
/// change differently what positions give have blocks of their own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Relative {
    /// The table's rows that a block has, ascending.
    pub buckets: Vec<u32>,
    /// Each packed row's block.
    pub blocks: Vec<u32>,
    /// By `query − key + longest − 1`: the place in a block.
    pub places: Vec<u32>,
    /// What the `Positions` step gives, `[P, N]`, where adapters change the table: gathered by whoever holds both.
    pub embedded: Option<Vec<f32>>,
}

impl Relative {
    /// Blocks in the call.
    #[must_use]
    pub fn count(&self) -> usize {
        self.blocks.iter().max().map_or(0, |b| *b as usize + 1)
    }

    /// Row `place` of what the `Positions` step gives, `width` numbers: the one that was gathered, else as `read` gives
    /// the table's.
    ///
    /// # Errors
    /// As `read`.
    pub fn give(
        &self,
        place: usize,
        out: &mut [f32],
        read: impl FnOnce(usize, &mut [f32]) -> crate::error::Result<()>,
    ) -> crate::error::Result<()> {
        match &self.embedded {
            Some(rows) => {
                out.copy_from_slice(&rows[place * out.len()..][..out.len()]);
                Ok(())
            }
            None => read(self.buckets[place % self.buckets.len()] as usize, out),
        }
    }

    /// The places of block `block`.
    #[must_use]
    pub fn block(&self, block: usize) -> Range<usize> {
        block * self.buckets.len()..(block + 1) * self.buckets.len()
    }

    /// The place of row `row` for the query at `query` and the key at `key` inside it.
    #[must_use]
    pub fn place(&self, row: usize, query: usize, key: usize) -> usize {
        let middle = self.places.len() / 2;
        self.blocks[row] as usize * self.buckets.len() + self.places[middle + query - key] as usize
    }
}

impl Tables {
    /// Tokens in the batch.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Rows in the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// Token `t`'s id, position and type: its rows of the three embedding tables.
    #[must_use]
    pub fn embedding(&self, t: usize) -> [u32; 3] {
        [self.ids[t], self.positions[t], self.token_types[t]]
    }

    /// Token range of row `row`.
    #[must_use]
    pub fn row(&self, row: usize) -> Range<usize> {
        self.cu_seqlens[row] as usize..self.cu_seqlens[row + 1] as usize
    }

    /// Size of an extent in this call.
    #[must_use]
    pub fn len(&self, extent: Extent) -> usize {
        match extent {
            Extent::Tokens => self.tokens(),
            Extent::Rows => self.rows(),
            Extent::Positions => self.relative.as_ref().map_or(0, |r| r.count() * r.buckets.len()),
        }
    }

    /// Whether the batch has no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The rows `rows` alone, as a batch of their own: what each gives does not change.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>, program: &Program) -> Self {
        let tokens = self.cu_seqlens[rows.start] as usize..self.cu_seqlens[rows.end] as usize;
        let relative =
            self.relative.as_ref().map(|r| Relative { blocks: r.blocks[rows.clone()].to_vec(), ..r.clone() });
        // Blocks keep their places, up to the last that one of these rows has.
        let places = 0..relative.as_ref().map_or(0, |r| r.count() * r.buckets.len());
        let cut = |table: &Table, extent: Extent| {
            let within = match extent {
                Extent::Tokens => &tokens,
                Extent::Rows => &rows,
                Extent::Positions => &places,
            };
            let inside = |s: &Segment| {
                let range = s.range.start.max(within.start)..s.range.end.min(within.end);
                (!range.is_empty())
                    .then(|| Segment { range: range.start - within.start..range.end - within.start, ..s.clone() })
            };
            Table { segments: table.segments.iter().filter_map(inside).collect() }
        };
        let first = self.cu_seqlens[rows.start];
        let of_tokens = |values: &Vec<f32>| {
            let width = values.len() / self.tokens().max(1);
            values[tokens.start * width..tokens.end * width].to_vec()
        };
        Self {
            ids: self.ids[tokens.clone()].to_vec(),
            positions: self.positions[tokens.clone()].to_vec(),
            token_types: self.token_types[tokens.clone()].to_vec(),
            cu_seqlens: self.cu_seqlens[rows.start..=rows.end].iter().map(|&c| c - first).collect(),
            tables: self.tables.iter().zip(&program.tables).map(|(t, d)| cut(t, d.extent)).collect(),
            payloads: self.payloads.clone(),
            relative,
            pixels: self.pixels.as_ref().map(of_tokens),
            embedded: self.embedded.as_ref().map(of_tokens),
        }
    }

    /// The ranges that `scope` names in a buffer of `extent`.
    #[must_use]
    pub fn ranges(&self, scope: Scope, extent: Extent) -> Vec<Range<usize>> {
        match scope {
            Scope::All => std::iter::once(0..self.len(extent)).collect(),
            Scope::Only(table) => self.tables[table.0 as usize].segments.iter().map(|s| s.range.clone()).collect(),
            Scope::Except(table) => {
                let mut out = Vec::new();
                let mut at = 0;
                for segment in &self.tables[table.0 as usize].segments {
                    out.push(at..segment.range.start);
                    at = segment.range.end;
                }
                out.push(at..self.len(extent));
                out.retain(|r| !r.is_empty());
                out
            }
        }
    }
}
