//! The list of a converted model's files, read back: whether they are those that were written.

use super::lineage::hex;
use super::write::MANIFEST;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::source::{Files, SMALL};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What `polygraft.json` promises of each file; nothing for a folder without one.
#[derive(Debug, Default)]
pub struct Manifest(BTreeMap<String, (u64, String)>);

impl Manifest {
    /// Reads the list of a folder.
    ///
    /// # Errors
    /// [`FormatError::Json`]; [`FormatError::Header`] for a list without files, their lengths or hashes.
    pub fn read(files: &dyn Files) -> Result<Self> {
        if !files.has(MANIFEST) {
            return Ok(Self::default());
        }
        let json = Json::parse(MANIFEST, &files.read(MANIFEST, SMALL)?)?;
        let bad = |why: String| FormatError::Header { file: MANIFEST.into(), why };
        let list = json.get("files").ok_or_else(|| bad("it lists no files".into()))?;
        let of = |(name, file): &(String, Json)| {
            let bytes = file.get("bytes").and_then(Json::whole);
            let hash = file.get("sha256").and_then(Json::text);
            let (Some(bytes), Some(hash)) = (bytes, hash) else {
                return Err(bad(format!("{:?} has no length or no SHA-256", shown(name))));
            };
            Ok((name.clone(), (bytes as u64, hash.to_owned())))
        };
        Ok(Self(list.entries().iter().map(of).collect::<Result<_>>()?))
    }

    /// The files that it lists.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Begins to compare `file`, if the list has it.
    #[must_use]
    pub fn check(&self, file: &str) -> Option<Check> {
        let (bytes, sha256) = self.0.get(file)?.clone();
        Some(Check { file: file.into(), bytes, sha256, seen: 0, hash: Sha256::new() })
    }
}

/// A file as its bytes come by.
#[derive(Debug)]
pub struct Check {
    file: String,
    bytes: u64,
    sha256: String,
    seen: u64,
    hash: Sha256,
}

impl Check {
    /// Bytes that have come by.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The bytes that follow those before.
    pub fn update(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// At the end of the file.
    ///
    /// # Errors
    /// [`FormatError::Integrity`] when it is another file than was listed.
    pub fn finish(self) -> Result<()> {
        let found = hex(&self.hash.finalize());
        if (self.seen, &found) == (self.bytes, &self.sha256) {
            return Ok(());
        }
        let why = format!(
            "it has {} bytes and the SHA-256 {found}; {MANIFEST} promises {} and {}: copy the folder again, or convert it anew",
            self.seen,
            self.bytes,
            shown(&self.sha256)
        );
        Err(FormatError::Integrity { file: self.file, why })
    }
}
