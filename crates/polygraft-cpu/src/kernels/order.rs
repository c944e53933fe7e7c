//! In which form and order the integer kernels take what they multiply: most of them as [`crate::pack`] and
//! [`crate::quantize`] describe it, one of WebAssembly's in its own ([`super::wasm`]).

#![cfg_attr(
    not(all(target_arch = "wasm32", target_feature = "simd128")),
    allow(unused_variables, reason = "this machine's kernels want nothing special")
)]

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::Kind;
use super::{CUTS, Code, Isa, ROW, SIDE};
use crate::pack::{LANES, Q4_WORDS, q4_shift};
use polygraft::quant::BLOCK;

impl Isa {
    /// Whether 4-bit codes are in an order of their own: see [`Self::arrange`].
    pub(crate) fn arranges(self) -> bool {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.is_pairs(),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => false,
        }
    }

    /// As many blocks as a row of `blocks` takes: some kernels take two at a time, of which the second may be empty.
    pub(crate) fn filled(self, blocks: usize) -> usize {
        if self.arranges() { blocks.next_multiple_of(2) } else { blocks }
    }

    /// How many segments the scales of `blocks` are cut into by [`Self::shares`], where the kernel of 4-bit weights wants that.
    pub(crate) fn segments(self, blocks: usize) -> Option<usize> {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.segment().map(|segment| blocks.div_ceil(segment)),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => None,
        }
    }

    /// The scales of a group's activations, `[block][row]`, as whole numbers: shares of their row's in a segment, where
    /// the kernel of 4-bit weights adds up sums of several blocks before they become floats. `tops`, `[segment][row]`, is what
    /// its sums are to be multiplied with.
    pub(crate) fn shares(self, codes: &[Code], scales: &[f32], words: &mut [u32], tops: &mut [f32]) {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.shares(codes, scales, words, tops),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => {}
        }
    }

    /// Panels that the kernel of 4-bit weights likes to have at once.
    pub(crate) fn abreast(self) -> usize {
        if self.arranges() { 2 } else { 1 }
    }

    /// A panel's 4-bit codes, from the order of [`crate::pack`] to the one that the kernel wants.
    pub(crate) fn arrange(self, words: &mut [u32]) {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.arrange(words),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => {}
        }
    }

    /// Where the code of input `k` of block `block` is in a panel's lane: its word in the block, and its shift.
    pub(crate) fn place(self, block: usize, lane: usize, k: usize) -> (usize, usize) {
        let packed = (k / 8 * LANES + lane, q4_shift(k));
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.place(block, lane, k).unwrap_or(packed),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => packed,
        }
    }

    /// A panel of 4-bit codes as f32, `[input][lane]`, with scales `[block][lane]`: only where it [`Self::arranges`].
    pub(crate) fn decode(self, words: &[u32], scales: &[f32], out: &mut [f32]) {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.decode(words, scales, out),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => {}
        }
    }

    /// The 4-bit codes of a panel, each in a place of its own, in the kernel's order: see [`crate::decode::cut`].
    pub(crate) fn cut(self, words: &[u32], out: &mut [u32]) {
        assert!(words.len().is_multiple_of(Q4_WORDS * LANES), "blocks to cut");
        let blocks = self.filled(words.len() / (Q4_WORDS * LANES));
        assert!(out.len() == blocks * Q4_WORDS * LANES * CUTS, "room for what is cut");
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.cut(words, out),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => self.vectorize(|| crate::decode::cut(words, out)),
        }
    }

    /// The scales of a panel of 4-bit codes, `[block][lane]`, as the kernel reads them: gives what the sums of each lane are to
    /// be multiplied with in the end. Where the kernel widens sums of 16 bits, it multiplies them with a whole number on the
    /// way: the scale in 15 bits, where the largest of a lane is all ones.
    pub(crate) fn fit(self, scales: &mut [f32]) -> [f32; LANES] {
        assert!(scales.len().is_multiple_of(LANES), "scales to fit");
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.fit(scales),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => [1.0; LANES],
        }
    }

    /// A block of inputs in 8 bits, as row `side` of its group's block of `codes`; gives scale and correction.
    #[inline(always)]
    pub(crate) fn quantize(self, x: &[f32; BLOCK], codes: &mut [Code], side: usize) -> (f32, i32) {
        assert!(codes.len() == ROW * SIDE && side < SIDE, "a block");
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.quantize(x, codes, side),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            // A group is one row.
            _ => crate::quantize::block(x, codes),
        }
    }

    /// The sum of a block's codes, by its correction.
    pub(crate) fn sum(self, correction: i32) -> i32 {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) if lowering.is_pairs() => i32::from(correction as i16) / -8,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(_) => correction / -8,
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => (i32::from(correction as i16) + i32::from((correction >> 16) as i16)) / -8,
        }
    }
}
