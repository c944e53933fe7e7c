//! Language vectors: one vector added to a language's embeddings, in a safetensors file of some 2 KB; without a pivot a
//! second one for queries.
//!
//! Subtracting a language's mean is from Libovický et al. 2020, "On the Language Neutrality of Pre-trained
//! Multilingual Representations", §3 (centering); here the vector leads from the language's mean to the pivot's.

use crate::bag::TensorBag;
use crate::base::lineage::hex;
use crate::container::Dtype;
use crate::container::write::{Entry, whole};
use crate::error::{FormatError, Result, shown};
use crate::numbers;
use polygraft::ir::{AdapterIr, BaseClaim, Offset, Op, Patch, Site};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The family's name.
pub const FAMILY: &str = "language vector";
const KEY: &str = "polygraft";
const KIND: &str = "language-vector";
const VECTOR: &str = "vector";
/// What queries take instead; only vectors made without a pivot have it.
const QUERY: &str = "query";
/// In a packed file: the text that is the metadata here, and the file whose tensors these are.
pub(crate) const PACKED_TEXT: &str = "language_vector.json";
pub(crate) const PACKED_FILE: &str = "language_vector.safetensors";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    format: u32,
    kind: String,
    lang: Option<String>,
    /// The composition under which the means were taken.
    under: Option<String>,
    base: Option<String>,
    lineage: Option<String>,
    /// Of all else in the file; those of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// A sum of normalised embeddings of this length has lost a bit of an exponent.
const LONGEST: f32 = 1e3;

impl About {
    /// Of what the file says, less its hash, and of its numbers.
    fn hash(&self, vectors: [Option<&[f32]>; 2]) -> String {
        let mut hash = Sha256::new();
        hash.update(serde_json::to_string(self).unwrap_or_default());
        for vector in vectors {
            hash.update([0]);
            hash.update(numbers::f32_bytes(vector.unwrap_or_default()));
        }
        hex(&hash.finalize())
    }
}

/// Reads the file.
///
/// # Errors
/// [`FormatError::NotAModel`] for a safetensors file of another kind; as [`TensorBag`].
pub fn load(file: &str, bytes: Vec<u8>) -> Result<AdapterIr> {
    let bag = TensorBag::open(file, bytes)?;
    let Some(text) = bag.metadata().get(KEY).cloned() else {
        let why = format!(
            "{} is a safetensors file without polygraft's metadata; a PEFT adapter is a folder, with its adapter_config.json",
            shown(file)
        );
        return Err(FormatError::NotAModel { why });
    };
    // Models carry the same key, with other fields.
    let kind = crate::json::Json::parse(file, text.as_bytes())?.get("kind").and_then(|k| k.text().map(str::to_owned));
    if kind.as_deref() != Some(KIND) {
        let why = format!(
            "{} is a {}, not an adapter",
            shown(file),
            shown(kind.as_deref().unwrap_or("file of another kind"))
        );
        return Err(FormatError::NotAModel { why });
    }
    read(file, bag, &text, true)
}

/// Reads its tensors and its metadata, which a packed file has elsewhere: rounded, so that its numbers are `exact`ly
/// those that were hashed only outside of one.
pub(crate) fn read(file: &str, mut bag: TensorBag, text: &str, exact: bool) -> Result<AdapterIr> {
    let mut about: About = serde_json::from_str(text).map_err(|e| crate::json::problem(file, text.as_bytes(), &e))?;
    if about.format != 1 {
        let why =
            format!("a language vector of format {}; this version reads format 1: update polygraft", about.format);
        return Err(FormatError::Unsupported { file: file.into(), why });
    }
    let mut take = |name: &str| match bag.shape(name).map(<[usize]>::to_vec) {
        Some(shape) if shape.len() == 1 => bag.take(name, &shape),
        _ => Ok(None),
    };
    let (vector, query) = (take(VECTOR)?, take(QUERY)?);
    let missing = if vector.is_none() { vec![VECTOR.to_owned()] } else { Vec::new() };
    bag.finish(true, missing)?;
    let promised = about.sha256.take();
    let found = about.hash([vector.as_deref(), query.as_deref()]);
    let long = vector.iter().chain(&query).flatten().any(|x| x.abs() > LONGEST);
    if (exact && promised.is_some_and(|promised| promised != found)) || long {
        let why = "its numbers are not those that were written: copy it again, or make it anew with center".into();
        return Err(FormatError::Integrity { file: file.into(), why });
    }
    Ok(AdapterIr {
        family: FAMILY,
        base: BaseClaim { name: about.base, lineage: about.lineage },
        patches: vec![Patch {
            site: Site::Pooled,
            op: Op::Offset(Offset { vector: vector.unwrap_or_default(), query }),
        }],
        head: None,
        language: about.lang,
        fuses: None,
        chains: false,
        rows: polygraft::ir::RowChange::default(),
        copies: None,
        made_under: about.under,
        unused: Vec::new(),
        missing: Vec::new(),
    })
}

/// A language vector's metadata as it stands in a packed file, which names the base itself; `None` for any other file.
pub(crate) fn metadata(file: &str, bytes: &[u8]) -> Option<serde_json::Value> {
    let header = crate::container::Header::parse(file, bytes, Some(bytes.len() as u64)).ok()?;
    let mut text: serde_json::Value = serde_json::from_str(header.metadata.get(KEY)?).ok()?;
    let about = text.as_object_mut()?;
    about.retain(|name, value| !value.is_null() && name != "base" && name != "lineage");
    (about.get("kind")?.as_str()? == KIND).then_some(text)
}

/// Writes a language vector.
///
/// # Errors
/// [`FormatError::Argument`] for an adapter that is not one offset.
pub fn write_language_vector(adapter: &AdapterIr) -> Result<Vec<u8>> {
    let [Patch { site: Site::Pooled, op: Op::Offset(offset) }] = adapter.patches.as_slice() else {
        return Err(FormatError::Argument { what: "adapter".into(), why: "it is not a language vector".into() });
    };
    let mut about = About {
        format: 1,
        kind: KIND.into(),
        lang: adapter.language.clone(),
        under: adapter.made_under.clone(),
        base: adapter.base.name.clone(),
        lineage: adapter.base.lineage.clone(),
        sha256: None,
    };
    about.sha256 = Some(about.hash([Some(&offset.vector), offset.query.as_deref()]));
    let about = serde_json::to_string(&about).unwrap_or_default();
    let tensors = [(VECTOR, Some(&offset.vector)), (QUERY, offset.query.as_ref())];
    let entry = |name: &str, v: &Vec<f32>| {
        (Entry { name: name.into(), dtype: Dtype::F32, shape: vec![v.len()] }, numbers::f32_bytes(v))
    };
    whole(
        "language vector",
        tensors.into_iter().filter_map(|(name, v)| v.map(|v| entry(name, v))).collect(),
        &BTreeMap::from([(KEY.to_owned(), about)]),
    )
}
