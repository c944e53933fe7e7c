//! Containers: bytes to named tensors, with hard limits at the top of each file.

pub mod safetensors;
pub(crate) mod torch;
pub mod write;

pub use safetensors::{Dtype, Header, TensorInfo};
