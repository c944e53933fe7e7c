//! Base models: Hugging Face folders, Sentence-Transformers around them, and polygraft's own quantized form of both.

mod assemble;
pub mod config;
mod direct;
pub(crate) mod fields;
mod layout;
mod lineage;
mod loader;
pub mod meta;
mod rows;
pub mod sentence;
pub mod special;
pub mod write;

pub(crate) use direct::place_all;
pub use loader::{BaseLoader, TensorPlan};
pub use rows::BaseRows;
