//! The canonical steps, one file each: the naive f32 evaluation that *is* a step's meaning.
//!
//! Slow on purpose and easy to read. A fast kernel is right when it agrees with these on any input.

mod attention;
mod block;
mod embed;
mod linear;
mod mixed;
mod norm;
mod places;
mod pointwise;
mod pool;
mod reft;

pub use attention::prefixed;
pub use block::{Factor, ModelNorm, Products, Tokens, by_row, couple, factor, gate, norms, parts, rewrite};
pub use embed::{NO_WORD, embed_token};
pub use mixed::mixed;
pub use norm::normalize;
pub use places::{angles, rotate_head};
pub use pointwise::offset;
pub use reft::reft;

use crate::error::{Error, Result};
use crate::ir::{Norm, Op, Payload};
use crate::model::WeightId;
use crate::program::{BufferId, Program, Segment, Step, StepKind, Tables};

/// Where a step's evaluation reads the base's weights.
pub trait Weights {
    /// Decodes one row of weight `id`.
    ///
    /// # Errors
    /// When the weight was never loaded.
    fn row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()>;

    /// A vector, as one row.
    ///
    /// # Errors
    /// When the weight was never loaded.
    fn vector(&self, id: WeightId, width: usize) -> Result<Vec<f32>> {
        let mut out = vec![0.0; width];
        self.row(id, 0, &mut out)?;
        Ok(out)
    }
}

/// Everything that a step may touch.
pub struct Machine<'a, W> {
    /// The Program that runs.
    pub program: &'a Program,
    /// This call's batch.
    pub tables: &'a Tables,
    /// The base.
    pub weights: &'a W,
    /// One a [`crate::program::BufferDesc`].
    pub buffers: &'a mut [Vec<f32>],
}

impl<'a, W: Weights> Machine<'a, W> {
    /// Evaluates one step.
    ///
    /// # Errors
    /// When a weight is missing or a table points at a payload of another kind.
    pub fn eval(&mut self, step: &Step) -> Result<()> {
        match step.kind {
            StepKind::Embed { .. } => embed::eval(self, step),
            StepKind::Patches { .. } => embed::patches(self, step),
            StepKind::LayerNorm { .. } => norm::layer_norm(self, step),
            StepKind::Linear { .. } => linear::linear(self, step),
            StepKind::LowRank { .. } => linear::low_rank(self, step),
            StepKind::Offset { .. } => pointwise::eval_offset(self, step),
            StepKind::Attention { .. } => attention::eval(self, step),
            StepKind::Add { .. } => pointwise::add(self, step),
            StepKind::Activate { .. } => pointwise::activate(self, step),
            StepKind::Pool { .. } => pool::eval(self, step),
            StepKind::Normalize { .. } => norm::eval_normalize(self, step),
            StepKind::Bottleneck { .. } => block::eval(self, step),
            StepKind::Insert { .. } => pointwise::insert(self, step),
            StepKind::Couple { .. } => block::eval_couple(self, step),
            StepKind::Reft { .. } => reft::eval(self, step),
            StepKind::MixedLowRank { .. } => mixed::eval(self, step),
            StepKind::Copy { .. } => pointwise::copy(self, step),
            StepKind::Positions { .. } => places::positions(self, step),
            StepKind::Rotate { .. } => places::rotate(self, step),
            StepKind::Gate { .. } => pointwise::gate(self, step),
            StepKind::Unfold { .. } => places::unfold(self, step),
        }
    }

    fn width(&self, id: BufferId) -> usize {
        self.program.buffers[id.0 as usize].width
    }

    /// Indices along the extent of `target` that the step's scope names.
    fn scope(&self, step: &Step, target: BufferId) -> Vec<usize> {
        let extent = self.program.buffers[target.0 as usize].extent;
        self.tables.ranges(step.scope, extent).into_iter().flatten().collect()
    }

    fn take(&mut self, id: BufferId) -> Vec<f32> {
        std::mem::take(&mut self.buffers[id.0 as usize])
    }

    fn put(&mut self, id: BufferId, values: Vec<f32>) {
        self.buffers[id.0 as usize] = values;
    }

    fn read(&self, id: BufferId) -> &[f32] {
        &self.buffers[id.0 as usize]
    }

    fn segments(&self, table: crate::program::TableId) -> &'a [Segment] {
        let tables: &'a Tables = self.tables;
        &tables.tables[table.0 as usize].segments
    }

    fn payload(&self, segment: &Segment) -> Result<&'a Payload> {
        let tables: &'a Tables = self.tables;
        segment
            .payload
            .and_then(|p| tables.payloads.get(p as usize))
            .map(AsRef::as_ref)
            .ok_or_else(|| Error::Program("a segment without its payload".into()))
    }

    fn op(&self, segment: &Segment) -> Result<&'a Op> {
        Ok(&self.payload(segment)?.op)
    }

    /// The norm that row `index` of a table's extent brings, if it does.
    fn replaced_norm(&self, table: crate::program::TableId, index: usize) -> Result<Option<&'a Norm>> {
        let Some(segment) = self.segments(table).iter().find(|s| s.range.contains(&index)) else { return Ok(None) };
        if let Op::ReplaceNorm(own) = self.op(segment)? { Ok(Some(own)) } else { Err(wrong_payload()) }
    }
}

fn wrong_payload() -> Error {
    Error::Program("a table points at a payload of another kind".into())
}

/// Sixteen partial sums, then their sum in order: one fixed order, whatever the batch.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (a_main, a_rest) = a.split_at(a.len() - a.len() % 16);
    for (a, b) in a_main.chunks_exact(16).zip(b.chunks_exact(16)) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i];
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(&b[a_main.len()..]).enumerate() {
        lanes[i] += a * b;
    }
    lanes.iter().sum()
}
