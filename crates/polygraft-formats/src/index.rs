//! A saved index: the vectors of embedded passages, with the base and the compositions that they belong to. The
//! passages themselves stay with the caller.

use crate::bag::TensorBag;
use crate::container::Dtype;
use crate::container::write::{Entry, whole};
use crate::error::{FormatError, Result, shown};
use crate::numbers;
use polygraft::model::Fingerprint;
use polygraft::tasks::{Index, IndexEntry};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const KEY: &str = "polygraft";
const KIND: &str = "index";
const VECTORS: &str = "vectors";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    format: u32,
    kind: String,
    base: Fingerprint,
    entries: Vec<IndexEntry>,
}

/// Writes an index as one safetensors file: `vectors` `[n, width]` in f32.
///
/// # Errors
/// None in practice: the file has one tensor.
pub fn write_index(index: &Index) -> Result<Vec<u8>> {
    let about = About { format: 1, kind: KIND.into(), base: index.base.clone(), entries: index.entries.clone() };
    let about = serde_json::to_string(&about).unwrap_or_default();
    let rows = index.vectors.len() / index.width.max(1);
    let entry = Entry { name: VECTORS.into(), dtype: Dtype::F32, shape: vec![rows, index.width] };
    whole("index", vec![(entry, numbers::f32_bytes(&index.vectors))], &BTreeMap::from([(KEY.to_owned(), about)]))
}

/// Reads it back; whether it belongs to a base is [`Index::check`]'s question.
///
/// # Errors
/// [`FormatError::NotAModel`] for another kind of file; as [`TensorBag`].
pub fn read_index(file: &str, bytes: Vec<u8>) -> Result<Index> {
    let mut bag = TensorBag::open(file, bytes)?;
    let text = bag.metadata().get(KEY).cloned().unwrap_or_default();
    let about: Option<About> = serde_json::from_str(&text).ok().filter(|a: &About| a.kind == KIND);
    let Some(about) = about else {
        return Err(FormatError::NotAModel { why: format!("{} is not a saved index", shown(file)) });
    };
    if about.format != 1 {
        let why = format!("an index of format {}; this version reads format 1: build it again", about.format);
        return Err(FormatError::Unsupported { file: file.into(), why });
    }
    let shape: Vec<usize> = bag.shape(VECTORS).map(<[usize]>::to_vec).unwrap_or_default();
    let vectors = if shape.len() == 2 { bag.take(VECTORS, &shape)? } else { None };
    let missing = if vectors.is_none() { vec![VECTORS.to_owned()] } else { Vec::new() };
    bag.finish(true, missing)?;
    let width = shape.get(1).copied().unwrap_or_default();
    Ok(Index { base: about.base, width, entries: about.entries, vectors: vectors.unwrap_or_default() })
}
