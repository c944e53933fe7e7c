//! A folder that can be read anywhere at once, as a program has it: what is converted there is never in memory as a
//! whole. Pages have no such thing; their models are streamed.

use crate::failure::{Failure, Result};
use polygraft_formats::quantize::{self, Bits, RUN};
use polygraft_formats::source::{missing, past_end};
use polygraft_formats::{BaseRows, Files, FormatError, tokenizer};
use std::collections::BTreeMap;
use std::io;

/// Where files are read and written.
pub(crate) trait Disk {
    /// `len` bytes of `name` from `offset`, which are there.
    fn range(&self, name: &str, offset: u64, len: u64) -> io::Result<Vec<u8>>;

    /// Adds bytes to the end of file `name` of what is written.
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
}

/// Converts the base model whose files, with their lengths, lie on `disk`; gives the bytes written.
pub(crate) fn convert(disk: &impl Disk, lengths: BTreeMap<String, u64>, bits: &str, name: &str) -> Result<u64> {
    let wanted = || Failure::argument("bits", format!("{bits:?}: expected 4, 8 or 16"));
    let bits = Bits::parse(bits).ok_or_else(wanted)?;
    let files = Listed { disk, lengths };
    // First and alone: reading a large vocabulary takes more memory than what comes after it.
    let kit = tokenizer::compact(&files)?;
    let base = BaseRows::open(&files)?;
    if kit.is_none() && base.spec().image.is_none() {
        let hint = "without a tokenizer a model cannot read text; save the model's beside it".into();
        return Err(FormatError::FileMissing { file: "tokenizer.json".into(), hint }.into());
    }
    let create = |name: &str| Ok(Appended { disk, name: name.to_owned() });
    Ok(quantize::folder(base.spec(), bits, name, kit.as_deref(), |id, put| base.each(id, RUN, put), create)?)
}

/// A disk's files for a reader.
struct Listed<'a, D> {
    disk: &'a D,
    lengths: BTreeMap<String, u64>,
}

impl<D: Disk> Files for Listed<'_, D> {
    fn names(&self) -> Vec<String> {
        self.lengths.keys().cloned().collect()
    }

    fn len(&self, name: &str) -> Result<u64, FormatError> {
        self.lengths.get(name).copied().ok_or_else(|| missing(name, &self.names()))
    }

    fn range(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>, FormatError> {
        let have = self.len(name)?;
        if offset.checked_add(len).is_none_or(|end| end > have) {
            return Err(past_end(name, offset, len, have));
        }
        self.disk.range(name, offset, len).map_err(|e| FormatError::Io { file: name.into(), why: e.to_string() })
    }
}

/// One of the files that are written.
struct Appended<'a, D> {
    disk: &'a D,
    name: String,
}

impl<D: Disk> io::Write for Appended<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.append(&self.name, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
