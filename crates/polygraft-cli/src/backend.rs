//! The backend that the user named, and no other.

use crate::args::{BackendName, Compute, PrecisionName};
use crate::error::{Error, Result};
use polygraft::backend::{Backend, Call, Poll, Precision, Timing};
use polygraft::ir::PayloadId;
use polygraft::model::{ModelSpec, WeightId};
use polygraft::program::BufferId;
use polygraft::reference::{self, Reference};
use polygraft::tensor::Matrix;
use polygraft_cpu::Cpu;
use polygraft_gpu::{GpuBackend, Run as GpuRun};

/// One of the backends that this build has.
pub(crate) enum AnyBackend {
    Reference(Reference),
    Cpu(Box<Cpu>),
    Gpu(Box<GpuBackend>),
}

/// A call in flight on one of them.
pub(crate) enum AnyRun {
    Reference(reference::Run),
    Cpu(Box<<Cpu as Backend>::Run>),
    Gpu(Box<GpuRun>),
}

impl AnyBackend {
    pub(crate) fn new(name: BackendName) -> Result<Self> {
        match name {
            BackendName::Reference => Ok(Self::Reference(Reference::new())),
            BackendName::Cpu => Ok(Self::Cpu(Box::new(Cpu::new()))),
            BackendName::Gpu => Ok(Self::Gpu(Box::new(GpuBackend::open()?))),
        }
    }

    /// The precision asked for, or the default: fast for quantized bases on `cpu`, else exact.
    pub(crate) fn precision(compute: &Compute, spec: &ModelSpec) -> Precision {
        match (compute.precision, compute.backend) {
            (Some(PrecisionName::Exact), _) | (None, BackendName::Reference | BackendName::Gpu) => Precision::Exact,
            (Some(PrecisionName::Fast), _) => Precision::Fast,
            (None, BackendName::Cpu) => {
                let quantized = spec.linears.values().any(|l| spec.weight(l.weight).scheme.is_quantized());
                if quantized { Precision::Fast } else { Precision::Exact }
            }
        }
    }
}

impl AnyBackend {
    /// Has calls that begin from now on measure themselves.
    pub(crate) fn measure(&mut self, clock: polygraft_cpu::Clock) -> Result<()> {
        let why = match self {
            Self::Cpu(cpu) => {
                cpu.measure(Some(clock));
                return Ok(());
            }
            Self::Gpu(gpu) => {
                if gpu.gpu_mut().measure() {
                    return Ok(());
                }
                format!("{} has no timestamps: use --backend cpu", gpu.describe())
            }
            Self::Reference(_) => "the reference has no kernels to time: use --backend cpu or gpu".to_owned(),
        };
        Err(Error::Usage(why))
    }
}

impl AnyRun {
    /// Time by kernel, where it was measured.
    pub(crate) fn profile(&self) -> Vec<Timing> {
        match self {
            Self::Reference(_) => Vec::new(),
            Self::Cpu(run) => run.profile(),
            Self::Gpu(run) => run.profile().to_vec(),
        }
    }
}

macro_rules! each {
    ($self:expr, $b:ident => $body:expr) => {
        match $self {
            Self::Reference($b) => $body,
            Self::Cpu($b) => $body,
            Self::Gpu($b) => $body,
        }
    };
}

fn mixed() -> polygraft::Error {
    polygraft::Error::Program("a call of one backend was given to another".into())
}

impl Backend for AnyBackend {
    type Run = AnyRun;

    fn name(&self) -> &'static str {
        each!(self, b => b.name())
    }

    fn describe(&self) -> String {
        each!(self, b => b.describe())
    }

    fn load_weight(&mut self, id: WeightId, matrix: Matrix) -> polygraft::Result<()> {
        each!(self, b => b.load_weight(id, matrix))
    }

    fn ready(&mut self, spec: &ModelSpec) -> polygraft::Result<()> {
        each!(self, b => b.ready(spec))
    }

    fn weight_row(&self, id: WeightId, row: usize, out: &mut [f32]) -> polygraft::Result<()> {
        each!(self, b => b.weight_row(id, row, out))
    }

    fn forget(&mut self, id: PayloadId) {
        each!(self, b => b.forget(id));
    }

    fn memory(&self) -> usize {
        each!(self, b => b.memory())
    }

    fn payload_bytes(&self, id: PayloadId) -> usize {
        each!(self, b => b.payload_bytes(id))
    }

    fn begin(&mut self, call: Call) -> polygraft::Result<AnyRun> {
        match self {
            Self::Reference(b) => b.begin(call).map(AnyRun::Reference),
            Self::Cpu(b) => b.begin(call).map(|run| AnyRun::Cpu(Box::new(run))),
            Self::Gpu(b) => b.begin(call).map(|run| AnyRun::Gpu(Box::new(run))),
        }
    }

    fn advance(&mut self, run: &mut AnyRun, pause: &mut dyn FnMut() -> bool) -> polygraft::Result<Poll> {
        match (self, run) {
            (Self::Reference(b), AnyRun::Reference(r)) => b.advance(r, pause),
            (Self::Cpu(b), AnyRun::Cpu(r)) => b.advance(r, pause),
            (Self::Gpu(b), AnyRun::Gpu(r)) => b.advance(r, pause),
            (Self::Reference(_) | Self::Cpu(_) | Self::Gpu(_), _) => Err(mixed()),
        }
    }

    fn read(&mut self, run: &AnyRun, buffer: BufferId) -> polygraft::Result<Vec<f32>> {
        match (self, run) {
            (Self::Reference(b), AnyRun::Reference(r)) => b.read(r, buffer),
            (Self::Cpu(b), AnyRun::Cpu(r)) => b.read(r, buffer),
            (Self::Gpu(b), AnyRun::Gpu(r)) => b.read(r, buffer),
            (Self::Reference(_) | Self::Cpu(_) | Self::Gpu(_), _) => Err(mixed()),
        }
    }
}
