//! Safetensors headers, read strictly: 8 bytes of length, JSON, then the tensors without a hole or a byte to spare.
//!
//! Stricter than the usual reader, which takes twins, unknown fields and shapes whose size overflows. Data that is
//! not aligned is fine: numbers are copied, never transmuted. Numbers themselves are checked by whoever takes them.

use crate::error::{FormatError, Result, shown};
use crate::json::{duplicate, problem};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Longest header: 100 MB, as the format says.
pub const MAX_HEADER: u64 = 100_000_000;
/// Most tensors in one file.
pub const MAX_TENSORS: usize = 100_000;
/// Most dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 8;
/// Longest tensor name.
pub const MAX_NAME: usize = 1024;

/// Element types of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[allow(missing_docs, reason = "named as in the format")]
pub enum Dtype {
    #[serde(rename = "BOOL")]
    Bool,
    U8,
    I8,
    #[serde(rename = "F8_E4M3")]
    F8E4M3,
    #[serde(rename = "F8_E5M2")]
    F8E5M2,
    I16,
    U16,
    F16,
    #[serde(rename = "BF16")]
    Bf16,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
}

impl Dtype {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// The name in the format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::F32 => "F32",
            Self::F64 => "F64",
            Self::I64 => "I64",
            Self::U64 => "U64",
        }
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where its bytes start, from the start of the file.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
}

/// A header that has passed every check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// In the order of their bytes.
    pub tensors: Vec<TensorInfo>,
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// Where the file ends.
    pub end: u64,
}

/// How many bytes of `file` its header takes, given its first 8 or more bytes.
///
/// # Errors
/// [`FormatError::Unsupported`] when it is recognised as something else; [`FormatError::Header`] when this cannot be
/// a safetensors file; [`FormatError::Limit`] when the header claims to be too long.
pub fn header_len(file: &str, start: &[u8]) -> Result<u64> {
    let bad = |why: String| FormatError::Header { file: file.into(), why };
    if let Some(kind) = sniff(start) {
        let why = format!("this is {kind}, not a safetensors file");
        return Err(FormatError::Unsupported { file: file.into(), why });
    }
    let Some(&length) = start.first_chunk::<8>() else {
        return Err(bad(format!("{} bytes: too short for a safetensors file", start.len())));
    };
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        let why = format!(
            "the header claims {length} bytes; at most {MAX_HEADER} are allowed: not a safetensors file, or damaged"
        );
        return Err(FormatError::Limit { file: file.into(), why });
    }
    if start.get(8).is_some_and(|b| *b != b'{') {
        return Err(bad("the header does not begin with '{': not a safetensors file, or damaged".into()));
    }
    Ok(length + 8)
}

/// What else the bytes may be: the usual things saved in place of weights.
#[must_use]
pub fn sniff(start: &[u8]) -> Option<&'static str> {
    let text = start.trim_ascii_start();
    let starts = |p: &[u8]| text.get(..p.len()).is_some_and(|t| t.eq_ignore_ascii_case(p));
    if starts(b"<!doctype") || starts(b"<html") || starts(b"<?xml") || starts(b"<head") {
        return Some("a web page (an error page saved under the file's name?)");
    }
    if starts(b"version https://git-lfs") {
        return Some("a Git LFS pointer (run `git lfs pull`, or download the file itself)");
    }
    if starts(b"PK\x03\x04") {
        return Some(
            "a zip archive (a torch .bin? adapters may be one; save a base model with safe_serialization=True)",
        );
    }
    if start.first() == Some(&0x80)
        && start.get(1).is_some_and(|v| (2..=5).contains(v))
        && start.get(4..8) != Some(&[0; 4])
    {
        return Some(
            "a Python pickle (adapters may be one of torch's; save a base model with safe_serialization=True)",
        );
    }
    if starts(b"GGUF") {
        return Some("a GGUF file");
    }
    if starts(b"\x1f\x8b") {
        return Some("gzip-compressed");
    }
    None
}

