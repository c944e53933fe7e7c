//! Panels of any form to panels of f32, a few at a time.

use crate::codes;
use crate::kernels::{Bits, CUTS, Isa, Panels};
use crate::math::{bf16_to_f32, f16_to_f32};
use crate::pack::{Form, LANES, Packed, Q4_WORDS, Q8_WORDS, Scales};
use polygraft::quant::BLOCK;
use std::ops::Range;

/// `panels` of `packed` as f32, `[panel][input][lane]`: in place when they are stored so, else decoded into `scratch`.
pub(crate) fn panels<'a>(isa: Isa, packed: &'a Packed, panels: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
    let each = packed.cols * LANES;
    let span = panels.start * each..panels.end * each;
    let blocks = panels.start * packed.blocks()..panels.end * packed.blocks();
    let cut = |codes: &'a [u32], words: usize| &codes[blocks.start * words * LANES..blocks.end * words * LANES];
    let scales_of = |scales: &'a Scales| &scales.stored[blocks.start * LANES..blocks.end * LANES];
    if let Form::F32(values) = &packed.form {
        return &values[span];
    }
    scratch.resize(span.len(), 0.0);
    let out = scratch.as_mut_slice();
    match &packed.form {
        // Returned as they are.
        Form::F32(_) => {}
        Form::F16(bits) => isa.widen(&bits[span], out),
        Form::Bf16(bits) => isa.vectorize(|| out.iter_mut().zip(&bits[span]).for_each(|(o, &b)| *o = bf16_to_f32(b))),
        Form::Q8 { codes, scales } => isa.vectorize(|| {
            blocks_of::<Q8_WORDS, 4>(cut(codes, Q8_WORDS), scales_of(scales), out, |word, k| {
                ((word << (24 - 8 * k)).cast_signed() >> 24) as f32
            });
        }),
        Form::Q4 { codes, scales } if isa.arranges() => {
            arranged(isa, cut(codes, Q4_WORDS), scales_of(scales), packed.cols, out);
        }
        Form::Q4 { codes, scales } => isa.vectorize(|| {
            blocks_of::<Q4_WORDS, 8>(cut(codes, Q4_WORDS), scales_of(scales), out, |word, k| {
                ((word >> (8 * (k % 4) + 4 * (k / 4))) & 15).cast_signed() as f32 - 8.0
            });
        }),
        Form::Code(codes) => codes::panels(isa, codes, (packed.rows, packed.cols), panels, out),
    }
    out
}

/// [`Isa::decode`] of panels with `cols` inputs.
fn arranged(isa: Isa, words: &[u32], stored: &[u16], cols: usize, out: &mut [f32]) {
    let blocks = cols / BLOCK * LANES;
    let mut scales = vec![0.0; blocks];
    let panels = words.chunks_exact((blocks * Q4_WORDS).max(1)).zip(stored.chunks_exact(blocks.max(1)));
    for ((words, stored), out) in panels.zip(out.chunks_exact_mut((cols * LANES).max(1))) {
        isa.widen(stored, &mut scales);
        isa.decode(words, &scales, out);
    }
}

/// `WORDS` words a block, `EACH` codes a word.
#[inline(always)]
fn blocks_of<const WORDS: usize, const EACH: usize>(
    codes: &[u32],
    scales: &[u16],
    out: &mut [f32],
    code: impl Fn(u32, usize) -> f32,
) {
    let blocks = codes.chunks_exact(WORDS * LANES).zip(scales.chunks_exact(LANES));
    for ((words, scales), out) in blocks.zip(out.chunks_exact_mut(WORDS * EACH * LANES)) {
        let mut scale = [0.0; LANES];
        scale.iter_mut().zip(scales).for_each(|(s, &bits)| *s = f16_to_f32(bits));
        for (words, out) in words.chunks_exact(LANES).zip(out.chunks_exact_mut(EACH * LANES)) {
            for (k, out) in out.chunks_exact_mut(LANES).enumerate() {
                for lane in 0..LANES {
                    out[lane] = code(words[lane], k) * scale[lane];
                }
            }
        }
    }
}

/// Panels of quantized weights as the integer kernels read them; `None` for weights that are not quantized.
pub(crate) fn coded<'a>(
    isa: Isa,
    packed: &'a Packed,
    panels: Range<usize>,
    scratch: &'a mut Vec<u32>,
) -> Option<Panels<'a>> {
    let blocks = packed.blocks();
    let span = |words: &'a [u32], each: usize| {
        &words[panels.start * blocks * each * LANES..panels.end * blocks * each * LANES]
    };
    let (bits, words, scales, ahead) = match &packed.form {
        Form::Q4 { codes, scales } => {
            let rest = &codes[panels.end * blocks * Q4_WORDS * LANES..];
            let ahead = &rest[..rest.len().min(panels.len() * blocks * Q4_WORDS * LANES)];
            (Bits::Four, bytes(isa, span(codes, Q4_WORDS), blocks, scratch), scales, ahead)
        }
        Form::Q8 { codes, scales } => (Bits::Eight, span(codes, Q8_WORDS), scales, &[][..]),
        Form::F32(_) | Form::F16(_) | Form::Bf16(_) | Form::Code(_) => return None,
    };
    let (scales, units) = scales.of(panels, blocks);
    Some(Panels { bits, words, scales, units, ahead })
}

/// The 4-bit codes of panels with `blocks` blocks, one a byte or half word, as the integer kernels read them: every word
/// becomes [`CUTS`] of them.
pub(crate) fn bytes<'a>(isa: Isa, words: &[u32], blocks: usize, out: &'a mut Vec<u32>) -> &'a [u32] {
    let (stored, cut) = (blocks * Q4_WORDS * LANES, isa.filled(blocks) * Q4_WORDS * LANES * CUTS);
    out.resize(words.len() / stored.max(1) * cut, 0);
    let panels = words.chunks_exact(stored.max(1)).zip(out.chunks_exact_mut(cut.max(1)));
    panels.for_each(|(words, out)| isa.cut(words, out));
    out
}

/// The same in plain Rust, `out` in full.
#[cfg_attr(all(target_arch = "wasm32", target_feature = "simd128"), allow(dead_code, reason = "a kernel has it"))]
#[inline(always)]
pub(crate) fn cut(words: &[u32], out: &mut [u32]) {
    const MASK: u32 = if CUTS == 2 { 0x0f0f_0f0f } else { 0x000f_000f };
    for (words, out) in words.chunks_exact(LANES).zip(out.chunks_exact_mut(LANES * CUTS)) {
        for (cut, out) in out.chunks_exact_mut(LANES).enumerate() {
            out.iter_mut().zip(words).for_each(|(o, w)| *o = (w >> (4 * cut)) & MASK);
        }
    }
}
