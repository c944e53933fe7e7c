//! A call in flight, and the loop over its steps.

use crate::attention::Heads;
use crate::codes::Even;
use crate::kernels::Isa;
use crate::profile::{Clock, Stopwatch};
use crate::quantize::Quantized;
use crate::schedule::{Pass, Work, schedule};
use crate::slices::{Ended, Slices};
use crate::store::{Own, Store};
use crate::{attention, block, failed, linear, lowrank, norm, places, rows};
use polygraft::backend::{Call, Poll, Timing};
use polygraft::ir::{Op, Payload};
use polygraft::program::{BufferId, Extent, Program, Segment, Step, StepKind, TableId, Tables};
use polygraft::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// A call in flight: its buffers, and how far it has come.
#[derive(Debug)]
pub struct Run {
    call: Call,
    own: Vec<Arc<Own>>,
    buffers: Vec<Vec<f32>>,
    scratch: Scratch,
    passes: Vec<Pass>,
    pass: usize,
    tasks: usize,
    watch: Stopwatch,
}

/// Memory that steps reuse.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Decoded panels.
    pub(crate) panels: Vec<f32>,
    /// 4-bit codes of one panel, each in a place of its own.
    pub(crate) words: Vec<u32>,
    /// Biases of the panels at work, padded.
    pub(crate) bias: Vec<f32>,
    /// Products that cannot go straight to their buffer.
    pub(crate) tile: Vec<f32>,
    /// A matrix in codes, as the integer kernels read it.
    pub(crate) even: Even,
    /// Low-rank hidden values.
    pub(crate) hidden: Vec<f32>,
    /// The input of the linear layer at work, in 8 bits.
    pub(crate) quantized: Quantized,
    /// What rounding left of it, where that counts.
    pub(crate) rest: Quantized,
    /// What the kernel before left in 8 bits, and what the one at work leaves.
    pub(crate) handed: [Quantized; 2],
    pub(crate) heads: Heads,
    /// Rotations by position.
    pub(crate) turns: Vec<places::Turns>,
}

/// What one step works with.
pub(crate) struct Frame<'a> {
    pub(crate) isa: Isa,
    pub(crate) store: &'a Store,
    pub(crate) call: &'a Call,
    pub(crate) own: &'a [Arc<Own>],
    pub(crate) buffers: &'a mut [Vec<f32>],
    pub(crate) scratch: &'a mut Scratch,
    /// The kernel's place among the call's.
    pub(crate) index: usize,
}

impl Run {
    pub(crate) fn new(call: Call, own: Vec<Arc<Own>>, store: &Store, clock: Option<Clock>) -> Self {
        let passes = schedule(&call.program, store, call.precision);
        let watch = Stopwatch::new(clock, passes.len());
        let buffers = call.program.buffers.iter().map(|b| vec![0.0; b.width * call.tables.len(b.extent)]).collect();
        Self { call, own, buffers, scratch: Scratch::default(), passes, pass: 0, tasks: 0, watch }
    }

    pub(crate) fn advance(&mut self, isa: Isa, store: &Store, pause: &mut dyn FnMut() -> bool) -> Result<Poll> {
        let mut worked = false;
        while let Some(pass) = self.passes.get(self.pass) {
            let mut frame = Frame {
                isa,
                store,
                call: &self.call,
                own: &self.own,
                buffers: &mut self.buffers,
                scratch: &mut self.scratch,
                index: self.pass,
            };
            let mut slices = Slices { done: &mut self.tasks, worked: &mut worked, pause: &mut *pause };
            if self.watch.book(self.pass, || frame.eval(pass, &mut slices))? == Ended::Paused {
                return Ok(Poll::More);
            }
            self.pass += 1;
            self.tasks = 0;
        }
        Ok(Poll::Done)
    }

    /// Time by kernel, in the order of the Program; empty unless the backend was given a clock.
    #[must_use]
    pub fn profile(&self) -> Vec<Timing> {
        let passes = self.passes.iter().enumerate();
        passes
            .filter_map(|(i, pass)| {
                let milliseconds = self.watch.of(i)?;
                Some(Timing { kernel: pass.name, steps: pass.steps.clone(), milliseconds })
            })
            .collect()
    }

    pub(crate) fn read(&self, buffer: BufferId) -> Result<Vec<f32>> {
        if self.pass < self.passes.len() {
            return Err(failed("an output was read before the call was done".into()));
        }
        self.buffers.get(buffer.0 as usize).cloned().ok_or_else(|| failed(format!("there is no buffer {}", buffer.0)))
    }
}

impl<'a> Frame<'a> {
    fn eval(&mut self, pass: &Pass, slices: &mut Slices<'_>) -> Result<Ended> {
        match &pass.work {
            Work::Linear(work) => linear::linear(self, work, slices),
            Work::Step => self.step(pass.steps.start, slices),
        }
    }

