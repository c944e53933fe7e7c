//! Base models: Hugging Face folders, Sentence-Transformers around them, and polygraft's own quantized form of both.

mod assemble;
pub mod config;
mod direct;
pub(crate) mod fields;
mod layout;
pub(crate) mod lineage;
mod loader;
pub mod manifest;
pub mod meta;
mod rows;
pub mod sentence;
pub mod special;
pub mod write;

pub(crate) use direct::place_all;
pub use loader::{BaseLoader, TensorPlan};
pub use rows::BaseRows;

use crate::architectures;
use polygraft::model::HeadTask;
use std::collections::BTreeSet;

/// A family of bases that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseFamily {
    /// What `model_type` may say.
    pub model_types: &'static [&'static str],
    /// What the names of its classes in `transformers` begin with.
    pub class: &'static str,
    /// The heads that it may have.
    pub heads: BTreeSet<HeadTask>,
}

/// The families that are read, in the order of the table.
pub fn families() -> impl Iterator<Item = BaseFamily> {
    architectures::ALL.iter().map(|a| BaseFamily {
        model_types: a.model_types,
        class: a.class,
        heads: a.heads.iter().map(|(task, ..)| *task).collect(),
    })
}
