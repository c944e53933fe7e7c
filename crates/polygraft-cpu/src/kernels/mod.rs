//! The inner loops: matrix products over packed panels, once in plain Rust and once for each instruction set.
//!
//! This is the only folder with unsafe code. Each kernel checks the lengths of its slices once, at its entry. Every
//! output depends on its own row of activations alone, computed in one fixed order whatever the rows around it, so that
//! a row has the same bits alone and in any batch.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

use crate::pack::{LANES, Q4_WORDS, Q8_WORDS};
use polygraft::quant::BLOCK;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use wasm::{CUTS, Code, SIDE};

/// A quantized activation as the integer kernels read it.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) type Code = i8;

/// Rows whose codes, scales and corrections lie side by side.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) const SIDE: usize = 1;

/// Into how many words a word of eight 4-bit codes is cut for the integer kernels.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) const CUTS: usize = 2;

/// The instruction set that runs. Only [`Isa::detect`] makes one, so that holding it proves that it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Isa(Kind);

#[derive(Debug, Clone, Copy)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx2(Bytes),
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    Portable,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Wasm(wasm::Lowering),
}

/// How a machine with AVX2 and FMA multiplies bytes.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
enum Bytes {
    /// By pairs, in 16 bits.
    Pairs,
    /// By fours, in 32 bits.
    Vnni,
    /// The same in AVX-512's encoding, which reaches twice the registers.
    Vnni512,
}

#[cfg(target_arch = "x86_64")]
impl Bytes {
    /// Codes of 4 bits, or of 8.
    ///
    /// # Safety
    /// The machine has the features; the lengths were checked (`Codes::check`).
    unsafe fn gemm<const FOUR: bool>(
        self,
        x: Codes<'_>,
        panel: Panel<'_>,
        bias: Option<&[f32; LANES]>,
        out: &mut Target<'_>,
    ) {
        // SAFETY: as the caller promised.
        unsafe {
            match self {
                Self::Pairs if FOUR => avx2::gemm_q4(x, panel, bias, out),
                Self::Pairs => avx2::gemm_q8(x, panel, bias, out),
                Self::Vnni => vnni::avx::gemm::<FOUR>(x, panel, bias, out),
                Self::Vnni512 => vnni::avx512::gemm::<FOUR>(x, panel, bias, out),
            }
        }
    }
}

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
    /// A kernel's sums start from it. For 16-bit sums it is two numbers: of the codes at places 0 and 1 of each four, and
    /// of those at places 2 and 3 in the upper half.
    pub(crate) corrections: &'a [i32],
    pub(crate) count: usize,
    pub(crate) blocks: usize,
}

/// One panel of quantized weights.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    /// `[block][word][lane]`; 4-bit codes stand in words of four ([`CUTS`] for each word of the stored form).
    pub(crate) words: &'a [u32],
    /// `[block][lane]`, for 4-bit codes as [`Isa::fit`] leaves them.
    pub(crate) scales: &'a [f32],
    /// What [`Isa::fit`] gives; 1 for 8-bit codes.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "no kernel of this machine wants it"))]
    pub(crate) units: [f32; LANES],
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
    fn check(&self, panels: usize, weights: &[f32], out: &Target<'_>) {
        let reach = |rows: usize, stride: usize, width: usize| if rows == 0 { 0 } else { (rows - 1) * stride + width };
        assert!(reach(self.count, self.stride, self.width) <= self.values.len(), "activations");
        assert!(weights.len() == panels * self.width * LANES, "weights");
        assert!(reach(self.count, out.stride, panels * LANES) <= out.values.len(), "outputs");
    }
}

impl Codes<'_> {
    fn check(&self, words: usize, panel: &Panel<'_>, out: &Target<'_>) {
        let blocks = self.count.next_multiple_of(SIDE) * self.blocks;
        assert!(self.codes.len() >= blocks * BLOCK, "activations");
        assert!(self.scales.len() >= blocks && self.corrections.len() >= blocks, "activation scales");
        assert!(panel.words.len() == self.blocks * words * LANES, "weights");
        assert!(panel.scales.len() == self.blocks * LANES, "weight scales");
        assert!(self.count == 0 || (self.count - 1) * out.stride + LANES <= out.values.len(), "outputs");
    }
}

/// The ways to multiply bytes that this machine has, the best last; none without AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
fn bytes() -> Vec<Bytes> {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma")) {
        return Vec::new();
    }
    let vnni = has!("avxvnni").then_some(Bytes::Vnni);
    let vnni512 = (has!("avx512vnni") && has!("avx512vl")).then_some(Bytes::Vnni512);
    [Some(Bytes::Pairs), vnni, vnni512].into_iter().flatten().collect()
}

