//! How the engine lowers the relaxed product of bytes, and what follows from it: which kernels run, in which form they take
//! what they multiply.

use super::{Code, pointwise, unpack};
#[cfg(target_feature = "relaxed-simd")]
use super::{black_box, pairs};
use crate::pack::LANES;
use polygraft::quant::BLOCK;
#[cfg(target_feature = "relaxed-simd")]
use std::arch::wasm32::*;

/// How the engine lowers the relaxed product of bytes, by what it makes of bytes outside its range. All have the same
/// results inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernels) enum Lowering {
    /// No relaxed instructions in this build.
    #[cfg(not(target_feature = "relaxed-simd"))]
    Plain,
    /// Pairs in 16 bits that saturate: x86-64 without VNNI.
    #[cfg(target_feature = "relaxed-simd")]
    Pairs,
    /// Fours in 32 bits: VNNI on x86-64, `sdot` on Arm.
    #[cfg(target_feature = "relaxed-simd")]
    Fours,
}

impl Lowering {
    #[cfg(not(target_feature = "relaxed-simd"))]
    pub(in crate::kernels) fn detect() -> Self {
        Self::Plain
    }

    #[cfg(target_feature = "relaxed-simd")]
    pub(in crate::kernels) fn detect() -> Self {
        let (signed, beyond) = (black_box(i8x16_splat(127)), black_box(u8x16_splat(255)));
        let dot = i32x4_relaxed_dot_i8x16_i7x16_add(signed, beyond, i32x4_splat(0));
        if i32x4_extract_lane::<0>(dot) == 2 * 32_767 { Self::Pairs } else { Self::Fours }
    }

    /// Whether 4-bit weights run by [`pairs`], which have all their own: of codes, words, scales.
    pub(in crate::kernels) fn is_pairs(self) -> bool {
        match self {
            #[cfg(not(target_feature = "relaxed-simd"))]
            Self::Plain => false,
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => true,
            #[cfg(target_feature = "relaxed-simd")]
            Self::Fours => false,
        }
    }

    /// Blocks whose scales meet in one sum, where there are such sums.
    pub(in crate::kernels) fn segment(self) -> Option<usize> {
        match self {
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => Some(pairs::SEGMENT),
            _ => None,
        }
    }

    /// Whether heads are computed in [`attend::Halves`].
    pub(in crate::kernels) fn attends_closely(self) -> bool {
        match self {
            #[cfg(not(target_feature = "relaxed-simd"))]
            Self::Plain => true,
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => true,
            #[cfg(target_feature = "relaxed-simd")]
            Self::Fours => false,
        }
    }

    pub(in crate::kernels) fn name(self) -> &'static str {
        match self {
            #[cfg(not(target_feature = "relaxed-simd"))]
            Self::Plain => "wasm simd128",
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => "wasm relaxed-simd, pairs",
            #[cfg(target_feature = "relaxed-simd")]
            Self::Fours => "wasm relaxed-simd, fours",
        }
    }

    /// A block of inputs in 8 bits, among the codes of its group: see [`super::super::Isa::quantize`].
    #[inline(always)]
    pub(in crate::kernels) fn quantize(self, x: &[f32; BLOCK], codes: &mut [Code], side: usize) -> (f32, i32) {
        match self {
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => pairs::quantize(x, codes, side),
            // SAFETY: the slices have these lengths.
            _ => unsafe { pointwise::quantize(x.as_ptr(), codes.as_mut_ptr(), side) },
        }
    }

    /// See [`super::super::Isa::cut`].
    pub(in crate::kernels) fn cut(self, words: &[u32], out: &mut [u32]) {
        match self {
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => pairs::cut(words, out),
            _ => unpack::cut(words, out),
        }
    }

    /// See [`super::super::Isa::arrange`].
    pub(in crate::kernels) fn arrange(self, words: &mut [u32]) {
        match self {
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => pairs::arrange(words),
            _ => _ = words,
        }
    }

    /// See [`super::super::Isa::place`]; `None` for that of [`crate::pack`].
    pub(in crate::kernels) fn place(self, block: usize, lane: usize, k: usize) -> Option<(usize, usize)> {
        match self {
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => Some(pairs::place(block, lane, k)),
            _ => {
                _ = (block, lane, k);
                None
            }
        }
    }

    /// See [`super::super::Isa::decode`].
    pub(in crate::kernels) fn decode(self, words: &[u32], scales: &[f32], out: &mut [f32]) {
        match self {
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => pairs::decode(words, scales, out),
            _ => _ = (words, scales, out),
        }
    }

    /// See [`super::super::Isa::fit`].
    pub(in crate::kernels) fn fit(self, scales: &mut [f32]) -> [f32; LANES] {
        match self {
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => pairs::fit(scales),
            _ => {
                _ = scales;
                [1.0; LANES]
            }
        }
    }

    /// See [`super::super::Isa::shares`].
    pub(in crate::kernels) fn shares(self, codes: &[Code], scales: &[f32], words: &mut [u32], tops: &mut [f32]) {
        match self {
            #[cfg(target_feature = "relaxed-simd")]
            Self::Pairs => pairs::shares(codes, scales, words, tops),
            _ => _ = (codes, scales, words, tops),
        }
    }
}
