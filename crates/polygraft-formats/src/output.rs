//! Results as a safetensors file.

use crate::container::Dtype;
use crate::container::write::{Entry, whole};
use crate::error::Result;
use crate::numbers;
use std::collections::BTreeMap;

/// Named tensors to be written.
#[derive(Debug, Default)]
pub struct TensorFile(Vec<(Entry, Vec<u8>)>);

impl TensorFile {
    /// No tensors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor; `values` is as long as `shape` says.
    pub fn add_f32(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        self.0
            .push((Entry { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec() }, numbers::f32_bytes(&values)));
    }

    /// Adds a tensor of whole numbers; `values` is as long as `shape` says.
    pub fn add_i64(&mut self, name: &str, shape: &[usize], values: &[i64]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.push((Entry { name: name.into(), dtype: Dtype::I64, shape: shape.to_vec() }, bytes));
    }

    /// The file.
    ///
    /// # Errors
    /// [`crate::FormatError::Duplicate`]; [`crate::FormatError::Argument`] when a length does not agree with its shape.
    pub fn bytes(self) -> Result<Vec<u8>> {
        whole("output", self.0, &BTreeMap::new())
    }
}
