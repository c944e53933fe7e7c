//! A family's mathematics as a change of an embedding table.

use polygraft::ir::{Meeting, Reword, Stands};
use std::fmt;

/// A function of a row of an embedding table.
pub(super) struct RowChange<F> {
    pub(super) family: &'static str,
    pub(super) shape: (usize, usize),
    pub(super) meeting: Meeting,
    /// Floats that `apply` holds.
    pub(super) held: usize,
    pub(super) apply: F,
}

impl<F> fmt::Debug for RowChange<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} of {} floats", self.family, self.shape, self.held)
    }
}

impl<F: Fn(u32, &mut [f32]) + Send + Sync> Reword for RowChange<F> {
    fn apply(&self, id: u32, row: &mut [f32]) {
        (self.apply)(id, row);
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn meeting(&self) -> Meeting {
        self.meeting
    }

    fn bytes(&self) -> usize {
        self.held * 4
    }
}

/// Rows of the adapter's own.
#[derive(Debug)]
pub(super) struct OwnRows {
    pub(super) table: (usize, usize),
    /// Row `k` of `rows` is number `ids[k]` of the table.
    pub(super) ids: Vec<u32>,
    pub(super) rows: Vec<f32>,
}

impl Reword for OwnRows {
    fn apply(&self, id: u32, row: &mut [f32]) {
        // Of a number that is there twice the last counts.
        if let Some(k) = self.ids.iter().rposition(|i| *i == id) {
            row.copy_from_slice(&self.rows[k * row.len()..(k + 1) * row.len()]);
        }
    }

    fn shape(&self) -> (usize, usize) {
        self.table
    }

    fn stands_for(&self) -> Stands<'_> {
        Stands::Rows(&self.ids)
    }

    fn meeting(&self) -> Meeting {
        Meeting::Follows
    }

    fn bytes(&self) -> usize {
        (self.ids.len() + self.rows.len()) * 4
    }
}
