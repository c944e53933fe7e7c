//! Small numerics that readers need: the generators from which a library draws again what it did not save, and the
//! decompositions of a base's weights on which some methods rest. Nothing here panics, whatever the sizes and numbers.

mod eigen;
pub mod fourier;
pub mod linalg;
pub mod numpy_random;
pub mod svd;
pub mod top_k;
pub mod torch_random;
pub mod wavelet;

/// 64-bit FNV-1a: a long table in a test stands as one number.
#[cfg(test)]
fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
