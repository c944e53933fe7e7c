//! One tensor of a base file: which weight it is, whether its shape is the configuration's, and its numbers.

use super::config::EncoderConfig;
use super::sentence::Dense;
use crate::container::{Dtype, TensorInfo};
use crate::error::{FormatError, Result, shown};
use crate::names::{Param, Part};
use crate::numbers;
use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{HeadTask, RelativeTerms};
use polygraft::quant::BLOCK;
use polygraft::tensor::{Matrix, Scheme, Storage};

/// Where a tensor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot {
    pub(crate) part: Part,
    pub(crate) param: Param,
}

impl Slot {
    /// Whether it holds one row of numbers: a bias, or half of a norm.
    pub(crate) fn is_vector(self) -> bool {
        matches!(self.part, Part::Norm(_)) || self.param == Param::Bias
    }
}

/// How a matrix is stored in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Dense(Dtype),
    Codes(Scheme),
}

/// `(rows, cols)` by the configuration; `None` in `rows` where only the file knows (a head's labels).
pub(crate) fn shape(
    config: &EncoderConfig,
    dense: &[Dense],
    head: Option<HeadTask>,
    slot: Slot,
) -> (Option<usize>, usize) {
    let (e, h) = (config.embedding, config.hidden);
    let kind = head.and_then(|task| config.head_kinds.get(&task));
    let (rows, cols) = match slot.part {
        Part::Word => (Some(config.vocab), e),
        Part::Position => (Some(config.positions), e),
        Part::TokenType => (Some(config.types), e),
        Part::Relative => {
            let rows = config.relative.map_or(0, |(buckets, _)| buckets.rows() as usize);
            let bias = config.relative.is_some_and(|(_, terms)| terms == RelativeTerms::Bias);
            (Some(rows), if bias { config.heads } else { h })
        }
        Part::Norm(NormSite::Embeddings) => (Some(if config.norm_projected { h } else { e }), 1),
        Part::Norm(NormSite::HeadDense(_)) => (Some(kind.map_or(h, |k| k.width as usize)), 1),
        Part::Norm(_) => (Some(h), 1),
        Part::Linear(LinearSite::Layer(_, LayerLinear::Qkv)) => (Some(3 * h), h),
        Part::Linear(LinearSite::Layer(_, LayerLinear::FfnIn)) => {
            (Some(config.ffn * if config.gated { 2 } else { 1 }), h)
        }
        Part::Linear(LinearSite::Convolution) => (Some(h), h * config.convolution.map_or(0, |c| c.kernel)),
        Part::Linear(LinearSite::Layer(_, LayerLinear::FfnOut)) => (Some(h), config.ffn),
        Part::Linear(LinearSite::Embedding) => (Some(h), e),
        Part::Linear(LinearSite::Patches) => (Some(h), config.image.map_or(0, |image| image.width())),
        Part::Linear(LinearSite::HeadOutput) => {
            (None, kind.and_then(|k| k.shape(LinearSite::HeadOutput, 0, h)).map_or(h, |(_, cols)| cols))
        }
        Part::Linear(site @ LinearSite::HeadDense(_)) => {
            let (rows, cols) = kind.and_then(|k| k.shape(site, 0, h)).unwrap_or((h, h));
            (Some(rows), cols)
        }
        Part::Linear(LinearSite::Sentence(i)) => {
            dense.get(usize::from(i)).map_or((Some(0), 0), |d| (Some(d.outputs), d.inputs))
        }
        Part::Linear(_) => (Some(h), h),
    };
    match (slot.part, slot.param) {
        (Part::Norm(_), _) | (_, Param::Bias) => (rows, 1),
        (_, Param::Weight) => (rows, cols),
    }
}

/// Checks `info` against the configuration and says how it is stored and how many rows it has.
pub(crate) fn check(
    file: &str,
    info: &TensorInfo,
    slot: Slot,
    expected: (Option<usize>, usize),
) -> Result<(Stored, usize)> {
    let vector = matches!(slot.part, Part::Norm(_)) || slot.param == Param::Bias;
    let (rows, cols) = expected;
    let wrong = |found: String| {
        let rows = rows.map_or("any".into(), |r| r.to_string());
        let expected = if vector { format!("[{rows}]") } else { format!("[{rows}, {cols}]") };
        FormatError::ModelShape {
            file: file.into(),
            tensor: shown(&info.name),
            expected: format!("{expected} floats, as the configuration says"),
            found,
        }
    };
    let found = || format!("{:?} of {}", info.shape, info.dtype.name());
    let shape = flat(info, slot, cols);
    let fits = |r: usize| rows.is_none_or(|want| want == r);
    let stored = match info.dtype {
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 | Dtype::F64 => Stored::Dense(info.dtype),
        Dtype::U8 if !vector => Stored::Codes(Scheme::Q4_0),
        Dtype::I8 if !vector => Stored::Codes(Scheme::Q8_0),
        _ => return Err(wrong(found())),
    };
    let width = match stored {
        Stored::Codes(Scheme::Q4_0) if cols % BLOCK == 0 => cols / 2,
        Stored::Codes(_) if cols % BLOCK != 0 => return Err(wrong(found())),
        Stored::Dense(_) | Stored::Codes(_) => cols,
    };
    match shape.as_slice() {
        [r] if vector && fits(*r) => Ok((stored, *r)),
        [r, c] if !vector && fits(*r) && *c == width && *r > 0 => Ok((stored, *r)),
        _ => Err(wrong(found())),
    }
}

