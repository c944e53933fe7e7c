//! A base whose matrices stay in their files until rows of them are asked for: what converting needs, which must not
//! hold a model in full precision. A multilingual model's word table alone may be most of it.

use super::layout;
use super::loader::BaseLoader;
use crate::container::TensorInfo;
use crate::container::safetensors::header_len;
use crate::error::{FormatError, Result};
use crate::source::Files;
use polygraft::model::{ModelSpec, WeightId};
use polygraft::tensor::{Matrix, Scheme};
use std::collections::BTreeMap;

/// Enough to see the length of a header, or what a file is instead.
const START: u64 = 64;

/// Where a weight's numbers are.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shard: String,
    /// The tensor, or its codes.
    pub(super) info: TensorInfo,
    /// Of codes, their scheme and their scales.
    pub(super) scales: Option<(Scheme, TensorInfo)>,
    pub(super) vector: bool,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// A base that is known and not loaded.
pub struct BaseRows<'a> {
    files: &'a dyn Files,
    spec: ModelSpec,
    places: BTreeMap<WeightId, Place>,
}

impl<'a> BaseRows<'a> {
    /// Reads all but the matrices.
    ///
    /// # Errors
    /// As [`BaseLoader`].
    pub fn open(files: &'a dyn Files) -> Result<Self> {
        let mut loader = BaseLoader::vectors(files)?;
        let mut planned = Vec::new();
        for shard in loader.shards().to_vec() {
            let len = files.len(&shard)?;
            let head = header_len(&shard, &files.range(&shard, 0, len.min(START))?)?;
            // A header that claims more than the file has is refused by the reader, which sees both numbers.
            let plans = loader.begin(&shard, &files.range(&shard, 0, head.min(len))?, len)?;
            planned.push((shard, plans));
        }
        for (shard, plans) in planned {
            for plan in plans {
                loader.tensor(&shard, plan.index, files.range(&shard, plan.offset, plan.bytes)?)?;
            }
        }
        let places = loader.places();
        Ok(Self { files, spec: loader.finish()?, places })
    }

    /// What the model is.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Reads weight `id` and puts it in runs of whole rows, first to last; of `most` bytes of the file each, and at
    /// least one row. What is quantized already, and what is stored in another order, comes whole.
    ///
    /// # Errors
    /// [`FormatError::NotFinite`], [`FormatError::Io`], [`FormatError::Range`]; what `put` says.
    pub fn each(&self, id: WeightId, most: u64, put: &mut dyn FnMut(Matrix) -> Result<()>) -> Result<()> {
        let Some(place) = self.places.get(&id) else { return Ok(()) };
        let Place { shard, info, rows, cols, .. } = place;
        let bytes = |info: &TensorInfo| self.files.range(shard, info.offset, info.bytes);
        if let Some((scheme, scales)) = &place.scales {
            let scales = bytes(scales)?;
            return put(layout::codes(shard, &info.name, *scheme, *rows, *cols, bytes(info)?, &scales)?);
        }
        if layout::is_convolution(info) {
            return put(layout::convolution(shard, info, &bytes(info)?, *cols)?);
        }
        if place.vector {
            return put(layout::dense(shard, info, &bytes(info)?, *rows, *cols, true)?);
        }
        let row = info.dtype.size() * *cols as u64;
        let step = usize::try_from(most / row.max(1)).unwrap_or(usize::MAX).max(1);
        for start in (0..*rows).step_by(step) {
            let run = step.min(rows - start);
            let bytes = self.files.range(shard, info.offset + start as u64 * row, run as u64 * row)?;
            put(layout::dense(shard, info, &bytes, run, *cols, false).map_err(|e| within(e, start * cols))?)?;
        }
        Ok(())
    }
}

/// An error about a run of rows as one about the whole weight, before which `before` numbers lie.
fn within(error: FormatError, before: usize) -> FormatError {
    match error {
        FormatError::NotFinite { file, tensor, index } => {
            FormatError::NotFinite { file, tensor, index: index + before }
        }
        other => other,
    }
}
