//! Bases and adapters from disk: weights stream one tensor at a time into the backend.

use crate::args::{BackendName, Model};
use crate::backend::AnyBackend;
use crate::error::{Error, Result};
use crate::files::{Disk, Ranged};
use crate::progress::{Progress, Unit};
use polygraft::backend::Backend;
use polygraft::compose::Compose;
use polygraft::ir::{Graft, LoadReport};
use polygraft::model::ModelSpec;
use polygraft::session::Session;
use polygraft::tasks::Engine;
use polygraft_formats::base::manifest::{Check, Manifest};
use polygraft_formats::container::safetensors::header_len;
use polygraft_formats::{AdapterOptions, BaseLoader, Files, Loaded, Tokenizer};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Bytes of a file that are hashed at a time.
const PIECE: u64 = 1 << 20;

/// Enough to see the length of a header, or what a file is instead.
const START: u64 = 64;

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
        let header = header(path, shard, &mut reader)?;
        let plans = loader.begin(shard, &header, reader.len()).map_err(format)?;
        total += plans.iter().map(|p| p.bytes).sum::<u64>();
        readers.push((shard, reader, plans));
    }
    let manifest = Manifest::read(&disk).map_err(format)?;
    for name in manifest.names().filter(|name| disk.has(name) && !shards.iter().any(|shard| shard == name)) {
        let mut check = manifest.check(name);
        follow(&mut check, &mut disk.reader(name)?, u64::MAX)?;
        check.map_or(Ok(()), Check::finish).map_err(format)?;
    }
    let bar = Progress::new("loading", Unit::Bytes);
    let mut done = 0;
    for (shard, mut reader, plans) in readers {
        let mut check = manifest.check(shard);
        for plan in plans {
            follow(&mut check, &mut reader, plan.offset)?;
            let bytes = reader.read(plan.offset, plan.bytes as usize)?;
            if let Some(check) = check.as_mut().filter(|check| check.seen() == plan.offset) {
                check.update(&bytes);
            }
            done += plan.bytes;
            for (id, matrix) in loader.tensor(shard, plan.index, bytes).map_err(format)? {
                sink(id, matrix)?;
            }
            bar.set(done, total);
        }
        follow(&mut check, &mut reader, u64::MAX)?;
        check.map_or(Ok(()), Check::finish).map_err(format)?;
    }
    loader.finish().map_err(format)
}

/// Shows `check` the bytes of its file up to `end`, as far as it has not seen them.
fn follow(check: &mut Option<Check>, reader: &mut Ranged, end: u64) -> Result<()> {
    let Some(check) = check else { return Ok(()) };
    let end = end.min(reader.len());
    while check.seen() < end {
        let piece = (end - check.seen()).min(PIECE);
        check.update(&reader.read(check.seen(), piece as usize)?);
    }
    Ok(())
}

fn header(path: &Path, shard: &str, reader: &mut Ranged) -> Result<Vec<u8>> {
    let start = reader.read(0, reader.len().min(START) as usize)?;
    let length = header_len(shard, &start).map_err(|source| Error::Format { path: path.into(), source })?;
    // A header that claims more than the file has is refused by the reader, which sees both numbers.
    reader.read(0, length.min(reader.len()) as usize)
}

/// A base in a backend.
pub(crate) fn session(path: &Path, backend: BackendName) -> Result<Session<AnyBackend>> {
    let mut backend = AnyBackend::new(backend)?;
    let spec = base(path, |id, matrix| Ok(backend.load_weight(id, matrix)?))?;
    Ok(Session::new(spec, backend)?)
}

/// An adapter's name, path and options as they were given.
pub(crate) type Named = (String, PathBuf, Map<String, Value>);

/// An adapter's files, and how they are read.
fn opened(path: &Path, options: &Map<String, Value>) -> Result<(Disk, AdapterOptions)> {
    let disk = Disk::open(path)?;
    let options = serde_json::from_value(Value::Object(options.clone()))
        .map_err(|e| Error::Content { path: path.into(), why: format!("adapter options: {e}") })?;
    Ok((disk, options))
}

/// Reads an adapter, or a set-up of several, for a base.
fn loaded(spec: &ModelSpec, path: &Path, options: &Map<String, Value>) -> Result<(Loaded, AdapterOptions)> {
    let (disk, options) = opened(path, options)?;
    let loaded =
        polygraft_formats::load(&disk, spec, &options).map_err(|source| Error::Format { path: path.into(), source })?;
    Ok((loaded, options))
}

