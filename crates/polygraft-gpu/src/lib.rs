//! polygraft's GPU backend: replays a Program in WGSL compute shaders, through whatever `wgpu` finds.
//!
//! ```text
//! Program ─schedule→ groups of steps ─steps/→ launches ─one pass, one submit→ outputs ─one readback→ rows
//! ```
//!
//! The device holds the layers' weights at their stored size and the adapters' factors, all of these in one buffer, so
//! that one dispatch serves rows of many adapters. Rows of the embedding tables are gathered on the CPU and uploaded.
//! Which kernel runs is a row of the table in `variants`; a kernel says what canonical steps it covers, and is right
//! when it agrees with them.
#![forbid(unsafe_code)]

mod arena;
#[cfg(test)]
mod arena_tests;
mod backend;
#[cfg(any(test, target_arch = "wasm32"))]
mod bare;
mod buffers;
#[cfg(test)]
mod code_tests;
mod device;
mod encode;
mod gpu;
mod layers;
mod matrix;
mod params;
mod pipelines;
#[cfg(test)]
mod place_tests;
mod profile;
mod run;
mod schedule;
mod selftest;
#[cfg(test)]
mod shader_tests;
mod steps;
mod store;
mod tape;
mod tune;
#[cfg(test)]
mod variant_tests;
mod variants;

pub use backend::GpuBackend;
pub use device::{Allow, Device, DeviceInfo};
pub use gpu::{Gpu, Rounded};
pub use run::Run;

fn failed(why: String) -> polygraft::Error {
    polygraft::Error::Backend { backend: "gpu", why }
}
