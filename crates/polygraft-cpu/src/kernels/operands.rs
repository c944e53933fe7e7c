//! What kernels take: activations, weights, and where results go, with the checks that make their loops safe.

use super::{CUTS, Code, Isa, ROW, SIDE};
use crate::pack::{LANES, Q4_WORDS, Q8_WORDS};

/// Rows of f32 activations: row `r` is `values[r * stride..][..width]`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) count: usize,
    pub(crate) width: usize,
}

/// Rows of quantized activations, in groups of [`SIDE`]; the last group is filled up.
#[derive(Clone, Copy)]
pub(crate) struct Codes<'a> {
    /// −127 to 127, `[group][block]` and then as the kernel likes them: in the order of the inputs where a group is one
    /// row, in runs of a few inputs with the other rows' runs between them where it is several.
    pub(crate) codes: &'a [Code],
    /// `[group][block][row of the group]`.
    pub(crate) scales: &'a [f32],
    /// `[group][block][row of the group]`: what undoes the offset of 8 in 4-bit weights, −8 × the sum of the block's codes.
    /// A kernel's sums start from it. For 16-bit sums it is two numbers: AVX2's are those of the codes at places 0 and 1 of
    /// each four, and of those at places 2 and 3 in the upper half; WebAssembly's are the whole, twice.
    pub(crate) corrections: &'a [i32],
    /// As [`Isa::shares`] makes them, `[group][block][row of the group]` and `[group][segment][row of the group]`.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "no kernel of this machine wants it"))]
    pub(crate) shares: &'a [u32],
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "no kernel of this machine wants it"))]
    pub(crate) tops: &'a [f32],
    pub(crate) count: usize,
    /// Of a row, as many as [`Isa::filled`] gives.
    pub(crate) blocks: usize,
}

/// Bits of a weight's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    Four,
    Eight,
}

/// Panels of quantized weights, side by side.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) bits: Bits,
    /// `[panel][block][word][lane]`; 4-bit codes stand as [`Isa::cut`] leaves them, [`CUTS`] for each word of the stored form.
    pub(crate) words: &'a [u32],
    /// `[panel][block][lane]`, for 4-bit codes as [`Isa::fit`] leaves them.
    pub(crate) scales: &'a [f32],
    /// What [`Isa::fit`] gives for each panel; 1 for 8-bit codes.
    pub(crate) units: &'a [[f32; LANES]],
    /// Stored words that are cut next, if that is known: a kernel may ask for them meanwhile.
    #[cfg_attr(not(target_feature = "relaxed-simd"), allow(dead_code, reason = "no kernel of this machine asks"))]
    pub(crate) ahead: &'a [u32],
}

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    /// `[block][word][lane]`.
    pub(crate) words: &'a [u32],
    /// `[block][lane]`.
    pub(crate) scales: &'a [f32],
}

impl<'a> Panels<'a> {
    /// One after the other.
    pub(super) fn each(self) -> impl Iterator<Item = Panel<'a>> {
        let count = self.units.len().max(1);
        let (words, scales) = (self.words.len() / count, self.scales.len() / count);
        let each = self.words.chunks_exact(words.max(1)).zip(self.scales.chunks_exact(scales.max(1)));
        each.map(|(words, scales)| Panel { words, scales })
    }
}

/// Where products go: row `r` to `values[r * stride..]`, one panel after the other.
pub(crate) struct Target<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) stride: usize,
}

impl Target<'_> {
    /// From row `row` on.
    pub(crate) fn from(&mut self, row: usize) -> Target<'_> {
        Target { values: &mut self.values[row * self.stride..], stride: self.stride }
    }

    /// From column `column` on.
    pub(crate) fn columns(&mut self, column: usize) -> Target<'_> {
        Target { values: &mut self.values[column..], stride: self.stride }
    }
}

/// A head of a row, for some of its queries. Rows of queries, keys and values are `stride` apart.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "for a kernel that is not in this build"))]
pub(crate) struct Attention<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) stride: usize,
    /// Dimensions.
    pub(crate) width: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    /// What the products of queries and keys are multiplied with.
    pub(crate) scale: f32,
    /// Whose keys and values these are: a kernel's place, a row, a head.
    pub(crate) of: (usize, usize, usize),
}

/// A head in integers: memory that the kernel reuses, and what it packed last.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "for a kernel that is not in this build"))]
pub(crate) struct Coded {
    pub(crate) of: Option<(usize, usize, usize)>,
    /// `[panel of keys][word][lane]`, four dimensions a word.
    pub(crate) keys: Vec<u32>,
    /// `[panel of keys][lane]`.
    pub(crate) key_scales: Vec<f32>,
    /// NaN where a key has a number that is not finite, which its codes do not tell; else 0.
    pub(crate) overflow: f32,
    /// `[panel of dimensions][block of keys][word][lane]`, four keys a word.
    pub(crate) values: Vec<u32>,
    /// `[panel of dimensions][block of keys][lane]`.
    pub(crate) value_scales: Vec<f32>,
    /// `[query of the group][key, padded]`.
    pub(crate) scores: Vec<f32>,
    /// `[block of keys][plane][word][query of the group]`, four keys a word.
    pub(crate) weights: Vec<u32>,
}

impl Rows<'_> {
    pub(super) fn check(&self, panels: usize, weights: &[f32], out: &Target<'_>) {
        let reach = |rows: usize, stride: usize, width: usize| if rows == 0 { 0 } else { (rows - 1) * stride + width };
        assert!(reach(self.count, self.stride, self.width) <= self.values.len(), "activations");
        assert!(weights.len() == panels * self.width * LANES, "weights");
        assert!(reach(self.count, out.stride, panels * LANES) <= out.values.len(), "outputs");
    }
}

impl Codes<'_> {
    pub(super) fn check(&self, isa: Isa, panels: &Panels<'_>, bias: Option<&[f32]>, out: &Target<'_>) {
        let (rows, count) = (self.count.next_multiple_of(SIDE), panels.units.len());
        let own = rows * self.blocks;
        assert!(self.codes.len() >= own * ROW, "activations");
        assert!(self.scales.len() >= own && self.corrections.len() >= own, "activation scales");
        if let Some(segments) = isa.segments(self.blocks) {
            assert!(self.shares.len() >= own && self.tops.len() >= rows * segments, "shares of activation scales");
        }
        let real = panels.scales.len() / (count * LANES).max(1);
        assert!(panels.scales.len() == count * real * LANES && isa.filled(real) == self.blocks, "weight scales");
        let words = match panels.bits {
            Bits::Four => self.blocks * Q4_WORDS * CUTS,
            Bits::Eight => real * Q8_WORDS,
        };
        assert!(panels.words.len() == count * words * LANES, "weights");
        assert!(bias.is_none_or(|bias| bias.len() == count * LANES), "bias");
        assert!(self.count == 0 || (self.count - 1) * out.stride + count * LANES <= out.values.len(), "outputs");
    }
}
