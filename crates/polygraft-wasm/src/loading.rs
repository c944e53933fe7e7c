//! Streams a base model into the backend, so that its numbers are in memory once.

use crate::engine::{Core, Host};
use crate::failure::{Failure, Result};
use crate::folder::Folder;
use polygraft::backend::{Backend, Precision};
use polygraft::session::Session;
use polygraft::tasks::Engine;
use polygraft_formats::{BaseLoader, Tokenizer};

/// A model on its way in.
pub(crate) struct Loading {
    files: Folder,
    loader: BaseLoader,
    backend: Host,
}

impl Loading {
    /// Reads the small files.
    pub(crate) fn new(files: Folder) -> Result<Self> {
        let loader = BaseLoader::new(&files)?;
        Ok(Self { files, loader, backend: Host::new() })
    }

    /// The weight files, in the order in which they are wanted.
    pub(crate) fn shards(&self) -> Vec<String> {
        self.loader.shards().to_vec()
    }

    /// Length of a weight file's header, from the file's first 16 bytes.
    pub(crate) fn header_length(shard: &str, first: &[u8]) -> Result<u64> {
        Ok(polygraft_formats::container::safetensors::header_len(shard, first)?)
    }

    /// Takes a header; gives `index, offset, bytes` of each tensor that is wanted, in the order of the file.
    pub(crate) fn begin(&mut self, shard: &str, header: &[u8], file_len: u64) -> Result<Vec<f64>> {
        let mut plans = self.loader.begin(shard, header, file_len)?;
        plans.sort_by_key(|p| p.offset);
        // Exact: files end far below 2⁵³ bytes, and JavaScript has no other number.
        Ok(plans.iter().flat_map(|p| [p.index as f64, p.offset as f64, p.bytes as f64]).collect())
    }

    /// Takes one tensor.
    pub(crate) fn tensor(&mut self, shard: &str, index: usize, bytes: Vec<u8>) -> Result<()> {
        for (id, matrix) in self.loader.tensor(shard, index, bytes)? {
            self.backend.load_weight(id, matrix)?;
        }
        Ok(())
    }

    /// The model, once every tensor has passed.
    pub(crate) fn finish(self, precision: &str) -> Result<Core> {
        let precision = match precision {
            "fast" => Precision::Fast,
            "exact" => Precision::Exact,
            other => return Err(Failure::argument("precision", format!("{other:?}: expected \"fast\" or \"exact\""))),
        };
        let spec = self.loader.finish()?;
        let tokenizer = Tokenizer::load(&self.files, spec.vocab)?;
        let session = Session::new(spec, self.backend)?;
        Ok(Core::new(Engine::new(session, Box::new(tokenizer), precision)))
    }
}
