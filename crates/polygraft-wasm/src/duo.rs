//! The CPU backend with a GPU beside it: the CPU holds the base for good, the GPU takes calls that are large enough for
//! as long as it is there.

use crate::failure::{Failure, Result};
use polygraft::Error;
use polygraft::backend::{Backend, Call, Poll, Timing};
use polygraft::ir::PayloadId;
use polygraft::model::{ModelSpec, WeightId};
use polygraft::program::BufferId;
use polygraft::tensor::Matrix;
use polygraft_cpu::Cpu;
use polygraft_gpu::Gpu;
use std::collections::BTreeMap;
use std::pin::Pin;

/// More tokens than any call has.
const BEYOND: usize = 1 << 24;

/// Both.
#[derive(Debug)]
pub(crate) struct Duo {
    cpu: Cpu,
    gpu: Option<Gpu>,
    /// Calls of at least so many tokens go to the GPU.
    crossover: usize,
    waiting: Option<Waiting>,
    /// Whether calls measure themselves.
    measures: bool,
    /// Milliseconds by kernel since they were last taken.
    spent: BTreeMap<&'static str, f64>,
}

/// A call in flight on one of them.
pub(crate) enum Run {
    Cpu(Box<<Cpu as Backend>::Run>),
    Gpu(Box<polygraft_gpu::Run>),
}

/// Done when the GPU has answered.
pub(crate) struct Waiting(pub(crate) Pin<Box<dyn Future<Output = ()>>>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
}

impl Duo {
    /// No GPU and no weights.
    pub(crate) fn new() -> Self {
        Self {
            cpu: Cpu::new(),
            gpu: None,
            crossover: usize::MAX,
            waiting: None,
            measures: false,
            spent: BTreeMap::new(),
        }
    }

    /// Uploads the base's layers to `gpu`, in place of one that was there.
    pub(crate) fn attach(&mut self, spec: &ModelSpec, mut gpu: Gpu) -> Result<()> {
        self.gpu = None;
        for index in 0..spec.weights.len() {
            let id = WeightId(index as u32);
            let matrix = self.cpu.weight(id)?;
            gpu.load(spec, id, &matrix)?;
        }
        if self.measures {
            gpu.measure();
        }
        self.gpu = Some(gpu);
        Ok(())
    }

    /// Gives the GPU up; calls in flight on it fail.
    pub(crate) fn detach(&mut self) {
        self.gpu = None;
        self.crossover = usize::MAX;
    }

    /// Sends calls of at least `tokens` to the GPU, if there is one.
    pub(crate) fn cross_at(&mut self, tokens: usize) {
        self.crossover = tokens;
    }

    /// Whether the GPU takes any calls at all.
    pub(crate) fn shares(&self) -> bool {
        self.gpu.is_some() && self.crossover < BEYOND
    }

    /// Has calls measure themselves by kernel from now on: on the CPU by `clock`, on a GPU that has timestamps by those.
    pub(crate) fn measure(&mut self, clock: polygraft_cpu::Clock) {
        self.measures = true;
        self.cpu.measure(Some(clock));
        if let Some(gpu) = &mut self.gpu {
            gpu.measure();
        }
    }

    /// Milliseconds by kernel since this was last asked.
    pub(crate) fn take_spent(&mut self) -> BTreeMap<&'static str, f64> {
        std::mem::take(&mut self.spent)
    }

    /// The answer that the last call that was waiting waits for.
    pub(crate) fn take_waiting(&mut self) -> Option<Waiting> {
        self.waiting.take()
    }
}

fn book(spent: &mut BTreeMap<&'static str, f64>, timings: &[Timing]) {
    for timing in timings {
        *spent.entry(timing.kernel).or_default() += timing.milliseconds;
    }
}

fn gone() -> Error {
    Error::DeviceLost { why: "it was given up in mid-call".into() }
}

impl Backend for Duo {
    type Run = Run;

    fn name(&self) -> &'static str {
        if self.gpu.is_some() { "gpu" } else { "cpu" }
    }

    fn describe(&self) -> String {
        self.gpu.as_ref().map_or_else(|| self.cpu.describe(), Gpu::describe)
    }

    fn load_weight(&mut self, id: WeightId, matrix: Matrix) -> polygraft::Result<()> {
        self.cpu.load_weight(id, matrix)
    }

    fn ready(&mut self, spec: &ModelSpec) -> polygraft::Result<()> {
        self.cpu.ready(spec)
    }

    fn weight_row(&self, id: WeightId, row: usize, out: &mut [f32]) -> polygraft::Result<()> {
        self.cpu.weight_row(id, row, out)
    }

    fn forget(&mut self, id: PayloadId) {
        self.cpu.forget(id);
        if let Some(gpu) = &mut self.gpu {
            gpu.forget(id);
        }
    }

    fn memory(&self) -> usize {
        self.cpu.memory()
    }

    fn payload_bytes(&self, id: PayloadId) -> usize {
        self.cpu.payload_bytes(id) + self.gpu.as_ref().map_or(0, |gpu| gpu.payload_bytes(id))
    }

    fn begin(&mut self, call: Call) -> polygraft::Result<Run> {
        match &mut self.gpu {
            Some(gpu) if call.tables.tokens() >= self.crossover => match gpu.begin(call.clone()) {
                // Beyond a device's limits, not beyond the CPU's: a row too long for a buffer, adapters that do not fit.
                Err(Error::Backend { .. }) => {}
                begun => return begun.map(|run| Run::Gpu(Box::new(run))),
            },
            Some(_) | None => {}
        }
        self.cpu.begin(call).map(|run| Run::Cpu(Box::new(run)))
    }

    fn advance(&mut self, run: &mut Run, pause: &mut dyn FnMut() -> bool) -> polygraft::Result<Poll> {
        match run {
            Run::Cpu(run) => {
                let poll = self.cpu.advance(run, pause)?;
                if poll == Poll::Done {
                    book(&mut self.spent, &run.profile());
                }
                Ok(poll)
            }
            Run::Gpu(run) => {
                let gpu = self.gpu.as_mut().ok_or_else(gone)?;
                let poll = gpu.advance(run, &self.cpu, pause)?;
                if poll == Poll::Done {
                    book(&mut self.spent, run.profile());
                }
                if poll == Poll::Waiting {
                    self.waiting = Some(Waiting(Box::pin(run.answered())));
                }
                Ok(poll)
            }
        }
    }

    fn read(&mut self, run: &Run, buffer: BufferId) -> polygraft::Result<Vec<f32>> {
        match run {
            Run::Cpu(run) => self.cpu.read(run, buffer),
            Run::Gpu(run) => self.gpu.as_ref().ok_or_else(gone)?.read(run, buffer),
        }
    }
}

/// Opens a GPU, picks its kernels by `clock` (milliseconds), and proves it on known answers; `software` lets one in that is a program on the CPU.
pub(crate) async fn open(software: bool, clock: &dyn Fn() -> f64) -> Result<Gpu> {
    use polygraft_gpu::{Allow, Device};
    let allow = if software { Allow::Any } else { Allow::Hardware };
    let mut gpu = Gpu::new(Device::open(allow).await?);
    gpu.tune(clock).await?;
    gpu.self_test().await?;
    Ok::<_, Failure>(gpu)
}
