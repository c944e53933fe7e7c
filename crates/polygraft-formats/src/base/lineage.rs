//! Which training run a base comes from.
//!
//! The biases and norms of a model are a fraction of a percent of it, different in every training run, and kept as
//! they are by quantization: their hash tells a 4-bit and an f32 copy of one model from any other model.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Hashes vectors as they stream by, in any order.
#[derive(Debug, Default)]
pub(crate) struct Lineage(BTreeMap<String, [u8; 32]>);

impl Lineage {
    pub(crate) fn add(&mut self, name: &str, values: &[f32]) {
        let mut hash = Sha256::new();
        for v in values {
            hash.update(v.to_le_bytes());
        }
        self.0.insert(name.to_owned(), hash.finalize().into());
    }

    /// 64 hexadecimal digits.
    pub(crate) fn finish(&self) -> String {
        let mut hash = Sha256::new();
        for (name, vector) in &self.0 {
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update(vector);
        }
        hex(&hash.finalize())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
