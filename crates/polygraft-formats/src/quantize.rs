//! Fewer bits: a base model's matrices in blocks of 32 (4 or 8 bits) or as f16.

use crate::base::write::{is_bulk, is_vector};
use crate::error::{FormatError, Result};
use polygraft::model::{ModelSpec, WeightId};
use polygraft::quant::{BLOCK, q4_0, q8_0};
use polygraft::tensor::{Matrix, Scheme, Storage};

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

/// Converts weight `id` and notes the new scheme in `spec`. Codes that are in the wanted scheme stay bit for bit.
///
/// # Errors
/// [`FormatError::Unsupported`] for codes of another scheme; [`FormatError::NotFinite`] when f16 cannot hold a number.
pub fn weight(spec: &mut ModelSpec, id: WeightId, matrix: Matrix, bits: Bits) -> Result<Matrix> {
    let name = spec.weight(id).name.clone();
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let target = match bits.scheme() {
        _ if is_vector(spec, id) => Scheme::F32,
        scheme if !is_bulk(spec, id) || cols % BLOCK != 0 => {
            if scheme == matrix.scheme() {
                scheme
            } else {
                Scheme::F16
            }
        }
        scheme => scheme,
    };
    let found = matrix.scheme();
    if found == target {
        return Ok(matrix);
    }
    if found.is_quantized() {
        let why = format!("{name:?} is already {}; convert the model it was made from", found.name());
        return Err(FormatError::Unsupported { file: "quantize".into(), why });
    }
    let values = matrix.to_f32();
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
        Scheme::F32 | Scheme::Bf16 => Storage::F32(values),
    };
    let out = Matrix::new(rows, cols, storage).filter(|m| m.first_not_finite().is_none());
    let out = out.ok_or_else(|| FormatError::NotFinite { file: "quantize".into(), tensor: name, index: 0 })?;
    spec.weights[id.0 as usize].scheme = target;
    Ok(out)
}
