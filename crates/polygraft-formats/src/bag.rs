//! A bag of tensors that a reader consumes: what is left over at the end is an error that names it.

use crate::container::{Header, TensorInfo};
use crate::error::{FormatError, Result, shown};
use crate::numbers;
use polygraft::tensor::Matrix;
use std::collections::BTreeMap;

/// The tensors of one adapter file.
#[derive(Debug, Clone)]
pub struct TensorBag {
    file: String,
    data: Vec<u8>,
    left: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl TensorBag {
    /// Opens a whole safetensors file.
    ///
    /// # Errors
    /// As [`Header::parse`].
    pub fn open(file: &str, data: Vec<u8>) -> Result<Self> {
        let header = Header::parse(file, &data, Some(data.len() as u64))?;
        let left = header.tensors.into_iter().map(|t| (t.name.clone(), t)).collect();
        Ok(Self { file: file.into(), data, left, metadata: header.metadata })
    }

    /// The file's name, for errors.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's metadata.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names that have not been taken, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.left.keys().map(String::as_str)
    }

    /// The shape of `name`, if it has not been taken.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.left.get(name).map(|t| t.shape.as_slice())
    }

    /// Takes the floats of `name`, upcast to f32; `None` when it is not there.
    ///
    /// # Errors
    /// [`FormatError::AdapterShape`] for another shape or a type that is not a float; [`FormatError::NotFinite`].
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some(info) = self.left.remove(name) else { return Ok(None) };
        let wrong = |expected: String, found: String| FormatError::AdapterShape {
            file: self.file.clone(),
            tensor: shown(name),
            expected,
            found,
        };
        if info.shape != shape {
            return Err(wrong(format!("{shape:?}"), format!("{:?}", info.shape)));
        }
        let start = usize::try_from(info.offset).ok();
        let end = usize::try_from(info.offset + info.bytes).ok();
        let bytes = start.zip(end).and_then(|(s, e)| self.data.get(s..e)).unwrap_or_default();
        let Some(values) = numbers::floats(info.dtype, bytes) else {
            return Err(wrong("floats (F32, F16, BF16 or F64)".into(), info.dtype.name().into()));
        };
        if let Some(index) = values.iter().position(|x| !x.is_finite()) {
            return Err(FormatError::NotFinite { file: self.file.clone(), tensor: shown(name), index });
        }
        Ok(Some(values))
    }

    /// Takes a matrix; `None` when it is not there.
    ///
    /// # Errors
    /// As [`TensorBag::take`].
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Option<Matrix>> {
        Ok(self.take(name, &[rows, cols])?.and_then(|values| Matrix::dense(rows, cols, values)))
    }

    /// Drops a tensor that is known to do nothing.
    pub fn ignore(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// Ends the reading. Strict: what is left over or was promised and missing is an error; else it is returned.
    ///
    /// # Errors
    /// [`FormatError::AdapterKeys`].
    pub fn finish(self, strict: bool, missing: Vec<String>) -> Result<Leftover> {
        let extra: Vec<String> = self.left.into_keys().collect();
        if strict && !(extra.is_empty() && missing.is_empty()) {
            return Err(FormatError::AdapterKeys { file: self.file, missing, extra });
        }
        Ok(Leftover { missing, extra })
    }
}

/// What did not fit, when the caller said not to be strict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftover {
    /// Promised and absent.
    pub missing: Vec<String>,
    /// Present and unused.
    pub extra: Vec<String>,
}
