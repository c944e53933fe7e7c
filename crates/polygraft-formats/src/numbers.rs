//! Stored bytes to numbers: little-endian, copied, never transmuted.

use crate::container::Dtype;
use polygraft::tensor::Storage;

/// Floats of any width as f32; `None` for types that are not floats.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "f64 weights are run as f32, as torch does when it loads them")]
pub(crate) fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => halves(bytes).into_iter().map(|b| half::f16::from_bits(b).to_f32()).collect(),
        Dtype::Bf16 => halves(bytes).into_iter().map(|b| half::bf16::from_bits(b).to_f32()).collect(),
        Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        _ => return None,
    })
}

/// Floats in the width in which they are stored; `None` for types that are not floats.
#[must_use]
pub(crate) fn stored(dtype: Dtype, bytes: &[u8]) -> Option<Storage> {
    Some(match dtype {
        Dtype::F16 => Storage::F16(halves(bytes)),
        Dtype::Bf16 => Storage::Bf16(halves(bytes)),
        _ => Storage::F32(floats(dtype, bytes)?),
    })
}

/// 16-bit words.
#[must_use]
pub(crate) fn halves(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect()
}

/// The bytes of f32s.
#[must_use]
pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The bytes of 16-bit words.
#[must_use]
pub(crate) fn half_bytes(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}
