//! polygraft's CPU backend: replays a Program with SIMD kernels, one thread, in slices of well under a millisecond.
//!
//! ```text
//! Matrix ─pack→ Packed ─decode→ f32 panels ─┐
//! activations ─quantize→ codes ─────────────┴─kernels→ outputs      one file a kind of step, run.rs in the middle
//! ```
//!
//! Weights are held in panels at their stored size ([`pack`]) and decoded a few outputs at a time, never as a whole.
//! [`Precision::Exact`](polygraft::backend::Precision) multiplies f32 activations with decoded panels; `Fast` rounds the
//! activations of quantized linear layers to 8 bits a block of 32 and multiplies integers. In both, a row's result does
//! not depend on the rows around it, to the bit.

mod attention;
mod block;
#[doc(hidden)]
pub mod check;
mod codes;
mod decode;
mod kernels;
mod linear;
mod lowrank;
mod math;
mod norm;
mod pack;
mod placed;
mod places;
mod profile;
mod quantize;
mod rows;
mod run;
mod schedule;
mod slices;
mod store;
mod unpack;

/// The kernels that are written in assembly, for the crate that becomes the module: a library's assembly is read before
/// anyone knows which instructions the module may have. Nothing where there are none.
#[macro_export]
macro_rules! assembly {
    () => {
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        ::std::arch::global_asm!(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../polygraft-cpu/src/kernels/wasm/pairs.s"
        )));
    };
}

pub use profile::Clock;
pub use run::Run;

use kernels::Isa;
use polygraft::backend::{Backend, Call, Poll};
use polygraft::ir::PayloadId;
use polygraft::model::{ModelSpec, WeightId};
use polygraft::program::{BufferId, StepKind};
use polygraft::tensor::Matrix;
use polygraft::{Error, Result};
use std::borrow::Cow;
use store::Store;

/// The CPU backend.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    store: Store,
    clock: Option<Clock>,
}

impl Cpu {
    /// A backend without weights, with the best kernels that this machine has.
    #[must_use]
    pub fn new() -> Self {
        let isa = Isa::detect();
        Self { isa, store: Store::new(isa), clock: None }
    }

    /// Has calls that begin from now on measure themselves by `clock`: see [`Run::profile`].
    pub fn measure(&mut self, clock: Option<Clock>) {
        self.clock = clock;
    }
}

impl Cpu {
    /// Weight `id` as it was loaded, without loss: for a device that takes the layers over.
    ///
    /// # Errors
    /// When the weight is not there.
    pub fn weight(&self, id: WeightId) -> Result<Cow<'_, Matrix>> {
        self.store.matrix(id)
    }
}

impl polygraft::steps::Weights for Cpu {
    fn row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        self.store.row(id, row, out)
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

fn failed(why: String) -> Error {
    Error::Backend { backend: "cpu", why }
}

impl Backend for Cpu {
    type Run = Run;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn describe(&self) -> String {
        format!("cpu: {}", self.isa.name())
    }

    fn load_weight(&mut self, id: WeightId, matrix: Matrix) -> Result<()> {
        self.store.load(id, matrix);
        Ok(())
    }

    fn ready(&mut self, spec: &ModelSpec) -> Result<()> {
        for index in 0..spec.weights.len() {
            self.store.held(WeightId(index as u32))?;
        }
        spec.linears.values().try_for_each(|linear| self.store.pack(linear.weight))
    }

    fn weight_row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        self.store.row(id, row, out)
    }

    fn forget(&mut self, id: PayloadId) {
        self.store.forget(id);
    }

    fn memory(&self) -> usize {
        self.store.bytes()
    }

    fn payload_bytes(&self, id: PayloadId) -> usize {
        self.store.payload_bytes(id)
    }

    fn begin(&mut self, call: Call) -> Result<Run> {
        for step in &call.program.steps {
            if let StepKind::Linear { weight: Some(id), .. } = step.kind {
                self.store.pack(id)?;
            }
        }
        let own = call.tables.payloads.iter().map(|p| self.store.own(p)).collect();
        Ok(Run::new(call, own, &self.store, self.clock))
    }

    fn advance(&mut self, run: &mut Run, pause: &mut dyn FnMut() -> bool) -> Result<Poll> {
        run.advance(self.isa, &self.store, pause)
    }

    fn read(&mut self, run: &Run, buffer: BufferId) -> Result<Vec<f32>> {
        run.read(buffer)
    }
}
