//! The inner loops: matrix products over packed panels, once in plain Rust and once for each instruction set.
//!
//! [`operands`] is what they take, [`order`] in which form and order, where a kernel has its own.
//!
//! This is the only folder with unsafe code. Each kernel checks the lengths of its slices once, at its entry. Every
//! output depends on its own row of activations alone, computed in one fixed order whatever the rows around it, so that
//! a row has the same bits alone and in any batch.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod operands;
mod order;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

use crate::pack::LANES;
use polygraft::quant::BLOCK;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use operands::Panel;
pub(crate) use operands::{Attention, Bits, Coded, Codes, Panels, Rows, Target};

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use wasm::{CUTS, Code, ROW, SIDE};

/// A quantized activation as the integer kernels read it.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) type Code = i8;

/// Rows whose codes, scales and corrections lie side by side.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) const SIDE: usize = 1;

/// Places that a row's block of codes takes.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) const ROW: usize = BLOCK;

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

    /// `out = bias + x Wᵀ` for panels of quantized weights; without a bias, `out += x Wᵀ`.
    pub(crate) fn gemm_codes(self, x: Codes<'_>, panels: Panels<'_>, bias: Option<&[f32]>, out: &mut Target<'_>) {
        x.check(self, &panels, bias, out);
        match self.0 {
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            // SAFETY: the lengths were checked.
            Kind::Wasm(lowering) => unsafe { wasm::gemm_codes(lowering, x, panels, bias, out) },
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ if panels.bits == Bits::Four => self.each::<true>(x, panels, bias, out),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            _ => self.each::<false>(x, panels, bias, out),
        }
    }

    /// One panel after the other, of 4 or of 8 bits.
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    fn each<const FOUR: bool>(self, x: Codes<'_>, panels: Panels<'_>, bias: Option<&[f32]>, out: &mut Target<'_>) {
        for (at, panel) in panels.each().enumerate() {
            let bias = bias.and_then(|bias| bias[at * LANES..].first_chunk());
            let out = &mut out.columns(at * LANES);
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the features are there (see `detect`), the lengths were checked.
                Kind::Avx2(bytes) => unsafe { bytes.gemm::<FOUR>(x, panel, bias, out) },
                Kind::Portable if FOUR => portable::gemm_q4(x, panel, bias, out),
                Kind::Portable => portable::gemm_q8(x, panel, bias, out),
            }
        }
    }
}