/// The shape of a tensor as a matrix: a convolution of the file is one over its inputs side by side, a table of one
/// sequence has a row a position.
fn flat(info: &TensorInfo, slot: Slot, cols: usize) -> Vec<usize> {
    match (slot, info.shape.as_slice()) {
        // `[outputs, inputs of a group, kernel]`; the matrix has zeros for the other groups' inputs.
        (Slot { part: Part::Linear(LinearSite::Convolution), param: Param::Weight }, [rows, inputs, kernel]) => {
            let whole = rows % (*inputs).max(1) == 0 && rows.checked_mul(*kernel) == Some(cols);
            if whole { vec![*rows, cols] } else { info.shape.clone() }
        }
        (Slot { part: Part::Linear(LinearSite::Patches), param: Param::Weight }, [rows, inputs, height, width]) => {
            vec![*rows, inputs * height * width]
        }
        (Slot { part: Part::Word | Part::Position, .. }, [1, rows, cols]) => vec![*rows, *cols],
        _ => info.shape.clone(),
    }
}

/// Whether a tensor is a convolution along tokens, whose numbers are put in another order; a table of one sequence has
/// three dimensions too.
pub(crate) fn is_convolution(info: &TensorInfo) -> bool {
    matches!(info.shape[..], [rows, _, _] if rows > 1)
}

/// The weight of a convolution along tokens as a matrix over a token and its neighbours, one after the other.
pub(crate) fn convolution(file: &str, info: &TensorInfo, bytes: &[u8], cols: usize) -> Result<Matrix> {
    let values = numbers::floats(info.dtype, bytes).ok_or_else(|| short(file, &info.name))?;
    let [rows, inputs, kernel] = info.shape[..] else { return Err(short(file, &info.name)) };
    let mut out = vec![0.0; rows * cols];
    // As many inputs in all as outputs; the outputs of a group see its inputs.
    for (o, (row, weight)) in out.chunks_exact_mut(cols).zip(values.chunks_exact(inputs * kernel)).enumerate() {
        let first = o / inputs * inputs;
        for (i, taps) in weight.chunks_exact(kernel).enumerate() {
            for (j, w) in taps.iter().enumerate() {
                row[j * rows + first + i] = *w;
            }
        }
    }
    finite(file, &info.name, Matrix::dense(rows, cols, out).ok_or_else(|| short(file, &info.name))?)
}

/// The numbers of a dense tensor: matrices as they are stored, vectors as f32.
pub(crate) fn dense(
    file: &str,
    info: &TensorInfo,
    bytes: &[u8],
    rows: usize,
    cols: usize,
    vector: bool,
) -> Result<Matrix> {
    let storage =
        if vector { numbers::floats(info.dtype, bytes).map(Storage::F32) } else { numbers::stored(info.dtype, bytes) };
    let matrix = storage.and_then(|s| if vector { Matrix::new(1, rows, s) } else { Matrix::new(rows, cols, s) });
    finite(file, &info.name, matrix.ok_or_else(|| short(file, &info.name))?)
}

/// A quantized matrix from its two tensors.
pub(crate) fn codes(
    file: &str,
    name: &str,
    scheme: Scheme,
    rows: usize,
    cols: usize,
    codes: Vec<u8>,
    scales: &[u8],
) -> Result<Matrix> {
    let scales = numbers::halves(scales);
    let storage = match scheme {
        Scheme::Q4_0 => Storage::Q4_0 { codes, scales },
        _ => Storage::Q8_0 { codes: codes.into_iter().map(u8::cast_signed).collect(), scales },
    };
    finite(file, name, Matrix::new(rows, cols, storage).ok_or_else(|| short(file, name))?)
}

fn finite(file: &str, name: &str, matrix: Matrix) -> Result<Matrix> {
    match matrix.first_not_finite() {
        None => Ok(matrix),
        Some(index) => Err(FormatError::NotFinite { file: file.into(), tensor: shown(name), index }),
    }
}

fn short(file: &str, name: &str) -> FormatError {
    FormatError::Range {
        file: file.into(),
        why: format!("tensor {:?}: its bytes are not as many as its shape needs", shown(name)),
    }
}
