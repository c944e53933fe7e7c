//! What a backend is: it owns the base's weights in its own form and replays Programs, step by step, resumably.

use crate::error::Result;
use crate::ir::PayloadId;
use crate::model::{ModelSpec, WeightId};
use crate::program::{BufferId, Program, Tables};
use crate::tensor::Matrix;
use std::ops::Range;
use std::sync::Arc;

/// How activations are computed. Weights stay as they are stored either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// f32 activations everywhere.
    Exact,
    /// 8-bit activations into quantized linear layers, where the backend has kernels for them.
    Fast,
}

/// Where a resumable call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// There is more to compute: call again.
    More,
    /// A device is at work: return to the event loop, then call again.
    Waiting,
    /// Outputs can be read.
    Done,
}

/// One call's inputs: a Program and its tables.
#[derive(Debug, Clone)]
pub struct Call {
    /// What runs.
    pub program: Arc<Program>,
    /// On what.
    pub tables: Arc<Tables>,
    /// How.
    pub precision: Precision,
}

/// The time that a kernel took in one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// The kernel that ran.
    pub kernel: &'static str,
    /// The steps of the Program that it covered.
    pub steps: Range<usize>,
    /// Milliseconds, over all the pieces that it was cut into.
    pub milliseconds: f64,
}

/// Weights as they came, by id: for backends that do not pack them.
#[derive(Debug, Default)]
pub struct Matrices(Vec<Option<Matrix>>);

impl Matrices {
    /// Takes weight `id`, in place of one that was there.
    pub fn load(&mut self, id: WeightId, matrix: Matrix) {
        let index = id.0 as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some(matrix);
    }

    /// Weight `id`, if it was loaded.
    #[must_use]
    pub fn get(&self, id: WeightId) -> Option<&Matrix> {
        self.0.get(id.0 as usize)?.as_ref()
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().flatten().map(Matrix::bytes).sum()
    }
}

/// Replays Programs.
///
/// The seam is narrow on purpose: weights go in one at a time and are owned, payloads arrive with the call that uses
/// them (a backend may keep a packed copy by [`PayloadId`] until told to forget it), and a call is advanced in pieces
/// so that a Worker can return to its event loop. No borrow of the backend lives between pieces.
pub trait Backend {
    /// The state of a call in flight.
    type Run;

    /// `reference`, `cpu` or `gpu`.
    fn name(&self) -> &'static str;

    /// One line on what runs: instruction set, device.
    fn describe(&self) -> String;

    /// Takes weight `id` of the base. Called once for each weight of the spec, in any order, before any call.
    ///
    /// # Errors
    /// When the backend cannot hold it.
    fn load_weight(&mut self, id: WeightId, matrix: Matrix) -> Result<()>;

    /// Told once when every weight has arrived, with the model they make up.
    ///
    /// # Errors
    /// When a weight is missing.
    fn ready(&mut self, spec: &ModelSpec) -> Result<()>;

    /// Decodes row `row` of weight `id` into `out`, without loss of the stored codes: for offline merges, for
    /// adapters that depend on the base, for gathers.
    ///
    /// # Errors
    /// When the weight is not there.
    fn weight_row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()>;

    /// Drops what is kept for payload `id`, if anything.
    fn forget(&mut self, id: PayloadId);

    /// Bytes held for weights and packed payloads.
    fn memory(&self) -> usize;

    /// Bytes held for payload `id`, over what its owner holds.
    fn payload_bytes(&self, id: PayloadId) -> usize;

    /// Starts a call. The Program has been checked.
    ///
    /// # Errors
    /// When the backend cannot run it.
    fn begin(&mut self, call: Call) -> Result<Self::Run>;

    /// Computes until done, or until `pause` says so; `pause` is asked at least once every few milliseconds of work.
    ///
    /// # Errors
    /// When a step fails.
    fn advance(&mut self, run: &mut Self::Run, pause: &mut dyn FnMut() -> bool) -> Result<Poll>;

    /// Reads an output buffer of a call that is done: `[extent, width]`.
    ///
    /// # Errors
    /// When the buffer is not an output, or a device was lost.
    fn read(&mut self, run: &Self::Run, buffer: BufferId) -> Result<Vec<f32>>;
}
