//! The backend on its own, where nothing else holds the base: it keeps the weights on the CPU side too, for gathers and
//! for adapters that depend on the base.

#[cfg(not(target_arch = "wasm32"))]
use crate::device::{Allow, Device};
use crate::failed;
use crate::gpu::Gpu;
use crate::run::Run;
use polygraft::Result;
use polygraft::backend::{Backend, Call, Matrices, Poll};
use polygraft::ir::PayloadId;
use polygraft::model::{ModelSpec, WeightId};
use polygraft::program::BufferId;
use polygraft::steps::Weights;
use polygraft::tensor::Matrix;

/// [`Gpu`] behind the seam of every backend.
#[derive(Debug)]
pub struct GpuBackend {
    gpu: Gpu,
    host: Host,
}

#[derive(Debug, Default)]
struct Host(Matrices);

impl Host {
    fn get(&self, id: WeightId) -> Result<&Matrix> {
        self.0.get(id).ok_or_else(|| failed(format!("weight {} was never loaded", id.0)))
    }
}

impl Weights for Host {
    fn row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        self.get(id)?.decode_row(row, out);
        Ok(())
    }
}

impl GpuBackend {
    /// Opens a device and tests it; a software device will do, it was asked for by name.
    ///
    /// # Errors
    /// When there is none, or it computes wrong numbers.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open() -> Result<Self> {
        let mut gpu = Gpu::new(block_on(Device::open(Allow::Any))?);
        let start = std::time::Instant::now();
        block_on(gpu.tune(&|| start.elapsed().as_secs_f64() * 1e3))?;
        block_on(gpu.self_test())?;
        Ok(Self::new(gpu))
    }

    /// A backend on a device that is open.
    #[must_use]
    pub fn new(gpu: Gpu) -> Self {
        Self { gpu, host: Host::default() }
    }

    /// What is on the device.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What is on the device, to choose its kernels.
    pub fn gpu_mut(&mut self) -> &mut Gpu {
        &mut self.gpu
    }
}

impl Backend for GpuBackend {
    type Run = Run;

    fn name(&self) -> &'static str {
        "gpu"
    }

    fn describe(&self) -> String {
        self.gpu.describe()
    }

    fn load_weight(&mut self, id: WeightId, matrix: Matrix) -> Result<()> {
        self.host.0.load(id, matrix);
        Ok(())
    }

    fn ready(&mut self, spec: &ModelSpec) -> Result<()> {
        for index in 0..spec.weights.len() {
            let id = WeightId(index as u32);
            self.gpu.load(spec, id, self.host.get(id)?)?;
        }
        Ok(())
    }

    fn weight_row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        self.host.row(id, row, out)
    }

    fn forget(&mut self, id: PayloadId) {
        self.gpu.forget(id);
    }

    fn memory(&self) -> usize {
        self.gpu.memory() + self.host.0.bytes()
    }

    fn payload_bytes(&self, id: PayloadId) -> usize {
        self.gpu.payload_bytes(id)
    }

    fn begin(&mut self, call: Call) -> Result<Run> {
        self.gpu.begin(call)
    }

    fn advance(&mut self, run: &mut Run, pause: &mut dyn FnMut() -> bool) -> Result<Poll> {
        self.gpu.advance(run, &self.host, pause)
    }

    fn read(&mut self, run: &Run, buffer: BufferId) -> Result<Vec<f32>> {
        self.gpu.read(run, buffer)
    }
}

/// Waits for a future whose work is done by blocking calls inside it, or by threads that wake this one.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    use std::sync::Arc;
    use std::task::{Context, Wake, Waker};
    struct Thread(std::thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
