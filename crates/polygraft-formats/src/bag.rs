//! A bag of tensors that a reader consumes: what is left over at the end is an error that names it.

use crate::container::Header;
use crate::container::torch::{self, View};
use crate::error::{FormatError, Result, shown};
use crate::numbers;
use crate::packed::{self, Stored};
use polygraft::quant::codes::Codes;
use polygraft::tensor::{Matrix, Storage};
use std::collections::{BTreeMap, BTreeSet};

/// A tensor's numbers, with its shape.
#[derive(Debug, Clone, PartialEq)]
enum Held {
    /// Somewhere in the file.
    View(View),
    /// In codes, which a packed adapter has.
    Codes(Vec<usize>, Codes),
    /// Whole numbers of a packed adapter.
    Whole(Vec<usize>, Vec<i64>),
}

impl Held {
    fn shape(&self) -> &[usize] {
        match self {
            Self::View(view) => &view.shape,
            Self::Codes(shape, _) | Self::Whole(shape, _) => shape,
        }
    }
}

/// The tensors of one adapter file.
#[derive(Debug, Clone)]
pub struct TensorBag {
    file: String,
    data: Vec<u8>,
    left: BTreeMap<String, Held>,
    metadata: BTreeMap<String, String>,
}

impl TensorBag {
    /// Opens a whole file: safetensors, or one of torch's (`.bin`) of either kind, whichever the bytes are.
    ///
    /// # Errors
    /// As [`Header::parse`]; for torch's, [`FormatError::Zip`], [`FormatError::PickleGlobal`],
    /// [`FormatError::PickleOp`], [`FormatError::Range`].
    pub fn open(file: &str, data: Vec<u8>) -> Result<Self> {
        if torch::is_torch(&data) {
            let left = torch::tensors(file, &data)?.into_iter().map(|(name, view)| (name, Held::View(view))).collect();
            return Ok(Self { file: file.into(), data, left, metadata: BTreeMap::new() });
        }
        let header = Header::parse(file, &data, Some(data.len() as u64))?;
        let mut left = BTreeMap::new();
        if let Some(tensors) = packed::contents(file, &header, &data)? {
            for (name, (shape, stored)) in tensors {
                let held = match stored {
                    Stored::Codes(codes) => Held::Codes(shape, codes),
                    Stored::Whole(values) => Held::Whole(shape, values),
                    Stored::Plain { dtype, offset } => {
                        Held::View(View { dtype, strides: contiguous(&shape), shape, offset })
                    }
                };
                left.insert(name, held);
            }
            return Ok(Self { file: file.into(), data, left, metadata: BTreeMap::new() });
        }
        for t in header.tensors {
            // The header's ranges lie inside the file.
            let offset = usize::try_from(t.offset).unwrap_or(usize::MAX);
            let view = View { dtype: t.dtype, strides: contiguous(&t.shape), shape: t.shape, offset };
            left.insert(t.name, Held::View(view));
        }
        Ok(Self { file: file.into(), data, left, metadata: header.metadata })
    }

    /// Tensors of a file that are already known.
    pub(crate) fn of(file: &str, data: Vec<u8>, tensors: impl IntoIterator<Item = (String, View)>) -> Self {
        Self {
            file: file.into(),
            data,
            left: tensors.into_iter().map(|(name, view)| (name, Held::View(view))).collect(),
            metadata: BTreeMap::new(),
        }
    }

    /// Adds a vector of whole numbers.
    pub(crate) fn hold(&mut self, name: String, values: Vec<i64>) {
        self.left.insert(name, Held::Whole(vec![values.len()], values));
    }

