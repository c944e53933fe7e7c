//! Folders on disk for the readers, which know only names and bytes.
#![allow(dead_code, reason = "each test file uses its part")]

use polygraft::Session;
use polygraft::backend::Backend;
use polygraft_formats::container::safetensors::header_len;
use polygraft_formats::{BaseLoader, Files, MemoryFiles, Result};
use std::path::{Path, PathBuf};

/// A path from the repository's root.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A folder, with its folders.
pub(crate) fn folder(path: &Path) -> MemoryFiles {
    fn walk(dir: &Path, prefix: &str, out: &mut MemoryFiles) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{name}/"), out);
            } else {
                out.0.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut out = MemoryFiles::default();
    walk(path, "", &mut out);
    out
}

/// Streams a base into a backend, as the command line and the page do.
pub(crate) fn session<B: Backend>(files: &dyn Files, mut backend: B) -> Result<Session<B>> {
    let mut loader = BaseLoader::new(files)?;
    for shard in loader.shards().to_vec() {
        let len = files.len(&shard)?;
        let head = header_len(&shard, &files.range(&shard, 0, len.min(64))?)?;
        let header = files.range(&shard, 0, head.min(len))?;
        for plan in loader.begin(&shard, &header, len)? {
            let bytes = files.range(&shard, plan.offset, plan.bytes)?;
            for (id, matrix) in loader.tensor(&shard, plan.index, bytes)? {
                backend.load_weight(id, matrix).unwrap();
            }
        }
    }
    Ok(Session::new(loader.finish()?, backend).unwrap())
}
