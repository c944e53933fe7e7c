//! Bases and adapters from disk: weights stream one tensor at a time into the backend.

use crate::args::Model;
use crate::backend::AnyBackend;
use crate::error::{Error, Result};
use crate::files::Disk;
use crate::progress::{Progress, Unit};
use polygraft::backend::Backend;
use polygraft::compose::Compose;
use polygraft::ir::{Graft, LoadReport};
use polygraft::model::ModelSpec;
use polygraft::session::Session;
use polygraft::tasks::Engine;
use polygraft_formats::{AdapterOptions, BaseLoader, MemoryFiles, Tokenizer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The first bytes of a safetensors file hold the length of its header.
const LENGTH_BYTES: usize = 8;

/// Streams a base's weights to `sink` and returns what it is.
pub(crate) fn base(
    path: &Path,
    mut sink: impl FnMut(polygraft::model::WeightId, polygraft::tensor::Matrix) -> Result<()>,
) -> Result<ModelSpec> {
    let format = |source| Error::Format { path: path.into(), source };
    let disk = Disk::open(path)?;
    let mut loader = BaseLoader::new(&disk).map_err(format)?;
    let shards = loader.shards().to_vec();
    let mut readers = Vec::new();
    let mut total = 0;
    for shard in &shards {
        let mut reader = disk.reader(shard)?;
        let header = header(&mut reader, &loader, shard).map_err(|e| e.at(path))?;
        let plans = loader.begin(shard, &header, reader.len()).map_err(format)?;
        total += plans.iter().map(|p| p.bytes).sum::<u64>();
        readers.push((shard, reader, plans));
    }
    let bar = Progress::new("loading", Unit::Bytes);
    let mut done = 0;
    for (shard, mut reader, plans) in readers {
        for plan in plans {
            let bytes = reader.read(plan.offset, plan.bytes as usize)?;
            done += plan.bytes;
            for (id, matrix) in loader.tensor(shard, plan.index, bytes).map_err(format)? {
                sink(id, matrix)?;
            }
            bar.set(done, total);
        }
    }
    loader.finish().map_err(format)
}
