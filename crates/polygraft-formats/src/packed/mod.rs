//! Packed adapters: any folder of PEFT's or AdapterHub's, or a language vector, as one file whose matrices are codes of a few
//! bits. `docs/format.md` has the format to the byte.
//!
//! The file holds the folder's configurations and its tensors under their own names, so that a packed adapter is read by
//! the reader of its family; a matrix that the reader takes as one stays in codes to the kernels.

mod about;
mod diffs;
mod pack;
mod varint;

pub use pack::{Options, Packed, Report, pack, unpack};

use crate::adapter::AdapterOptions;
use crate::bag::TensorBag;
use crate::container::Header;
use crate::error::{FormatError, Result, shown};
use crate::source::{self, Files};
use crate::{language, sparse};
use about::About;
use polygraft::ir::{AdapterIr, BaseClaim};
use polygraft::model::ModelSpec;
use serde_json::Value;
use std::collections::BTreeMap;

pub(crate) use about::{Stored, contents};
pub(crate) use diffs::read as read_diffs;

/// Reads a packed file, if it is one.
///
/// # Errors
/// [`FormatError::Unsupported`] for a later format; [`FormatError::Range`] where lengths lie; what its family's reader
/// finds.
pub(crate) fn load(name: &str, bytes: &[u8], spec: &ModelSpec, options: &AdapterOptions) -> Result<Option<AdapterIr>> {
    let Some(about) = About::of(name, bytes)? else { return Ok(None) };
    // A file alone is read as what it is: as this very file, over and over.
    if about.texts.is_empty() && !about.tensors.contains_key(sparse::FILE) {
        return Err(bad(name, "it holds no configuration, so that nothing says what its numbers are"));
    }
    let claim = BaseClaim { name: about.base.clone(), lineage: about.lineage.clone() };
    let mut adapter = match about.texts.get(language::PACKED_TEXT) {
        Some(text) => {
            language::read(name, TensorBag::open(language::PACKED_FILE, bytes.to_vec())?, &text.to_string(), false)?
        }
        None => crate::adapter::load_adapter(&Folder { about, bytes }, spec, options)?,
    };
    adapter.base = claim;
    Ok(Some(adapter))
}

/// What a packed file holds, for `inspect`.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    /// The base's name.
    pub base: Option<String>,
    /// The digest of the base's weights.
    pub lineage: Option<String>,
    /// Bits a code.
    pub bits: u8,
    /// The configurations, by file.
    pub texts: BTreeMap<String, Value>,
    /// The tensors: name, and shape with how it is stored.
    pub tensors: Vec<(String, String)>,
}

/// What a packed file holds; `None` when it is none.
///
/// # Errors
/// What its lengths are refused for.
pub fn contents_of(name: &str, bytes: &[u8]) -> Result<Option<Contents>> {
    let Some(about) = About::of(name, bytes)? else { return Ok(None) };
    let header = Header::parse(name, bytes, Some(bytes.len() as u64))?;
    let mut tensors = Vec::new();
    for file in about.tensors.keys() {
        for (tensor, (shape, stored)) in contents(file, &header, bytes)?.unwrap_or_default() {
            let how = match stored {
                Stored::Codes(codes) => format!("{} bits", codes.bits()),
                Stored::Plain { dtype, .. } => dtype.name().to_owned(),
                Stored::Whole(_) => "steps".to_owned(),
            };
            tensors.push((tensor, format!("{shape:?} {how}")));
        }
    }
    let About { base, lineage, bits, texts, .. } = about;
    Ok(Some(Contents { base, lineage, bits, texts, tensors }))
}

/// The folder that a packed file stands for: its texts, and under the names of its tensor files the packed file itself,
/// of which [`crate::bag::TensorBag`] then takes that file's part.
pub(crate) struct Folder<'a> {
    pub(crate) about: About,
    pub(crate) bytes: &'a [u8],
}

impl Folder<'_> {
    fn content(&self, name: &str) -> Result<std::borrow::Cow<'_, [u8]>> {
        if let Some(text) = self.about.texts.get(name) {
            return Ok(text.to_string().into_bytes().into());
        }
        if self.about.tensors.contains_key(name) {
            return Ok(self.bytes.into());
        }
        Err(source::missing(name, &self.names()))
    }
}

impl Files for Folder<'_> {
    fn names(&self) -> Vec<String> {
        self.about.texts.keys().chain(self.about.tensors.keys()).cloned().collect()
    }

    fn len(&self, name: &str) -> Result<u64> {
        Ok(self.content(name)?.len() as u64)
    }

    fn range(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>> {
        let content = self.content(name)?;
        let span = usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(len)).ok());
        let part = span.and_then(|(from, to)| content.get(from..to));
        part.map(<[u8]>::to_vec).ok_or_else(|| source::past_end(name, offset, len, content.len() as u64))
    }
}

/// An error about a packed file.
fn bad(file: &str, why: impl std::fmt::Display) -> FormatError {
    FormatError::Range { file: shown(file), why: format!("a packed adapter: {why}") }
}
