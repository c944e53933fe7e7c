//! Files: folders as the formats crate reads them, text by lines, and outputs that appear whole or not at all.

use crate::error::{Error, Result};
use polygraft_formats::{Files, FormatError, source};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_owned(), source }
}

/// Lines of a text file, as `tokenize`, `embed` and `rerank` count them: they end in LF only, an empty line is a row,
/// and the end of the last line starts no new one.
pub(crate) fn lines(path: &Path) -> Result<Vec<String>> {
    let text = text(path)?;
    let body = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() {
        return Err(Error::Content { path: path.into(), why: "the file is empty; it needs one text a line".into() });
    }
    Ok(body.split('\n').map(str::to_owned).collect())
}

/// A whole text file.
pub(crate) fn text(path: &Path) -> Result<String> {
    let bytes = regular(path).and_then(|()| fs::read(path).map_err(io(path)))?;
    String::from_utf8(bytes).map_err(|e| Error::Content {
        path: path.into(),
        why: format!("not UTF-8 at byte {}; convert the file to UTF-8", e.utf8_error().valid_up_to()),
    })
}

/// Refuses devices and pipes: reading `/dev/zero` would never end.
fn regular(path: &Path) -> Result<()> {
    let meta = fs::metadata(path).map_err(io(path))?;
    if meta.is_file() {
        return Ok(());
    }
    let why = if meta.is_dir() { "it is a folder; a file is needed" } else { "it is not a regular file" };
    Err(Error::Content { path: path.into(), why: why.into() })
}

/// A folder (or one file) on disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    root: PathBuf,
    names: Vec<String>,
    single: bool,
}

/// Folders deeper than this are not a model's.
const MAX_DEPTH: usize = 2;
/// Nor are folders of more files than this.
const MAX_FILES: usize = 4096;

impl Disk {
    /// Opens a folder, with its folders two levels down, or a single file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let meta = fs::metadata(path).map_err(io(path))?;
        if meta.is_dir() {
            let mut names = Vec::new();
            list(path, "", 0, &mut names)?;
            names.sort();
            return Ok(Self { root: path.into(), names, single: false });
        }
        regular(path)?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { root: path.into(), names: vec![name], single: true })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        if self.single { self.root.clone() } else { self.root.join(name) }
    }

    /// Opens a file of the folder for ranged reads.
    pub(crate) fn reader(&self, name: &str) -> Result<Ranged> {
        let path = self.path(name);
        let file = File::open(&path).map_err(io(&path))?;
        let len = file.metadata().map_err(io(&path))?.len();
        Ok(Ranged { path, file, len })
    }
}

impl Files for Disk {
    fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    fn len(&self, name: &str) -> Result<u64, FormatError> {
        if !self.has(name) {
            return Err(source::missing(name, &self.names));
        }
        fs::metadata(self.path(name))
            .map(|m| m.len())
            .map_err(|e| FormatError::Io { file: name.into(), why: e.to_string() })
    }

    fn range(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>, FormatError> {
        let have = self.len(name)?;
        if offset.saturating_add(len) > have {
            return Err(source::past_end(name, offset, len, have));
        }
        let failed = |e: std::io::Error| FormatError::Io { file: name.into(), why: e.to_string() };
        let mut file = File::open(self.path(name)).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut out = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_exact(&mut out).map_err(failed)?;
        Ok(out)
    }
}

fn list(dir: &Path, prefix: &str, depth: usize, out: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(io(dir))? {
        let entry = entry.map_err(io(dir))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let meta = fs::metadata(entry.path()).map_err(io(&entry.path()))?;
        if meta.is_dir() && depth < MAX_DEPTH {
            list(&entry.path(), &format!("{name}/"), depth + 1, out)?;
        } else if meta.is_file() {
            out.push(name);
        }
        if out.len() > MAX_FILES {
            return Err(Error::Content {
                path: dir.into(),
                why: format!("more than {MAX_FILES} files; this is not a model's folder"),
            });
        }
    }
    Ok(())
}

/// A file read piece by piece.
pub(crate) struct Ranged {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Ranged {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn read(&mut self, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; bytes];
        self.file.seek(SeekFrom::Start(offset)).map_err(io(&self.path))?;
        self.file.read_exact(&mut out).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Content {
                path: self.path.clone(),
                why: format!(
                    "it ends after {} bytes, before a tensor that ends at {}: the file is cut",
                    self.len,
                    offset + bytes as u64
                ),
            },
            _ => Error::Io { path: self.path.clone(), source },
        })?;
        Ok(out)
    }
}

/// Writes a file through a temporary one beside it: complete under its name, or not there.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if path.is_dir() {
        return Err(Error::Content { path: path.into(), why: "it is a folder; name a file to write".into() });
    }
    let temporary = beside(path)?;
    let done = (|| {
        let mut file = std::io::BufWriter::new(File::create(&temporary).map_err(io(path))?);
        write(&mut file)?;
        let file = file.into_inner().map_err(|e| Error::Io { path: path.into(), source: e.into_error() })?;
        file.sync_all().map_err(io(path))?;
        fs::rename(&temporary, path).map_err(io(path))
    })();
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Fills a folder under a temporary name and renames it: complete under its name, or not there.
pub(crate) fn folder_whole(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.exists() && fs::read_dir(path).map_err(io(path))?.next().is_some() {
        return Err(Error::Content {
            path: path.into(),
            why: "it exists and is not empty; name a new folder, or remove it".into(),
        });
    }
    let temporary = beside(path)?;
    let done = (|| {
        fs::create_dir(&temporary).map_err(io(path))?;
        fill(&temporary)?;
        if path.exists() {
            fs::remove_dir(path).map_err(io(path))?;
        }
        fs::rename(&temporary, path).map_err(io(path))
    })();
    if done.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    done
}

/// A name in the same folder, so that the rename stays on one file system.
fn beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::Usage(format!("{}: not a name to write to", path.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.part", std::process::id()));
    Ok(path.with_file_name(hidden))
}
