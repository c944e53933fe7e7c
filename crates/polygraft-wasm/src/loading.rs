//! Streams a base model into the backend, so that its numbers are in memory once.

use crate::engine::{Core, Host};
use crate::failure::{Failure, Result};
use crate::folder::Folder;
use polygraft::backend::{Backend, Precision};
use polygraft::session::Session;
use polygraft::share::{self, Satellite};
use polygraft::tasks::Engine;
use polygraft::text::Wordless;
use polygraft_formats::{BaseLoader, Tokenizer};

/// A model on its way in.
pub(crate) struct Loading {
    files: Folder,
    loader: BaseLoader,
    backend: Box<Host>,
    /// Bytes of the tensor that is on its way.
    pending: Vec<u8>,
}

impl Loading {
    /// Reads the small files of a model that will run.
    pub(crate) fn to_run(files: Folder) -> Result<Self> {
        let loader = BaseLoader::new(&files)?;
        Ok(Self { files, loader, backend: Box::new(Host::new()), pending: Vec::new() })
    }

    /// Reads the small files of a model whose layers alone will run: a satellite's.
    pub(crate) fn to_satellite(files: Folder) -> Result<Self> {
        let loader = BaseLoader::layers(&files)?;
        Ok(Self { files, loader, backend: Box::new(Host::new()), pending: Vec::new() })
    }

    /// Which of a weight file's tensors a satellite does without, by index, once its header is here.
    pub(crate) fn tables(&self, shard: &str) -> Vec<u32> {
        self.loader.tables(shard).into_iter().filter_map(|index| u32::try_from(index).ok()).collect()
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

    /// Makes room for a tensor.
    pub(crate) fn expect(&mut self, bytes: usize) {
        self.pending = Vec::with_capacity(bytes);
    }

    /// Takes the next bytes of it.
    pub(crate) fn part(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Takes the tensor whose bytes have come.
    pub(crate) fn tensor(&mut self, shard: &str, index: usize) -> Result<()> {
        let bytes = std::mem::take(&mut self.pending);
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
        let tokenizer: Box<dyn polygraft::text::Tokenizer> = match spec.image {
            Some(_) => Box::new(Wordless),
            None => Box::new(Tokenizer::load(&self.files, spec.vocab)?),
        };
        let session = Session::new(spec, *self.backend)?;
        Ok(Core::new(Engine::new(session, tokenizer, precision)))
    }

    /// The layers, once every tensor of theirs has passed.
    pub(crate) fn finish_satellite(self) -> Result<Satellite<Host>> {
        let mut backend = self.backend;
        let spec = self.loader.finish()?;
        for id in spec.embeddings.ids() {
            backend.load_weight(id, share::absent(spec.weight(id).cols))?;
        }
        Ok(Satellite::new(Session::new(spec, *backend)?))
    }
}
