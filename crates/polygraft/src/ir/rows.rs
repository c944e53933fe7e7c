//! Ops on whole rows: words that are changed, virtual tokens, keys and values in front of a row's own.

use super::Gate;
use crate::error::Result;
use crate::tensor::Matrix;
use std::fmt;
use std::sync::Arc;

use super::Meeting;

/// A change of an embedding table (words, positions or token types), as a function of one of its rows.
///
/// Rows are gathered where the table is, so that a change costs the words of a call and no copy of the table.
pub trait Reword: fmt::Debug + Send + Sync {
    /// Makes `row`, number `id` of the table, the changed one. It is the base's own for a change that
    /// [`Meeting::Adds`].
    fn apply(&self, id: u32, row: &mut [f32]);

    /// `[rows, width]` of the tables that it fits. A whole table of its own may have more rows than the base's.
    fn shape(&self) -> (usize, usize);

    /// What of the table it stands for.
    fn stands_for(&self) -> Stands<'_> {
        Stands::Nothing
    }

    /// The change as it is on the base that runs, where it depends on the whole table: called once, before any row is
    /// changed. `table` reads a row.
    ///
    /// # Errors
    /// As `table`.
    fn prepared(&self, table: &mut dyn FnMut(usize, &mut [f32]) -> Result<()>) -> Result<Option<Rewording>> {
        let _ = table;
        Ok(None)
    }

    /// How it meets others.
    fn meeting(&self) -> Meeting {
        Meeting::Adds
    }

    /// Bytes of numbers held.
    fn bytes(&self) -> usize;
}

/// Rows that a [`Reword`] brings rather than changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands<'a> {
    /// None.
    Nothing,
    /// These.
    Rows(&'a [u32]),
    /// All: changes after it change its rows, as if they were the base's.
    Table,
}

/// A shared [`Reword`]; equal when it is the same one.
#[derive(Debug, Clone)]
pub struct Rewording(pub Arc<dyn Reword>);

impl Rewording {
    /// Wraps a family's change.
    pub fn new(change: impl Reword + 'static) -> Self {
        Self(Arc::new(change))
    }
}

impl PartialEq for Rewording {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Virtual tokens: soft prompts. At [`Site::Word`](super::Site::Word) they stand for word embeddings, at
/// [`Site::Embeddings`](super::Site::Embeddings) for finished ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// `[tokens, width of the embeddings]`.
    pub vectors: Matrix,
}

/// Keys and values in front of a row's own, at one layer's attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Prefix {
    /// `[slots, hidden]`.
    pub keys: Matrix,
    /// `[slots, hidden]`.
    pub values: Matrix,
    /// Multiply the keys and the values; read what the layer's projections read.
    pub gates: Option<[Gate; 2]>,
}

/// Where positions are counted from when an adapter adds to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub enum Positions {
    /// The row's own tokens keep theirs; virtual tokens have none that counts.
    #[default]
    Own,
    /// Virtual and own tokens in one sequence, padding or not (`inputs_embeds` in `transformers`).
    Sequence,
    /// The row's own, later by so many.
    Shifted(u32),
}

/// What an adapter makes of a row's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowChange {
    /// Virtual tokens.
    pub virtual_tokens: u32,
    /// They stand after the first token, not before it.
    pub after_first: bool,
    /// Positions.
    pub positions: Positions,
    /// Token types are all 0, whatever the request says (the library does not pass them on).
    pub drops_types: bool,
    /// Its words are numbered by another tokenizer than the base's: texts have no row under it, ids have.
    pub own_words: bool,
}

impl RowChange {
    /// Positions that a row needs beyond those of its own tokens.
    #[must_use]
    pub fn places(&self) -> usize {
        match self.positions {
            Positions::Own => 0,
            Positions::Shifted(by) => by as usize,
            Positions::Sequence => self.virtual_tokens as usize,
        }
    }
}

impl Prefix {
    pub(super) fn bytes(&self) -> usize {
        let gates = self.gates.iter().flatten().map(Gate::bytes).sum::<usize>();
        self.keys.bytes() + self.values.bytes() + gates
    }
}
