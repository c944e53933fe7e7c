//! The only seam to storage: named files that can be read whole up to a limit, or in byte ranges.
//!
//! Names are relative and use `/`. The command line implements [`Files`] over a folder, the page over what it fetched.

use crate::error::{FormatError, Result};
use std::collections::BTreeMap;

/// Largest small file (configurations, indexes): 16 MB.
pub const SMALL: u64 = 16 << 20;
/// Largest tokenizer: XLM-R's is 17 MB.
pub const TOKENIZER: u64 = 128 << 20;
/// Largest adapter file, read at once: 1 GB.
pub const ADAPTER: u64 = 1 << 30;

/// A folder, or one file under its name.
pub trait Files {
    /// Every file's name, in any order.
    fn names(&self) -> Vec<String>;

    /// The length of `name` in bytes.
    ///
    /// # Errors
    /// [`FormatError::FileMissing`], [`FormatError::Io`].
    fn len(&self, name: &str) -> Result<u64>;

    /// `len` bytes of `name` from `offset`.
    ///
    /// # Errors
    /// As [`Files::len`]; [`FormatError::Range`] when the file ends before.
    fn range(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>>;

    /// The whole of `name`, no longer than `limit` bytes.
    ///
    /// # Errors
    /// As [`Files::range`]; [`FormatError::Limit`].
    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let len = self.len(name)?;
        if len > limit {
            let why = format!("{len} bytes; at most {limit} are read of such a file");
            return Err(FormatError::Limit { file: name.into(), why });
        }
        self.range(name, 0, len)
    }

    /// Whether `name` is there.
    fn has(&self, name: &str) -> bool {
        self.names().iter().any(|n| n == name)
    }
}

/// Files in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryFiles(pub BTreeMap<String, Vec<u8>>);

impl MemoryFiles {
    /// One file.
    #[must_use]
    pub fn one(name: &str, bytes: Vec<u8>) -> Self {
        Self(BTreeMap::from([(name.to_owned(), bytes)]))
    }

    fn get(&self, name: &str) -> Result<&[u8]> {
        self.0.get(name).map(Vec::as_slice).ok_or_else(|| missing(name, &self.names()))
    }
}

impl Files for MemoryFiles {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn len(&self, name: &str) -> Result<u64> {
        Ok(self.get(name)?.len() as u64)
    }

    fn range(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>> {
        let bytes = self.get(name)?;
        let start = usize::try_from(offset).ok();
        let end = offset.checked_add(len).and_then(|e| usize::try_from(e).ok());
        let part = start.zip(end).and_then(|(s, e)| bytes.get(s..e));
        part.map(<[u8]>::to_vec).ok_or_else(|| past_end(name, offset, len, bytes.len() as u64))
    }
}

/// A folder inside a folder.
#[derive(Clone, Copy)]
pub struct Subfolder<'a> {
    files: &'a dyn Files,
    name: &'a str,
}

impl<'a> Subfolder<'a> {
    /// The folder `name` of `files`.
    #[must_use]
    pub fn new(files: &'a dyn Files, name: &'a str) -> Self {
        Self { files, name }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

impl Files for Subfolder<'_> {
    fn names(&self) -> Vec<String> {
        let inside = |n: &String| n.strip_prefix(self.name)?.strip_prefix('/').map(str::to_owned);
        self.files.names().iter().filter_map(inside).collect()
    }

    fn len(&self, name: &str) -> Result<u64> {
        self.files.len(&self.path(name))
    }

    fn range(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>> {
        self.files.range(&self.path(name), offset, len)
    }
}

/// The error for a file that is not there, saying what is.
#[must_use]
pub fn missing(name: &str, there: &[String]) -> FormatError {
    let mut hint = String::from(if there.is_empty() { "there are no files" } else { "there are " });
    hint.push_str(&there.iter().take(12).map(|n| crate::error::shown(n)).collect::<Vec<_>>().join(", "));
    if there.len() > 12 {
        hint.push_str(&format!(" and {} more", there.len() - 12));
    }
    FormatError::FileMissing { file: name.into(), hint }
}

/// The error for a range that leaves the file.
#[must_use]
pub fn past_end(name: &str, offset: u64, len: u64, have: u64) -> FormatError {
    let why =
        format!("bytes {offset} to {} are needed and the file has {have}: it is cut off", offset.saturating_add(len));
    FormatError::Range { file: name.into(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_inside() {
        let f = MemoryFiles::one("a", vec![1, 2, 3]);
        assert_eq!(f.range("a", 1, 2).unwrap(), [2, 3]);
        assert_eq!(f.range("a", 2, 2).unwrap_err().code(), "FORMAT_RANGE");
        assert_eq!(f.range("a", u64::MAX, 2).unwrap_err().code(), "FORMAT_RANGE");
        assert_eq!(f.read("a", 2).unwrap_err().code(), "FORMAT_LIMIT");
        assert!(f.read("b", 2).unwrap_err().to_string().contains("there are a"));
    }
}
