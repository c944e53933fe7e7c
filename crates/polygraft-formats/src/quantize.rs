//! Fewer bits: a base model's matrices in blocks of 32 (4 or 8 bits) or as f16.

use crate::base::write::{self, is_bulk, is_vector};
use crate::error::{FormatError, Result};
use polygraft::model::{ModelSpec, WeightId};
use polygraft::quant::{BLOCK, q4_0, q8_0};
use polygraft::tensor::{Matrix, Scheme, Storage};
use std::io::Write;

/// What the bulk of a model is stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// 4-bit codes in blocks of 32, one f16 scale each: 4.5 bits a weight.
    Four,
    /// 8-bit codes in blocks of 32: 8.5 bits a weight.
    Eight,
    /// f16.
    Sixteen,
}

/// How much of a matrix is to be in memory at once, in bytes of its file.
pub const RUN: u64 = 8 << 20;

impl Bits {
    /// From `4`, `8`, `16`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "4" => Self::Four,
            "8" => Self::Eight,
            "16" => Self::Sixteen,
            _ => return None,
        })
    }

    fn scheme(self) -> Scheme {
        match self {
            Self::Four => Scheme::Q4_0,
            Self::Eight => Scheme::Q8_0,
            Self::Sixteen => Scheme::F16,
        }
    }
}

/// What weight `id` becomes. Vectors stay f32; matrices that are not the bulk of the model become f16.
///
/// # Errors
/// [`FormatError::Unsupported`] for codes of another scheme.
pub fn target(spec: &ModelSpec, id: WeightId, bits: Bits) -> Result<Scheme> {
    let info = spec.weight(id);
    let scheme = bits.scheme();
    let target = if is_vector(spec, id) {
        Scheme::F32
    } else if (is_bulk(spec, id) && info.cols.is_multiple_of(BLOCK)) || scheme == info.scheme {
        scheme
    } else {
        Scheme::F16
    };
    if info.scheme.is_quantized() && info.scheme != target {
        let why = format!("{:?} is already {}; convert the model it was made from", info.name, info.scheme.name());
        return Err(FormatError::Unsupported { file: "quantize".into(), why });
    }
    Ok(target)
}

/// Converts whole rows of the weight called `name`. Those that are in the wanted scheme stay bit for bit.
///
/// # Errors
/// [`FormatError::NotFinite`] when f16 cannot hold a number.
pub fn rows(name: &str, rows: Matrix, target: Scheme) -> Result<Matrix> {
    if rows.scheme() == target {
        return Ok(rows);
    }
    let values = rows.to_f32();
    let storage = match target {
        Scheme::Q4_0 => {
            let (codes, scales) = q4_0::encode(&values);
            Storage::Q4_0 { codes, scales }
        }
        Scheme::Q8_0 => {
            let (codes, scales) = q8_0::encode(&values);
            Storage::Q8_0 { codes, scales }
        }
        Scheme::F16 => Storage::F16(values.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect()),
        Scheme::F32 | Scheme::Bf16 | Scheme::Code(_) => Storage::F32(values),
    };
    let out = Matrix::new(rows.rows(), rows.cols(), storage).filter(|m| m.first_not_finite().is_none());
    out.ok_or_else(|| FormatError::NotFinite { file: "quantize".into(), tensor: name.into(), index: 0 })
}

/// Writes a base in fewer bits as polygraft's own folder, some rows in memory at a time. `each` puts the rows of a
/// weight as they are; `name` is for a model that has none. Else as [`write::folder`].
///
/// # Errors
/// As [`target`], [`rows`] and [`write::folder`].
pub fn folder<W: Write>(
    base: &ModelSpec,
    bits: Bits,
    name: &str,
    kit: Option<&[u8]>,
    mut each: impl FnMut(WeightId, &mut dyn FnMut(Matrix) -> Result<()>) -> Result<()>,
    create: impl FnMut(&str) -> std::io::Result<W>,
) -> Result<u64> {
    let mut spec = base.clone();
    if spec.fingerprint.name.is_empty() {
        spec.fingerprint.name = name.into();
    }
    for (weight, id) in spec.weights.iter_mut().zip((0..).map(WeightId)) {
        weight.scheme = target(base, id, bits)?;
    }
    let give = |id, put: &mut dyn FnMut(Matrix) -> Result<()>| {
        let weight = spec.weight(id);
        each(id, &mut |run| put(rows(&weight.name, run, weight.scheme)?))
    };
    write::folder(&spec, kit, give, create)
}
