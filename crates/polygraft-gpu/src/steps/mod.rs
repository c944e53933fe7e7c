//! The canonical steps as launches, one file each: the twin of `polygraft::steps`.

pub(crate) mod attention;
pub(crate) mod block;
pub(crate) mod columns;
pub(crate) mod layers;
pub(crate) mod linear;
pub(crate) mod low_rank;
pub(crate) mod norm;
pub(crate) mod pointwise;
pub(crate) mod pool;