/// Reads one adapter for `spec`, as its files are.
pub(crate) fn adapter_ir(
    spec: &ModelSpec,
    path: &Path,
    options: &Map<String, Value>,
) -> Result<polygraft::ir::AdapterIr> {
    let (disk, options) = opened(path, options)?;
    polygraft_formats::load_adapter(&disk, spec, &options).map_err(|source| Error::Format { path: path.into(), source })
}

/// Grafts an adapter and says what did not fit.
pub(crate) fn adapter(
    session: &mut Session<AnyBackend>,
    name: &str,
    path: &Path,
    options: &Map<String, Value>,
) -> Result<LoadReport> {
    // Before the file is opened: a name that no composition could spell is the user's first mistake.
    polygraft::compose::check_name(name)?;
    let (loaded, options) = loaded(session.spec(), path, options)?;
    let report = loaded.graft(session, name, Graft { allow_base_mismatch: options.allow_base_mismatch })?;
    for (what, names) in [("not used", &report.unused), ("promised and missing", &report.missing)] {
        if !names.is_empty() {
            eprintln!("polygraft: warning: {name}: tensors {what}: {}", names.join(", "));
        }
    }
    Ok(report)
}

/// `--adapter name=PATH` and `--adapter-option name.key=VALUE`, put together.
pub(crate) fn named(model: &Model) -> Result<Vec<Named>> {
    let mut out: Vec<Named> = Vec::new();
    for text in &model.adapters {
        let Some((name, path)) = text.split_once('=').filter(|(n, p)| !n.is_empty() && !p.is_empty()) else {
            return Err(Error::Usage(format!("--adapter {text:?}: write NAME=PATH")));
        };
        if out.iter().any(|(n, _, _)| n == name) {
            return Err(Error::Usage(format!("--adapter {name}: the name is given twice")));
        }
        out.push((name.into(), path.into(), Map::new()));
    }
    for text in &model.adapter_options {
        let split =
            text.split_once('=').and_then(|(left, value)| left.rsplit_once('.').map(|(name, key)| (name, key, value)));
        let Some((name, key, value)) = split else {
            return Err(Error::Usage(format!("--adapter-option {text:?}: write NAME.KEY=VALUE")));
        };
        let Some((_, _, options)) = out.iter_mut().find(|(n, _, _)| n == name) else {
            return Err(Error::Usage(format!("--adapter-option {text:?}: there is no --adapter {name}=…")));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
        options.insert(key.into(), value);
    }
    Ok(out)
}

/// A base with its tokenizer and adapters.
pub(crate) fn engine(model: &Model) -> Result<Engine<AnyBackend>> {
    let adapters = named(model)?;
    let mut session = session(&model.base, model.compute.backend)?;
    let tokenizer: Box<dyn polygraft::text::Tokenizer> = match session.spec().image {
        Some(_) => Box::new(polygraft::text::Wordless),
        None => Box::new(text_of(&model.base, session.spec())?),
    };
    for (name, path, options) in &adapters {
        adapter(&mut session, name, path, options)?;
    }
    let precision = AnyBackend::precision(&model.compute, session.spec());
    Ok(Engine::new(session, tokenizer, precision))
}

fn text_of(path: &Path, spec: &ModelSpec) -> Result<Tokenizer> {
    let disk = Disk::open(path)?;
    Tokenizer::load(&disk, spec.vocab).map_err(|source| Error::Format { path: path.into(), source })
}

/// A base's spec and tokenizer; the weights pass by and are dropped.
pub(crate) fn tokenizer(path: &Path) -> Result<(ModelSpec, Tokenizer)> {
    let spec = base(path, |_, _| Ok(()))?;
    let tokenizer = text_of(path, &spec)?;
    Ok((spec, tokenizer))
}

/// Says which adapters were loaded for nothing.
pub(crate) fn warn_unused(model: &Model, composes: &[&Compose]) {
    let used: BTreeSet<String> = composes.iter().flat_map(|c| c.names()).map(str::to_owned).collect();
    for text in &model.adapters {
        let name = text.split('=').next().unwrap_or_default();
        if !used.contains(name) {
            eprintln!("polygraft: warning: adapter {name} is loaded and no composition uses it (--compose {name})");
        }
    }
}
