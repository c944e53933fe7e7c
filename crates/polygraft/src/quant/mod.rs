//! Block layouts of quantized weights: one file each, encode and decode.

pub mod codes;
pub mod q4_0;
pub mod q8_0;

/// Elements in a block, along the input dimension.
pub const BLOCK: usize = 32;
