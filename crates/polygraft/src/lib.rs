//! polygraft: many adapters, one small transformer.
//!
//! ```text
//! checkpoint bytes → (polygraft-formats) → AdapterIr → compose → Program + Tables → Backend → outputs → tasks
//! ```
//!
//! Two data types carry everything. [`ir::AdapterIr`] says what an adapter changes: a list of patches, each an op at
//! a site. [`program::Program`] says what runs: a flat list of canonical steps, the same for every mix of adapters of
//! the same shapes; who takes which patch, with which scale, is in the [`program::Tables`] of each call. The naive f32
//! evaluation of each step (`steps/`) is its definition, and [`reference::Reference`] replays it: the oracle that every
//! other backend is tested against.
//!
//! This crate does no I/O, reads no clock and has no globals.
#![forbid(unsafe_code)]

pub mod backend;
pub mod batch;
pub mod compose;
pub mod error;
pub mod ir;
pub mod merge;
pub mod model;
pub mod plan;
pub mod program;
pub mod quant;
pub mod reference;
pub mod session;
pub mod share;
pub mod steps;
pub mod tasks;
pub mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
pub mod text;

pub use compose::Compose;
pub use error::{Error, Result};
pub use session::Session;
