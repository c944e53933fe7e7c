//! Weights as they are stored to weights as the kernels read them. By hand: the module is linked for size, and the
//! compiler then makes no vectors of loops.

use super::{CUTS, load};
use crate::pack::LANES;
use std::arch::wasm32::*;

/// [`crate::decode::cut`], for whole words of a panel.
pub(in crate::kernels) fn cut(words: &[u32], out: &mut [u32]) {
    let mask = u32x4_splat(if CUTS == 2 { 0x0f0f_0f0f } else { 0x000f_000f });
    let (words, out) = (words.as_chunks::<LANES>().0, out.as_chunks_mut::<{ LANES * CUTS }>().0);
    for (words, out) in words.iter().zip(out) {
        for half in [0, LANES / 2] {
            // SAFETY: eight words are there, and room for as many of each cut.
            unsafe {
                let mut word = load(words.as_ptr().add(half).cast());
                for cut in 0..CUTS {
                    v128_store(out.as_mut_ptr().add(cut * LANES + half).cast(), v128_and(word, mask));
                    word = u32x4_shr(word, 4);
                }
            }
        }
    }
}

/// [`crate::math::f16_to_f32`] of whole panels.
pub(in crate::kernels) fn widen(bits: &[u16], out: &mut [f32]) {
    let (bits, out) = (bits.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
    for (bits, out) in bits.iter().zip(out) {
        // SAFETY: eight numbers are there, and room for eight.
        unsafe {
            let eight = v128_load(bits.as_ptr().cast());
            v128_store(out.as_mut_ptr().cast(), four(u32x4_extend_low_u16x8(eight)));
            v128_store(out.as_mut_ptr().add(LANES / 2).cast(), four(u32x4_extend_high_u16x8(eight)));
        }
    }
}

#[inline(always)]
fn four(wide: v128) -> v128 {
    let magnitude = u32x4_shl(v128_and(wide, u32x4_splat(0x7fff)), 13);
    let magnitude = f32x4_mul(magnitude, f32x4_splat(f32::from_bits((254 - 15) << 23)));
    let exponent = u32x4_splat(0x7c00);
    let special = v128_and(i32x4_eq(v128_and(wide, exponent), exponent), u32x4_splat(0x7f80_0000));
    let sign = u32x4_shl(v128_and(wide, u32x4_splat(0x8000)), 16);
    v128_or(v128_or(magnitude, special), sign)
}
