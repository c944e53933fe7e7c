//! polygraft-formats: what comes from strangers, turned into polygraft's types or refused with a reason.
//!
//! Every reader is strict: a tensor that nothing uses, one that is promised and missing, a shape that is not the
//! configuration's, a number that is not finite, a setting that would change the result and is not known: each is an
//! error that names it. Nothing here touches a disk or a network; [`Files`] is the seam.
#![forbid(unsafe_code)]

pub mod adapter;
mod architectures;
pub mod bag;
pub mod base;
mod change;
mod charsmap;
pub mod combine;
pub mod container;
mod dense;
pub mod e5bin;
pub mod error;
pub mod hub;
pub mod index;
mod json;
pub mod language;
pub mod maths;
pub mod names;
mod numbers;
mod output;
pub mod packed;
mod patterns;
pub mod peft;
pub mod quantize;
pub mod source;
pub mod sparse;
pub mod tokenizer;

pub use adapter::{AdapterOptions, Loaded, load, load_adapter};
pub use base::{BaseLoader, BaseRows, TensorPlan};
pub use error::{FormatError, Result};
pub use index::{read_index, write_index};
pub use language::write_language_vector;
pub use output::TensorFile;
pub use source::{Files, MemoryFiles};
pub use tokenizer::Tokenizer;
