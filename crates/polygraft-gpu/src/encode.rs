//! A batch as a list of launches: which kernel, on which buffers, with which parameters.

use crate::buffers::Held;
use crate::failed;
use crate::gpu::Gpu;
use crate::layers::Layers;
use crate::params::{Params, STRIDE};
use crate::pipelines::{Extra, Pipeline};
use crate::schedule::{Group, schedule};
use crate::steps;
use crate::store::Own;
use crate::variants::{Covers, Shape, choose};
use polygraft::backend::{Call, Precision};
use polygraft::ir::{Op, Payload};
use polygraft::program::{BufferId, Extent, Program, Segment, StepKind, TableId, Tables};
use polygraft::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// A buffer that a launch binds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bind<'a> {
    /// Vectors and adapters.
    Arena,
    /// This call's tables.
    Tables,
    /// An activation buffer of the Program.
    Activation(BufferId),
    /// A value of an op that runs layers of its own, by its place among those.
    Slot(usize),
    /// What `shrink` leaves for `project`.
    Hidden,
    /// What `round` leaves for `linear packed`: codes, and scales with sums.
    Codes,
    CodeScales,
    /// A weight's codes or scales.
    Weight(&'a Held),
}

/// One dispatch.
pub(crate) struct Launch<'a> {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) binds: Vec<Bind<'a>>,
    pub(crate) groups: [u32; 3],
    /// The steps of the Program that it belongs to.
    pub(crate) steps: Range<usize>,
}

