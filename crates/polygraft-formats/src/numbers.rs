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

/// Whole numbers of any width, and booleans; `None` for floats and for numbers beyond 2⁶³.
#[must_use]
pub(crate) fn whole(dtype: Dtype, bytes: &[u8]) -> Option<Vec<i64>> {
    Some(match dtype {
        Dtype::Bool | Dtype::U8 => bytes.iter().map(|b| i64::from(*b)).collect(),
        Dtype::I8 => bytes.iter().map(|b| i64::from(b.cast_signed())).collect(),
        Dtype::I16 => halves(bytes).into_iter().map(|b| i64::from(b.cast_signed())).collect(),
        Dtype::U16 => halves(bytes).into_iter().map(i64::from).collect(),
        Dtype::I32 => bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        Dtype::U32 => bytes.as_chunks::<4>().0.iter().map(|b| i64::from(u32::from_le_bytes(*b))).collect(),
        Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        Dtype::U64 => {
            let words = bytes.as_chunks::<8>().0.iter().map(|b| i64::try_from(u64::from_le_bytes(*b)).ok());
            return words.collect();
        }
        Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64 => return None,
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
