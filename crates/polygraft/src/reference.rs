//! The oracle: replays a Program by the definition of each step, in f32, one step at a time.

use crate::backend::{Backend, Call, Matrices, Poll};
use crate::error::{Error, Result};
use crate::ir::PayloadId;
use crate::model::{ModelSpec, WeightId};
use crate::program::{BufferId, StepKind};
use crate::steps::{Machine, Weights};
use crate::tensor::Matrix;

/// The reference backend. Precision is always exact.
#[derive(Debug, Default)]
pub struct Reference {
    weights: Matrices,
}

/// A call in flight.
#[derive(Debug)]
pub struct Run {
    call: Call,
    buffers: Vec<Vec<f32>>,
    next: usize,
}

impl Reference {
    /// A backend without weights.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn weight(&self, id: WeightId) -> Result<&Matrix> {
        self.weights
            .get(id)
            .ok_or_else(|| Error::Backend { backend: "reference", why: format!("weight {} was never loaded", id.0) })
    }
}

impl Weights for Reference {
    fn row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        self.weight(id)?.decode_row(row, out);
        Ok(())
    }
}

impl Backend for Reference {
    type Run = Run;

    fn name(&self) -> &'static str {
        "reference"
    }

    fn describe(&self) -> String {
        "reference: naive f32, one step at a time".into()
    }

    fn load_weight(&mut self, id: WeightId, matrix: Matrix) -> Result<()> {
        self.weights.load(id, matrix);
        Ok(())
    }

    fn ready(&mut self, spec: &ModelSpec) -> Result<()> {
        (0..spec.weights.len()).try_for_each(|i| self.weight(WeightId(i as u32)).map(|_| ()))
    }

    fn weight_row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        self.row(id, row, out)
    }

    fn forget(&mut self, _id: PayloadId) {}

    fn memory(&self) -> usize {
        self.weights.bytes()
    }

    fn payload_bytes(&self, _id: PayloadId) -> usize {
        0
    }

    fn begin(&mut self, call: Call) -> Result<Run> {
        let buffers = call.program.buffers.iter().map(|b| vec![0.0; b.width * call.tables.len(b.extent)]).collect();
        Ok(Run { call, buffers, next: 0 })
    }

    fn advance(&mut self, run: &mut Run, pause: &mut dyn FnMut() -> bool) -> Result<Poll> {
        while let Some(step) = run.call.program.steps.get(run.next) {
            if let (StepKind::Embed { out, .. }, Some(rows)) = (step.kind, &run.call.tables.embedded) {
                run.buffers[out.0 as usize].copy_from_slice(rows);
            } else {
                let (program, tables) = (&run.call.program, &run.call.tables);
                Machine { program, tables, weights: self, buffers: &mut run.buffers }.eval(step)?;
            }
            run.next += 1;
            if pause() {
                return Ok(Poll::More);
            }
        }
        Ok(Poll::Done)
    }

    fn read(&mut self, run: &Run, buffer: BufferId) -> Result<Vec<f32>> {
        Ok(run.buffers[buffer.0 as usize].clone())
    }
}