/// Makes the launches of one batch.
pub(crate) struct Encoder<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) program: &'a Program,
    pub(crate) tables: &'a Tables,
    pub(crate) own: &'a [Arc<Own>],
    pub(crate) launches: Vec<Launch<'a>>,
    /// The steps that launches are made for.
    steps: Range<usize>,
    /// Uniform blocks, one every [`STRIDE`] bytes.
    pub(crate) params: Vec<u32>,
    /// Rows of four words.
    pub(crate) words: Vec<u32>,
    /// vec4 a row that `shrink` needs at most.
    pub(crate) hidden: usize,
    /// Numbers of a token between two layers of an op, at most.
    pub(crate) inner: usize,
    /// vec4 that each slot needs at most.
    pub(crate) slots: Vec<usize>,
    /// Blocks a row that `round` needs at most.
    pub(crate) blocks: usize,
    /// What quantized linear layers run on in this call.
    pub(crate) fast: Covers,
    /// The buffer, and which of its rows, whose rounded form is there.
    pub(crate) rounded: Option<(BufferId, Range<usize>)>,
    /// Rotations in the tables: θ as bits, head width, where they begin.
    pub(crate) turns: Vec<(u32, usize, u32)>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(gpu: &'a Gpu, call: &'a Call, tables: &'a Tables, own: &'a [Arc<Own>]) -> Self {
        let (launches, params, words, slots) = (Vec::new(), Vec::new(), vec![0; 4], Vec::new());
        let fast = match call.precision {
            Precision::Fast => gpu.tuning.fast,
            Precision::Exact => Covers::Linear,
        };
        let program = &call.program;
        let inner = own.iter().map(|o| o.inner()).max().unwrap_or(0).max(1) as usize * 4;
        Self {
            gpu,
            program,
            tables,
            own,
            launches,
            steps: 0..0,
            params,
            words,
            hidden: 0,
            inner,
            slots,
            blocks: 0,
            fast,
            rounded: None,
            turns: Vec::new(),
        }
    }

    /// Launches for every step but `Embed`, `Patches` and `Positions`, whose results are uploaded.
    pub(crate) fn encode(&mut self) -> Result<()> {
        for (steps, group) in schedule(self.program) {
            let at = steps.start;
            let step = &self.program.steps[at];
            self.steps = steps;
            match step.kind {
                StepKind::Embed { .. } | StepKind::Patches { .. } | StepKind::Positions { .. } => {}
                StepKind::Linear { .. } => steps::linear::encode(self, step, group)?,
                StepKind::LowRank { .. } => steps::low_rank::encode(self, step)?,
                StepKind::Attention { .. } => steps::attention::encode(self, step)?,
                StepKind::LayerNorm { .. } => steps::norm::encode(self, step, None)?,
                StepKind::Add { .. } => match group {
                    Group::AddNorm(other) => steps::norm::encode(self, &self.program.steps[at + 1], Some(other))?,
                    Group::One | Group::LinearActivate(_) => steps::pointwise::add(self, step)?,
                },
                StepKind::Activate { .. } => steps::pointwise::activate(self, step)?,
                StepKind::Offset { .. } => steps::pointwise::offset(self, step)?,
                StepKind::Pool { .. } => steps::pool::encode(self, step)?,
                StepKind::Normalize { .. } => steps::norm::normalize(self, step)?,
                StepKind::Copy { .. } | StepKind::Gate { .. } | StepKind::Rotate { .. } | StepKind::Unfold { .. } => {
                    steps::columns::encode(self, step)?
                }
                StepKind::Bottleneck { .. } => steps::block::encode(self, step)?,
                StepKind::Insert { .. } => steps::layers::insert(self, step)?,
                StepKind::Couple { .. } => steps::layers::couple(self, step)?,
                StepKind::Reft { .. } => steps::layers::reft(self, step)?,
                StepKind::MixedLowRank { .. } => steps::layers::mixed(self, step)?,
            }
            // The second step of a group writes what the first does.
            if self.rounded.as_ref().is_some_and(|(buffer, _)| *buffer == step.kind.target()) {
                self.rounded = None;
            }
        }
        Ok(())
    }

    /// Adds a dispatch, unless there is nothing for it to do.
    pub(crate) fn launch(
        &mut self,
        covers: Covers,
        shape: Shape,
        extra: Extra,
        params: &impl Params,
        binds: Vec<Bind<'a>>,
        groups: impl Fn(&crate::variants::Variant) -> [u32; 3],
    ) -> Result<()> {
        let variant = choose(covers, shape, &self.gpu.tuning)
            .ok_or_else(|| failed(format!("no kernel covers {covers:?} of {shape:?}")))?;
        let groups = groups(variant);
        if groups.contains(&0) {
            return Ok(());
        }
        if let Some(n) = groups.iter().find(|&&n| n > u32::from(u16::MAX)) {
            return Err(failed(format!("{}: {n} workgroups in one direction", variant.name)));
        }
        let pipeline = self.gpu.pipeline(variant, extra);
        self.params.extend(params.words());
        self.launches.push(Launch { pipeline, binds, groups, steps: self.steps.clone() });
        self.params.resize(self.launches.len() * STRIDE / 4, 0);
        Ok(())
    }

    /// Adds rows of four words to the tables; where they begin, in rows.
    pub(crate) fn table(&mut self, rows: impl IntoIterator<Item = [u32; 4]>) -> u32 {
        let at = (self.words.len() / 4) as u32;
        self.words.extend(rows.into_iter().flatten());
        at
    }

    /// A buffer of an op of its own, of so many vec4 at least.
    pub(crate) fn slot(&mut self, index: usize, vec4: usize) -> Bind<'a> {
        if self.slots.len() <= index {
            self.slots.resize(index + 1, 1);
        }
        self.slots[index] = self.slots[index].max(vec4);
        Bind::Slot(index)
    }

    pub(crate) fn width(&self, id: BufferId) -> usize {
        self.program.buffers[id.0 as usize].width
    }

    /// vec4 a row of a buffer.
    pub(crate) fn stride(&self, id: BufferId) -> u32 {
        self.width(id).div_ceil(4) as u32
    }

    pub(crate) fn extent(&self, id: BufferId) -> Extent {
        self.program.buffers[id.0 as usize].extent
    }

    pub(crate) fn segments(&self, table: TableId) -> &'a [Segment] {
        &self.tables.tables[table.0 as usize].segments
    }

    /// The payload that a segment points to.
    pub(crate) fn payload(&self, segment: &Segment) -> Result<&'a Payload> {
        let found = segment.payload.and_then(|p| self.tables.payloads.get(p as usize));
        found.map(AsRef::as_ref).ok_or_else(|| Error::Program("a segment without its payload".into()))
    }

    /// The layers of a payload of this call.
    pub(crate) fn layers(&self, payload: &Payload) -> Result<&'a Layers> {
        let at = self.tables.payloads.iter().position(|p| p.id == payload.id);
        match at.and_then(|at| self.own.get(at)).map(AsRef::as_ref) {
            Some(Own::Layers(layers)) => Ok(layers),
            _ => Err(wrong_payload()),
        }
    }

    /// The numbers that a segment points to, here and on the device.
    pub(crate) fn op(&self, segment: &Segment) -> Result<(&'a Op, &'a Own)> {
        segment
            .payload
            .and_then(|p| Some((&self.tables.payloads.get(p as usize)?.op, self.own.get(p as usize)?.as_ref())))
            .ok_or_else(|| Error::Program("a segment without its payload".into()))
    }
}

pub(crate) fn wrong_payload() -> Error {
    Error::Program("a table points at a payload of another kind".into())
}
