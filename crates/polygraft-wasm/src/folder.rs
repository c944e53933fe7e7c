//! A folder as JavaScript hands it over: small files with their bytes, weight files by name and length only.

use polygraft_formats::{Files, FormatError};
use std::collections::BTreeMap;

/// Files that are here, and files that are only known: those are streamed past, tensor by tensor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folder {
    here: BTreeMap<String, Vec<u8>>,
    elsewhere: BTreeMap<String, u64>,
}

impl Folder {
    /// Adds a file with its bytes.
    pub(crate) fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.here.insert(name, bytes);
    }

    /// Adds a file that stays outside.
    pub(crate) fn announce(&mut self, name: String, len: u64) {
        self.elsewhere.insert(name, len);
    }

    fn bytes(&self, name: &str) -> Result<&[u8], FormatError> {
        match self.here.get(name) {
            Some(bytes) => Ok(bytes),
            None if self.elsewhere.contains_key(name) => {
                Err(FormatError::Io { file: name.into(), why: "it is streamed, and cannot be read as a whole".into() })
            }
            None => Err(polygraft_formats::source::missing(name, &self.names())),
        }
    }
}

impl Files for Folder {
    fn names(&self) -> Vec<String> {
        self.here.keys().chain(self.elsewhere.keys()).cloned().collect()
    }

    fn len(&self, name: &str) -> Result<u64, FormatError> {
        self.elsewhere.get(name).map_or_else(|| Ok(self.bytes(name)?.len() as u64), |len| Ok(*len))
    }

    fn range(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>, FormatError> {
        let bytes = self.bytes(name)?;
        let start = usize::try_from(offset).ok();
        let end = offset.checked_add(len).and_then(|e| usize::try_from(e).ok());
        let part = start.zip(end).and_then(|(s, e)| bytes.get(s..e));
        let past = || polygraft_formats::source::past_end(name, offset, len, bytes.len() as u64);
        part.map(<[u8]>::to_vec).ok_or_else(past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_listed_and_not_read() {
        let mut folder = Folder::default();
        folder.add("config.json".into(), vec![1, 2, 3]);
        folder.announce("model.safetensors".into(), 70_000_000);
        assert!(folder.has("model.safetensors") && folder.has("config.json"));
        assert_eq!(folder.len("model.safetensors").unwrap(), 70_000_000);
        assert_eq!(folder.read("config.json", 10).unwrap(), [1, 2, 3]);
        assert_eq!(folder.range("model.safetensors", 0, 1).unwrap_err().code(), "FILE_READ");
        assert_eq!(folder.range("config.json", 2, 2).unwrap_err().code(), "FORMAT_RANGE");
        assert_eq!(folder.read("x", 10).unwrap_err().code(), "FILE_MISSING");
    }
}