    /// The file's name, for errors.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's metadata.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names that have not been taken, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.left.keys().map(String::as_str)
    }

    /// The shape of `name`, if it has not been taken.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.left.get(name).map(Held::shape)
    }

    /// Whether `a` and `b` are the very same numbers: two names of one stored tensor.
    #[must_use]
    pub fn same(&self, a: &str, b: &str) -> bool {
        self.left.get(a).zip(self.left.get(b)).is_some_and(|(a, b)| a == b)
    }

    /// Whether `name` holds floats.
    #[must_use]
    pub fn is_float(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(|t| match t {
            Held::View(view) => numbers::floats(view.dtype, &[]).is_some(),
            Held::Codes(..) => true,
            Held::Whole(..) => false,
        })
    }

    /// Takes the floats of `name`, upcast to f32; `None` when it is not there.
    ///
    /// # Errors
    /// [`FormatError::AdapterShape`] for another shape or a type that is not a float; [`FormatError::NotFinite`].
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let view = match self.claim(name, shape)? {
            None => return Ok(None),
            Some(Held::View(view)) => view,
            Some(Held::Codes(shape, codes)) => return Ok(Some(decoded(&shape, codes))),
            Some(Held::Whole(..)) => return Err(self.wrong(name, "floats".into(), "whole numbers".into())),
        };
        let bytes = gather(&self.data, &view);
        let Some(values) = bytes.as_deref().and_then(|b| numbers::floats(view.dtype, b)) else {
            return Err(self.wrong(name, "floats (F32, F16, BF16 or F64)".into(), view.dtype.name().into()));
        };
        if let Some(index) = values.iter().position(|x| !x.is_finite()) {
            return Err(FormatError::NotFinite { file: self.file.clone(), tensor: shown(name), index });
        }
        Ok(Some(values))
    }

    /// Takes the whole numbers of `name`, booleans as 0 and 1; `None` when it is not there. For a shape that is not
    /// known beforehand, ask [`TensorBag::shape`].
    ///
    /// # Errors
    /// [`FormatError::AdapterShape`] for another shape, a type that is not whole numbers, or one beyond 2⁶³.
    pub fn take_ints(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<i64>>> {
        let view = match self.claim(name, shape)? {
            None => return Ok(None),
            Some(Held::View(view)) => view,
            Some(Held::Whole(_, values)) => return Ok(Some(values)),
            Some(Held::Codes(..)) => return Err(self.wrong(name, "whole numbers".into(), "codes".into())),
        };
        let bytes = gather(&self.data, &view);
        let values = bytes.as_deref().and_then(|b| numbers::whole(view.dtype, b));
        let wrong = || self.wrong(name, "whole numbers below 2⁶³".into(), view.dtype.name().into());
        values.map(Some).ok_or_else(wrong)
    }

    fn claim(&mut self, name: &str, shape: &[usize]) -> Result<Option<Held>> {
        let Some(view) = self.left.remove(name) else { return Ok(None) };
        if view.shape() != shape {
            return Err(self.wrong(name, format!("{shape:?}"), format!("{:?}", view.shape())));
        }
        Ok(Some(view))
    }

    fn wrong(&self, name: &str, expected: String, found: String) -> FormatError {
        FormatError::AdapterShape { file: self.file.clone(), tensor: shown(name), expected, found }
    }

    /// Takes a matrix, in codes where the file has codes; `None` when it is not there.
    ///
    /// # Errors
    /// As [`TensorBag::take`].
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Option<Matrix>> {
        if let Some(Held::Codes(..)) = self.left.get(name) {
            let Some(Held::Codes(_, codes)) = self.claim(name, &[rows, cols])? else { return Ok(None) };
            return Ok(Matrix::new(rows, cols, Storage::Code(codes)));
        }
        Ok(self.take(name, &[rows, cols])?.and_then(|values| Matrix::dense(rows, cols, values)))
    }

    /// Drops a tensor that is known to do nothing.
    pub fn ignore(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// Gives tensors other names, those of an older version of a library.
    ///
    /// # Errors
    /// [`FormatError::Duplicate`] when two would have the same.
    pub fn rename(&mut self, rule: impl Fn(&str) -> String) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (name, view) in std::mem::take(&mut self.left) {
            let name = rule(&name);
            if !seen.insert(name.clone()) {
                return Err(FormatError::Duplicate { file: self.file.clone(), name: shown(&name) });
            }
            self.left.insert(name, view);
        }
        Ok(())
    }

    /// Ends the reading. Strict: what is left over or was promised and missing is an error; else it is returned.
    ///
    /// # Errors
    /// [`FormatError::AdapterKeys`].
    pub fn finish(self, strict: bool, missing: Vec<String>) -> Result<Leftover> {
        let extra: Vec<String> = self.left.into_keys().collect();
        if strict && !(extra.is_empty() && missing.is_empty()) {
            return Err(FormatError::AdapterKeys { file: self.file, missing, extra });
        }
        Ok(Leftover { missing, extra })
    }
}