impl Isa {
    /// The best that this machine has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(bytes) = bytes().last() {
            return Self(Kind::Avx2(*bytes));
        }
        #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
        return Self(Kind::Portable);
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Self(Kind::Wasm(wasm::Lowering::detect()))
    }

    /// The plain kernels, so that tests can run them on any machine.
    #[cfg(all(test, not(target_arch = "wasm32")))]
    pub(crate) fn portable() -> Self {
        Self(Kind::Portable)
    }

    /// All that this machine has, for tests; the plain ones are the first.
    #[cfg(all(test, not(target_arch = "wasm32")))]
    pub(crate) fn every() -> Vec<Self> {
        let plain = [Self::portable()].into_iter();
        #[cfg(target_arch = "x86_64")]
        return plain.chain(bytes().into_iter().map(|bytes| Self(Kind::Avx2(bytes)))).collect();
        #[cfg(not(target_arch = "x86_64"))]
        plain.collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(Bytes::Pairs) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(Bytes::Vnni) => "avx2, vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(Bytes::Vnni512) => "avx2, vnni of avx512",
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Portable => "portable",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.name(),
        }
    }

    /// Runs `work` compiled for this instruction set: loops inside become its vectors.
    #[inline(always)]
    pub(crate) fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only `detect` makes this kind, after it saw the features.
            Kind::Avx2(_) => unsafe { avx2::vectorize(work) },
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Portable => work(),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(_) => work(),
        }
    }

    /// The 4-bit codes of whole words of a panel, each in a place of its own: see [`crate::decode::cut`].
    pub(crate) fn cut(self, words: &[u32], out: &mut [u32]) {
        assert!(words.len().is_multiple_of(LANES) && out.len() == words.len() * CUTS, "words to cut");
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(_) => wasm::cut(words, out),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => self.vectorize(|| crate::decode::cut(words, out)),
        }
    }

    /// The scales of a panel of 4-bit codes, `[block][lane]`, as the kernel reads them: gives what the sums of each lane are to
    /// be multiplied with in the end. Where the kernel widens sums of 16 bits, it multiplies them with a whole number on the
    /// way: the scale in 15 bits, where the largest of a lane is all ones; both halves of a float's place hold it.
    pub(crate) fn fit(self, scales: &mut [f32]) -> [f32; LANES] {
        assert!(scales.len().is_multiple_of(LANES), "scales to fit");
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) if !lowering.sums_whole() => wasm::fit(scales),
            _ => [1.0; LANES],
        }
    }

    /// Half precision of whole panels to f32.
    pub(crate) fn widen(self, bits: &[u16], out: &mut [f32]) {
        assert!(bits.len().is_multiple_of(LANES) && out.len() == bits.len(), "numbers to widen");
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(_) => wasm::widen(bits, out),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => self.vectorize(|| out.iter_mut().zip(bits).for_each(|(o, &b)| *o = crate::math::f16_to_f32(b))),
        }
    }

    /// `out = bias + x Wᵀ` for whole panels: `weights` is `[panel][input][lane]`, `bias` `[panel][lane]`.
    pub(crate) fn gemm(self, x: Rows<'_>, weights: &[f32], bias: &[f32], out: &mut Target<'_>) {
        self.gemm_from(x, weights, bias.len() / LANES, Some(bias), out);
    }

    /// `out += x Wᵀ` for whole panels.
    pub(crate) fn gemm_onto(self, x: Rows<'_>, weights: &[f32], out: &mut Target<'_>) {
        self.gemm_from(x, weights, weights.len() / (x.width * LANES).max(1), None, out);
    }

    fn gemm_from(self, x: Rows<'_>, weights: &[f32], panels: usize, bias: Option<&[f32]>, out: &mut Target<'_>) {
        x.check(panels, weights, out);
        assert!(bias.is_none_or(|b| b.len() == panels * LANES), "bias");
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features are there (see `detect`), the lengths were checked.
            Kind::Avx2(_) => unsafe { avx2::gemm(x, weights, panels, bias, out) },
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Portable => portable::gemm(x, weights, panels, bias, out),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            // SAFETY: the lengths were checked.
            Kind::Wasm(_) => unsafe { wasm::gemm(x, weights, panels, bias, out) },
        }
    }

    /// A block of inputs in 8 bits, as row `side` of its group's block of `codes`; gives scale and corrections.
    #[inline(always)]
    pub(crate) fn quantize(self, x: &[f32], codes: &mut [Code], side: usize) -> (f32, i32) {
        assert!(x.len() == BLOCK && codes.len() == BLOCK * SIDE && side < SIDE, "a block");
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            // SAFETY: the lengths were checked.
            Kind::Wasm(lowering) => unsafe {
                wasm::quantize(x.as_ptr(), codes.as_mut_ptr(), side, lowering.sums_whole())
            },
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            // A group is one row.
            _ => crate::quantize::block(x, codes),
        }
    }

    /// The sum of a block's codes, by its correction.
    pub(crate) fn sum(self, correction: i32) -> i32 {
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        let Kind::Wasm(lowering) = self.0;
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        if lowering.sums_whole() {
            return correction / -8;
        }
        (i32::from(correction as i16) + i32::from((correction >> 16) as i16)) / -8
    }

    /// [`crate::math::gelu_fast`], in place.
    pub(crate) fn gelu_fast(self, x: &mut [f32]) {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(_) => wasm::gelu_fast(x),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => self.vectorize(|| x.iter_mut().for_each(|x| *x = crate::math::gelu_fast(*x))),
        }
    }

    /// Layer norm of a row, in place, after adding `other` to it when there is one.
    pub(crate) fn norm(self, x: &mut [f32], other: Option<&[f32]>, gamma: &[f32], beta: &[f32], eps: f32) {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(_) => {
                if let Some(other) = other {
                    wasm::add(x, other);
                }
                wasm::norm(x, gamma, beta, eps);
            }
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => self.vectorize(|| {
                if let Some(other) = other {
                    x.iter_mut().zip(other).for_each(|(x, o)| *x += o);
                }
                crate::norm::norm(x, gamma, beta, eps);
            }),
        }
    }

    /// [`LANES`] rows of `d` floats, `stride` apart, to `[d][lane]`.
    #[inline(always)]
    pub(crate) fn transpose(self, rows: &[f32], stride: usize, to: &mut [f32]) {
        let d = to.len() / LANES;
        assert!((LANES - 1) * stride + d <= rows.len() && to.len() == d * LANES, "rows to transpose");
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        if d.is_multiple_of(4) {
            // SAFETY: the lengths were checked.
            return unsafe { wasm::transpose(rows.as_ptr(), stride, d, to.as_mut_ptr()) };
        }
        for (k, to) in to.chunks_exact_mut(LANES).enumerate() {
            to.iter_mut().enumerate().for_each(|(lane, to)| *to = rows[lane * stride + k]);
        }
    }

    /// `exp(scale · x − peak)` in place; the sum.
    pub(crate) fn softmax(self, x: &mut [f32], scale: f32) -> f32 {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(_) => wasm::softmax(x, scale),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => self.vectorize(|| crate::attention::softmax(x, scale)),
        }
    }

    /// Softmax attention of a head, rounded on the way, to `y`, whose rows are as far apart as those that are read.
    /// False when there is no such kernel: then nothing was done.
    pub(crate) fn attend(self, head: Attention<'_>, coded: &mut Coded, y: &mut [f32]) -> bool {
        let reach = |rows: usize| if rows == 0 { 0 } else { (rows - 1) * head.stride + head.width };
        assert!(reach(head.queries) <= head.q.len().min(y.len()), "queries");
        assert!(reach(head.keys) <= head.k.len().min(head.v.len()), "keys and values");
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) if head.width == BLOCK => {
                // SAFETY: the lengths were checked.
                unsafe { wasm::attend(lowering, head, coded, y) };
                true
            }
            _ => {
                _ = (head, coded);
                false
            }
        }
    }

    /// Whether [`Self::attend`] rounds so little that the first layer may use it, whose roundings pass through all others.
    pub(crate) fn attends_closely(self) -> bool {
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Wasm(lowering) => lowering.attends_closely(),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => false,
        }
    }

    /// `out = bias + x Wᵀ` for one panel of 4-bit weights; without a bias, `out += x Wᵀ`.
    pub(crate) fn gemm_q4(self, x: Codes<'_>, panel: Panel<'_>, bias: Option<&[f32; LANES]>, out: &mut Target<'_>) {
        x.check(Q4_WORDS * CUTS, &panel, out);
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features are there (see `detect`), the lengths were checked.
            Kind::Avx2(bytes) => unsafe { bytes.gemm::<true>(x, panel, bias, out) },
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Portable => portable::gemm_q4(x, panel, bias, out),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            // SAFETY: the lengths were checked.
            Kind::Wasm(lowering) => unsafe { wasm::gemm_q4(lowering, x, panel, bias, out) },
        }
    }

    /// `out = bias + x Wᵀ` for one panel of 8-bit weights; without a bias, `out += x Wᵀ`.
    pub(crate) fn gemm_q8(self, x: Codes<'_>, panel: Panel<'_>, bias: Option<&[f32; LANES]>, out: &mut Target<'_>) {
        x.check(Q8_WORDS, &panel, out);
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features are there (see `detect`), the lengths were checked.
            Kind::Avx2(bytes) => unsafe { bytes.gemm::<false>(x, panel, bias, out) },
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Portable => portable::gemm_q8(x, panel, bias, out),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            // SAFETY: the lengths were checked.
            Kind::Wasm(_) => unsafe { wasm::gemm_q8(x, panel, bias, out) },
        }
    }
}
