//! Safetensors files, written as a stream: the sizes are known first, so the header goes out before any number.
//!
//! The order is fixed by the names and types alone, and every tensor is aligned to its element: the same numbers give
//! the same bytes.

use super::safetensors::Dtype;
use crate::error::{FormatError, Result};
use std::collections::BTreeMap;
use std::io::Write;

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
}

impl Entry {
    /// Bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shape.iter().fold(self.dtype.size(), |n, d| n.saturating_mul(*d as u64))
    }
}

/// Puts entries in the order of the file: widest elements first, then by name; `X.scales` right after its codes `X`.
pub fn sort(entries: &mut [Entry]) {
    // Codes and their scales stay together, so that a reader has one weight in flight; codes take even numbers of
    // bytes in every scheme, so the scales after them stay aligned.
    let codes: std::collections::HashSet<String> =
        entries.iter().filter_map(|e| e.name.strip_suffix(".scales").map(str::to_owned)).collect();
    entries.sort_by_cached_key(|e| {
        let stem = e.name.strip_suffix(".scales").unwrap_or(&e.name);
        let paired = codes.contains(stem);
        (paired, if paired { 0 } else { u64::MAX - e.dtype.size() }, stem.to_owned(), e.name.len())
    });
}

/// The first bytes of a file that holds `entries` in this order: length and JSON, padded to 8 bytes.
///
/// # Errors
/// [`FormatError::Duplicate`].
pub fn header(file: &str, entries: &[Entry], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut json = serde_json::Map::new();
    let mut at = 0u64;
    let mut fields = Vec::with_capacity(entries.len() + 1);
    if !metadata.is_empty() {
        fields.push(("__metadata__".to_owned(), serde_json::json!(metadata)));
    }
    for e in entries {
        let end = at + e.bytes();
        let field = serde_json::json!({"dtype": e.dtype.name(), "shape": e.shape, "data_offsets": [at, end]});
        if json.insert(e.name.clone(), serde_json::Value::Null).is_some() {
            return Err(FormatError::Duplicate { file: file.into(), name: e.name.clone() });
        }
        fields.push((e.name.clone(), field));
        at = end;
    }
    let mut text = String::from("{");
    for (i, (name, field)) in fields.iter().enumerate() {
        text.push_str(if i == 0 { "" } else { "," });
        text.push_str(&format!("{}:{field}", serde_json::Value::from(name.as_str())));
    }
    text.push('}');
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    Ok(out)
}

/// Writes a file tensor by tensor, in the order of its entries.
pub struct Writer<W: Write> {
    out: W,
    file: String,
    entries: std::vec::IntoIter<Entry>,
    /// Bytes of the next tensor that are written.
    at: u64,
}

impl<W: Write> Writer<W> {
    /// Sorts `entries` and writes the header.
    ///
    /// # Errors
    /// [`FormatError::Io`], [`FormatError::Duplicate`].
    pub fn new(mut out: W, file: &str, mut entries: Vec<Entry>, metadata: &BTreeMap<String, String>) -> Result<Self> {
        sort(&mut entries);
        let bytes = header(file, &entries, metadata)?;
        out.write_all(&bytes).map_err(|e| failed(file, &e))?;
        Ok(Self { out, file: file.into(), entries: entries.into_iter(), at: 0 })
    }

    /// The tensors that are still to come, in order; of the first one bytes may be written.
    #[must_use]
    pub fn rest(&self) -> &[Entry] {
        self.entries.as_slice()
    }

    /// Writes the next tensor, which must be `name`, whole.
    ///
    /// # Errors
    /// [`FormatError::Io`]; [`FormatError::Argument`] out of order or of another size.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        if self.at > 0 || self.rest().first().is_none_or(|e| e.bytes() != bytes.len() as u64) {
            return Err(self.unexpected(name, bytes));
        }
        self.part(name, bytes)
    }

    /// Writes further bytes of the next tensor, which must be `name`; with its last byte it is written.
    ///
    /// # Errors
    /// As [`Writer::put`].
    pub fn part(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let next = self.rest().first().filter(|e| e.name == name);
        let left = next.and_then(|e| (e.bytes() - self.at).checked_sub(bytes.len() as u64));
        let left = left.ok_or_else(|| self.unexpected(name, bytes))?;
        self.out.write_all(bytes).map_err(|e| failed(&self.file, &e))?;
        self.at += bytes.len() as u64;
        if left == 0 {
            self.entries.next();
            self.at = 0;
        }
        Ok(())
    }

    fn unexpected(&self, name: &str, bytes: &[u8]) -> FormatError {
        let why = format!("{name:?} of {} bytes is not what comes next", bytes.len());
        FormatError::Argument { what: format!("writing {}", self.file), why }
    }

    /// Flushes and gives the sink back.
    ///
    /// # Errors
    /// [`FormatError::Io`]; [`FormatError::Argument`] when tensors are missing.
    pub fn finish(mut self) -> Result<W> {
        if let Some(next) = self.entries.next() {
            let why = format!("{:?} was not written", next.name);
            return Err(FormatError::Argument { what: format!("writing {}", self.file), why });
        }
        self.out.flush().map_err(|e| failed(&self.file, &e))?;
        Ok(self.out)
    }
}

/// A whole small file at once.
///
/// # Errors
/// As [`Writer`].
pub fn whole(file: &str, tensors: Vec<(Entry, Vec<u8>)>, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut by_name: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut entries = Vec::with_capacity(tensors.len());
    for (entry, bytes) in tensors {
        by_name.insert(entry.name.clone(), bytes);
        entries.push(entry);
    }
    let mut writer = Writer::new(Vec::new(), file, entries, metadata)?;
    while let Some(name) = writer.rest().first().map(|e| e.name.clone()) {
        let bytes = by_name.remove(&name).unwrap_or_default();
        writer.put(&name, &bytes)?;
    }
    writer.finish()
}

pub(crate) fn failed(file: &str, e: &std::io::Error) -> FormatError {
    FormatError::Io { file: file.into(), why: format!("writing failed: {e}") }
}