    /// One step by itself.
    fn step(&mut self, index: usize, slices: &mut Slices<'_>) -> Result<Ended> {
        let step = &self.program().steps[index];
        // The buffer that the step writes is out of the list while it runs, so that the others can be borrowed.
        let target = step.kind.target();
        let mut out = self.take(target);
        let ended = match step.kind {
            StepKind::Embed { .. } => rows::embed(self, step, &mut out, slices),
            StepKind::Patches { .. } => rows::patches(self, &mut out),
            StepKind::LayerNorm { .. } => norm::layer_norm(self, step, &mut out, slices),
            // A kernel covers every linear layer.
            StepKind::Linear { .. } => Err(failed("a linear layer without a kernel".into())),
            StepKind::LowRank { .. } => lowrank::low_rank(self, index, step, &mut out, slices),
            StepKind::Offset { .. } => rows::offset(self, step, &mut out, slices),
            StepKind::Attention { .. } => attention::attention(self, index, step, &mut out, slices),
            StepKind::Add { .. } => rows::add(self, step, &mut out, slices),
            StepKind::Activate { .. } => rows::activate(self, step, &mut out, slices),
            StepKind::Pool { .. } => rows::pool(self, step, &mut out, slices),
            StepKind::Normalize { .. } => norm::normalize(self, step, &mut out, slices),
            StepKind::Bottleneck { .. } => block::bottleneck(self, step, &mut out, slices),
            StepKind::Insert { .. } => block::insert(self, step, &mut out, slices),
            StepKind::Couple { .. } => block::couple(self, step, &mut out, slices),
            StepKind::Reft { .. } => block::reft(self, step, &mut out, slices),
            StepKind::MixedLowRank { .. } => block::mixed(self, step, &mut out, slices),
            StepKind::Copy { .. } => rows::copy(self, step, &mut out, slices),
            StepKind::Gate { .. } => rows::gate(self, step, &mut out, slices),
            StepKind::Positions { .. } => places::positions(self, step, &mut out, slices),
            StepKind::Rotate { .. } => places::rotate(self, step, &mut out, slices),
            StepKind::Unfold { .. } => places::unfold(self, step, &mut out, slices),
        };
        self.put(target, out);
        ended
    }

    /// Takes a buffer out, to be written.
    pub(crate) fn take(&mut self, id: BufferId) -> Vec<f32> {
        std::mem::take(&mut self.buffers[id.0 as usize])
    }

    /// Puts a buffer back.
    pub(crate) fn put(&mut self, id: BufferId, values: Vec<f32>) {
        self.buffers[id.0 as usize] = values;
    }

    pub(crate) fn program(&self) -> &'a Program {
        &self.call.program
    }

    pub(crate) fn tables(&self) -> &'a Tables {
        &self.call.tables
    }

    pub(crate) fn width(&self, id: BufferId) -> usize {
        self.program().buffers[id.0 as usize].width
    }

    /// The ranges of the target's extent that the step's scope names, cut into pieces of at most `size`.
    pub(crate) fn pieces(&self, step: &Step, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        self.scope(step).into_iter().flat_map(move |range| cut(range, size))
    }

    /// The ranges of the target's extent that the step's scope names.
    pub(crate) fn scope(&self, step: &Step) -> Vec<Range<usize>> {
        let extent: Extent = self.program().buffers[step.kind.target().0 as usize].extent;
        self.tables().ranges(step.scope, extent)
    }

    pub(crate) fn segments(&self, table: TableId) -> &'a [Segment] {
        &self.tables().tables[table.0 as usize].segments
    }

    /// What a segment points to.
    pub(crate) fn payload(&self, segment: &Segment) -> Result<&'a Payload> {
        let payload = segment.payload.and_then(|p| self.tables().payloads.get(p as usize));
        payload.map(AsRef::as_ref).ok_or_else(|| Error::Program("a segment without its payload".into()))
    }

    /// The numbers that a segment points to, and their packed form.
    pub(crate) fn op(&self, segment: &Segment) -> Result<(&'a Op, &'a Own)> {
        let own: &'a [Arc<Own>] = self.own;
        segment
            .payload
            .and_then(|p| Some((&self.tables().payloads.get(p as usize)?.op, own.get(p as usize)?.as_ref())))
            .ok_or_else(|| Error::Program("a segment without its payload".into()))
    }
}

/// `range` in pieces of at most `size`.
pub(crate) fn cut(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size.max(1)).map(move |start| start..end.min(start + size.max(1)))
}

pub(crate) fn wrong_payload() -> Error {
    Error::Program("a table points at a payload of another kind".into())
}
