//! The tensors of one of the library's files, by their path in the model: without the base's prefix, under the names
//! that the present release gives them.

use crate::bag::{Leftover, TensorBag};
use crate::error::{FormatError, Result, shown};
use crate::source::{ADAPTER, Files};
use polygraft::tensor::Matrix;
use std::collections::BTreeMap;

/// What the first release called the places of adapters.
const RENAMED: [(&str, &str); 5] = [
    ("attention_text_task_adapters.", "adapters."),
    ("attention_text_lang_adapters.", "adapters."),
    ("layer_text_task_adapters.", "adapters."),
    ("layer_text_lang_adapters.", "adapters."),
    ("invertible_lang_adapters.", "invertible_adapters."),
];

/// A file that is consumed.
#[derive(Debug)]
pub(super) struct Tensors {
    bag: TensorBag,
    /// Path in the model → name in the file.
    names: BTreeMap<String, String>,
    /// What the file has before every path.
    prefix: String,
    missing: Vec<String>,
}

impl Tensors {
    /// Opens the first of `files` that is there; `prefix` is the backbone's, which a file may have or not.
    ///
    /// # Errors
    /// [`FormatError::FileMissing`]; as [`TensorBag::open`]; [`FormatError::Duplicate`] for an old and a present name of
    /// one tensor.
    pub(super) fn open(files: &dyn Files, candidates: [&str; 2], prefix: &str) -> Result<Self> {
        let there = files.names();
        let Some(file) = candidates.into_iter().find(|c| there.iter().any(|n| n == c)) else {
            return Err(crate::source::missing(candidates[0], &there));
        };
        let bag = TensorBag::open(file, files.read(file, ADAPTER)?)?;
        let mut names = BTreeMap::new();
        let mut prefixed = false;
        for name in bag.names() {
            let mut path = name.strip_prefix(prefix).unwrap_or(name).to_owned();
            prefixed |= path.len() < name.len();
            for (old, new) in RENAMED {
                path = path.replace(old, new);
            }
            if names.insert(path, name.to_owned()).is_some() {
                return Err(FormatError::Duplicate { file: file.into(), name: shown(name) });
            }
        }
        let prefix = if prefixed { prefix.to_owned() } else { String::new() };
        Ok(Self { bag, names, prefix, missing: Vec::new() })
    }

    /// No file.
    pub(super) fn none() -> Self {
        let bag = TensorBag::of("", Vec::new(), []);
        Self { bag, names: BTreeMap::new(), prefix: String::new(), missing: Vec::new() }
    }

    /// Paths that have not been taken.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether `path` has not been taken.
    pub(super) fn has(&self, path: &str) -> bool {
        self.names.contains_key(path)
    }

    /// Takes what may be there.
    ///
    /// # Errors
    /// As [`TensorBag::take`].
    pub(super) fn take(&mut self, path: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        match self.names.remove(path) {
            Some(name) => self.bag.take(&name, shape),
            None => Ok(None),
        }
    }

    /// Takes what must be there; its absence is kept for [`Tensors::finish`].
    ///
    /// # Errors
    /// As [`TensorBag::take`].
    pub(super) fn need(&mut self, path: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let found = self.take(path, shape)?;
        if found.is_none() {
            self.miss(path);
        }
        Ok(found)
    }

    /// Notes the absence of what must be there.
    pub(super) fn miss(&mut self, path: &str) {
        self.missing.push(format!("{}{path}", self.prefix));
    }

    /// Takes a matrix that must be there.
    ///
    /// # Errors
    /// As [`TensorBag::take`].
    pub(super) fn matrix(&mut self, path: &str, rows: usize, cols: usize) -> Result<Option<Matrix>> {
        Ok(self.need(path, &[rows, cols])?.and_then(|values| Matrix::dense(rows, cols, values)))
    }

    /// Drops what is known to do nothing.
    pub(super) fn ignore(&mut self, path: &str) {
        if let Some(name) = self.names.remove(path) {
            self.bag.ignore(&name);
        }
    }

    /// Drops what stands under longer names than the last of `path`: the library saves every fusion and every head whose
    /// name begins as the one that is asked for, `a,b,c` with `a,b`. They are in folders of their own as well.
    pub(super) fn ignore_longer(&mut self, path: &str) {
        let longer = |p: &&String| {
            let rest = p.find(path).map(|at| &p[at + path.len()..]);
            rest.is_some_and(|rest| !rest.starts_with('.'))
        };
        for path in self.names.keys().filter(longer).cloned().collect::<Vec<_>>() {
            self.ignore(&path);
        }
    }

    /// Drops `copy`, which the library writes once for each module that holds the tensor `of`.
    ///
    /// # Errors
    /// [`FormatError::Duplicate`] when the two are not the same numbers; as [`TensorBag::take`].
    pub(super) fn ignore_copy(&mut self, copy: &str, of: &str) -> Result<()> {
        let Some((copied, own)) = self.names.get(copy).zip(self.names.get(of)) else { return Ok(()) };
        if !self.bag.same(copied, own) {
            // A tool that saved the file anew may have written the numbers twice.
            let mut other = self.bag.clone();
            let shape = self.bag.shape(own).map(<[usize]>::to_vec).unwrap_or_default();
            let equal = other.take(copied, &shape)? == other.take(own, &shape)?;
            if !equal {
                return Err(FormatError::Duplicate { file: self.bag.file().into(), name: shown(copied) });
            }
        }
        self.ignore(copy);
        Ok(())
    }

    /// Ends the reading: strict, what is missing or left over is an error.
    ///
    /// # Errors
    /// [`FormatError::AdapterKeys`].
    pub(super) fn finish(self, strict: bool) -> Result<Leftover> {
        self.bag.finish(strict, self.missing)
    }
}