impl Header {
    /// Reads the header from the first bytes of a file.
    ///
    /// `bytes` holds at least [`header_len`] bytes; `file_len` is the file's length where it is known.
    ///
    /// # Errors
    /// By kind: [`FormatError::Header`], [`FormatError::Json`], [`FormatError::Duplicate`], [`FormatError::Range`],
    /// [`FormatError::Limit`].
    pub fn parse(file: &str, bytes: &[u8], file_len: Option<u64>) -> Result<Self> {
        let data = header_len(file, bytes)?;
        let cut = |have: u64| FormatError::Header {
            file: file.into(),
            why: format!("the header takes {data} bytes and the file has {have}: cut off, or not a safetensors file"),
        };
        if let Some(have) = file_len.filter(|have| *have < data) {
            return Err(cut(have));
        }
        let json =
            usize::try_from(data).ok().and_then(|end| bytes.get(8..end)).ok_or_else(|| cut(bytes.len() as u64))?;
        let raw: RawHeader = serde_json::from_slice(json).map_err(|e| match problem(file, json, &e) {
            // JSON, but not what a header holds.
            FormatError::Json { file, .. } if e.is_data() => {
                FormatError::Header { file, why: format!("the header is wrong: {e}") }
            }
            other => other,
        })?;
        let mut tensors = Vec::with_capacity(raw.tensors.len());
        for (name, raw) in raw.tensors {
            tensors.push(raw.check(file, name, data)?);
        }
        // Empty tensors share their neighbour's start: longer ranges come last among equals.
        tensors.sort_by(|a, b| (a.offset, a.bytes, &a.name).cmp(&(b.offset, b.bytes, &b.name)));
        let mut end = data;
        for t in &tensors {
            if t.offset != end {
                let kind = if t.offset < end { "overlaps the tensor before it" } else { "leaves a hole before it" };
                let why = format!(
                    "tensor {:?} starts at byte {} of the data and {kind}, which ends at {}",
                    shown(&t.name),
                    t.offset - data,
                    end - data
                );
                return Err(FormatError::Range { file: file.into(), why });
            }
            end += t.bytes;
        }
        if let Some(have) = file_len.filter(|have| *have != end) {
            let why = if have < end {
                format!("the tensors end at byte {end} and the file has {have}: the download or copy was cut off")
            } else {
                format!("{} bytes follow the last tensor", have - end)
            };
            return Err(FormatError::Range { file: file.into(), why });
        }
        Ok(Self { tensors, metadata: raw.metadata, end })
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|t| t.name == name)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawTensor {
    fn check(self, file: &str, name: String, data: u64) -> Result<TensorInfo> {
        let limit = |why: String| FormatError::Limit { file: file.into(), why };
        let tensor = shown(&name);
        if self.shape.len() > MAX_DIMENSIONS {
            return Err(limit(format!(
                "tensor {tensor:?} has {} dimensions; at most {MAX_DIMENSIONS}",
                self.shape.len()
            )));
        }
        let shape: Option<Vec<usize>> = self.shape.iter().map(|d| u32::try_from(*d).ok().map(|d| d as usize)).collect();
        let size = self.shape.iter().try_fold(self.dtype.size(), |n, d| n.checked_mul(*d));
        let (Some(shape), Some(size)) = (shape, size) else {
            return Err(limit(format!("tensor {tensor:?}: its shape {:?} overflows", self.shape)));
        };
        let (start, end) = self.data_offsets;
        let range = |why: String| FormatError::Range { file: file.into(), why: format!("tensor {tensor:?}: {why}") };
        let bytes = end.checked_sub(start).ok_or_else(|| range(format!("ends at {end}, before its start {start}")))?;
        if bytes != size {
            return Err(range(format!(
                "its shape {:?} of {} takes {size} bytes, its range has {bytes}",
                self.shape,
                self.dtype.name()
            )));
        }
        let offset = start.checked_add(data).filter(|o| o.checked_add(bytes).is_some_and(|e| e < 1 << 53));
        let offset = offset.ok_or_else(|| range(format!("its range {start} to {end} is out of bounds")))?;
        Ok(TensorInfo { name, dtype: self.dtype, shape, offset, bytes })
    }
}

struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

/// `__metadata__`, whose keys are unique as well.
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a safetensors header")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                use serde::de::Error;
                let mut out = RawHeader { tensors: Vec::new(), metadata: BTreeMap::new() };
                let mut seen = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        return Err(duplicate(&key));
                    }
                    if key == "__metadata__" {
                        out.metadata = map.next_value::<Metadata>()?.0;
                        continue;
                    }
                    if key.is_empty() || key.len() > MAX_NAME {
                        return Err(A::Error::custom(format_args!("a tensor name of {} bytes", key.len())));
                    }
                    if out.tensors.len() >= MAX_TENSORS {
                        return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                    out.tensors.push((key, map.next_value()?));
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("metadata: texts by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut out = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if out.contains_key(&key) {
                        return Err(duplicate(&key));
                    }
                    out.insert(key, value);
                }
                Ok(Metadata(out))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}