/// What did not fit, when the caller said not to be strict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftover {
    /// Promised and absent.
    pub missing: Vec<String>,
    /// Present and unused.
    pub extra: Vec<String>,
}

/// The numbers of codes.
fn decoded(shape: &[usize], codes: Codes) -> Vec<f32> {
    let cols = shape.last().copied().unwrap_or(0);
    let rows = shape.iter().product::<usize>() / cols.max(1);
    Matrix::new(rows, cols, Storage::Code(codes)).map(|m| m.to_f32()).unwrap_or_default()
}

/// The strides of a tensor whose elements follow one another, last dimension fastest.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut step = 1usize;
    let mut strides: Vec<usize> = shape
        .iter()
        .rev()
        .map(|n| {
            let stride = step;
            step = step.saturating_mul(*n);
            stride
        })
        .collect();
    strides.reverse();
    strides
}

/// A tensor's bytes, last dimension fastest.
fn gather<'a>(data: &'a [u8], view: &View) -> Option<std::borrow::Cow<'a, [u8]>> {
    let size = usize::try_from(view.dtype.size()).ok()?;
    let numel = view.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    if numel == 0 {
        return Some((&[][..]).into());
    }
    // The stride of a dimension of one element is never walked.
    let walked: Vec<(usize, usize, usize)> = view
        .shape
        .iter()
        .zip(view.strides.iter().zip(contiguous(&view.shape)))
        .filter(|(n, _)| **n > 1)
        .map(|(n, (s, c))| (*n, *s, c))
        .collect();
    if walked.iter().all(|(_, stride, contiguous)| stride == contiguous) {
        let end = numel.checked_mul(size)?.checked_add(view.offset)?;
        return data.get(view.offset..end).map(Into::into);
    }
    let mut out = Vec::with_capacity(numel.checked_mul(size)?);
    for i in 0..numel {
        let at: usize = walked.iter().map(|(n, stride, contiguous)| i / contiguous % n * stride).sum();
        let start = at.checked_mul(size)?.checked_add(view.offset)?;
        out.extend_from_slice(data.get(start..start.checked_add(size)?)?);
    }
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Dtype;

    #[test]
    fn strided_views_are_gathered() {
        let data: Vec<u8> = (0..12).collect();
        let view = |shape: &[usize], strides: &[usize], offset| View {
            dtype: Dtype::U8,
            shape: shape.into(),
            strides: strides.into(),
            offset,
        };
        for (shape, strides, offset, want) in [
            (&[2, 3][..], &[3, 1][..], 1, &[1, 2, 3, 4, 5, 6][..]),
            (&[3, 2], &[1, 3], 0, &[0, 3, 1, 4, 2, 5]),
            (&[2, 1, 2], &[4, 99, 2], 0, &[0, 2, 4, 6]),
            (&[], &[], 7, &[7]),
            (&[0, 4], &[4, 1], 0, &[]),
            (&[3], &[0], 2, &[2, 2, 2]),
        ] {
            assert_eq!(gather(&data, &view(shape, strides, offset)).unwrap(), want, "{shape:?} {strides:?}");
        }
        assert_eq!(gather(&data, &view(&[2, 2], &[11, 1], 0)), None);
    }
}
