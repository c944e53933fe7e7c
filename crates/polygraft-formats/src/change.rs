//! A family's mathematics as a change of a layer's weight.

use polygraft::ir::{Gate, Layer, Meeting, Reweigh, Reword, Stands};
use polygraft::tensor::Matrix;
use std::fmt;

/// A function of a layer and of the base's own, with what the core has to know about it.
pub(crate) struct Change<F> {
    pub(crate) family: &'static str,
    pub(crate) shape: (usize, usize),
    pub(crate) meeting: Meeting,
    pub(crate) changes_weight: bool,
    /// Floats that `apply` holds.
    pub(crate) held: usize,
    pub(crate) apply: F,
}

impl<F> fmt::Debug for Change<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} of {} floats", self.family, self.shape, self.held)
    }
}

impl<F: Fn(&mut Layer, &Layer) -> Result<(), String> + Send + Sync> Reweigh for Change<F> {
    fn apply(&self, layer: &mut Layer, base: &Layer) -> Result<(), String> {
        (self.apply)(layer, base)
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn meeting(&self) -> Meeting {
        self.meeting
    }

    fn changes_weight(&self) -> bool {
        self.changes_weight
    }

    fn bytes(&self) -> usize {
        self.held * 4
    }
}

/// A change that multiplies a layer's outputs, bias included.
pub(crate) struct Factors<F> {
    pub(crate) family: &'static str,
    pub(crate) shape: (usize, usize),
    pub(crate) meeting: Meeting,
    pub(crate) gate: Option<Gate>,
    /// Floats that `factors` holds.
    pub(crate) held: usize,
    /// One a row of the base's layer.
    pub(crate) factors: F,
}

impl<F> fmt::Debug for Factors<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} of {} floats", self.family, self.shape, self.held)
    }
}

impl<F: Fn(&Layer) -> Vec<f32> + Send + Sync> Reweigh for Factors<F> {
    fn apply(&self, layer: &mut Layer, base: &Layer) -> Result<(), String> {
        layer.scale_rows(&(self.factors)(base));
        Ok(())
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn factors(&self, base: &Layer) -> Option<Vec<f32>> {
        Some((self.factors)(base))
    }

    fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    fn meeting(&self) -> Meeting {
        self.meeting
    }

    fn bytes(&self) -> usize {
        (self.held + self.gate.as_ref().map_or(0, |g| g.weight.len() + 1)) * 4
    }
}

/// A table of the adapter's own.
#[derive(Debug)]
pub(crate) struct OwnTable(pub(crate) Matrix);

impl Reword for OwnTable {
    fn apply(&self, id: u32, row: &mut [f32]) {
        self.0.decode_row(id as usize, row);
    }

    fn shape(&self) -> (usize, usize) {
        (self.0.rows(), self.0.cols())
    }

    fn stands_for(&self) -> Stands<'_> {
        Stands::Table
    }

    fn meeting(&self) -> Meeting {
        Meeting::Follows
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}
