//! WebAssembly SIMD. A vector is four outputs at one place of a panel; two vectors are the panel.

mod attend;
mod lowering;
#[cfg(target_feature = "relaxed-simd")]
mod pairs;
mod pointwise;
mod unpack;
mod whole;

use super::{Attention, Bits, Coded, Codes, Panels, Rows, Target};
use crate::pack::{LANES, Q4_WORDS, Q8_WORDS};
use std::arch::wasm32::*;
use std::hint::black_box;

/// Rows whose codes lie side by side, so that one pointer with constant offsets reaches them all.
pub(crate) const SIDE: usize = 4;

use format::RUN;
pub(crate) use format::{CUTS, Code, ROW};
pub(super) use lowering::Lowering;
pub(super) use pointwise::{add, gelu_fast, norm, softmax, transpose};
pub(super) use unpack::widen;

/// Activations are 16 bits wide: `i32x4_dot_i16x8` is the one integer product that every engine lowers well.
#[cfg(not(target_feature = "relaxed-simd"))]
mod format {
    pub(crate) type Code = i16;
    /// Words for each stored word of 4-bit codes, two codes a word.
    pub(crate) const CUTS: usize = 4;
    /// Inputs that meet one lane of weights.
    pub(crate) const RUN: usize = 2;
    pub(crate) const ROW: usize = polygraft::quant::BLOCK;
}

/// Activations are bytes, as the relaxed product of bytes takes them.
#[cfg(target_feature = "relaxed-simd")]
mod format {
    pub(crate) type Code = i8;
    /// Words for each stored word of 4-bit codes, four codes a word.
    pub(crate) const CUTS: usize = 2;
    /// Inputs that meet one lane of weights.
    pub(crate) const RUN: usize = 4;
    /// As long as the kernel wants it that wants most: see [`super::pairs`].
    pub(crate) const ROW: usize = super::pairs::ROW;
}

/// Calls `$tile::<n>(…)` for the number of rows left, at most four, and yields that number.
macro_rules! by_rows {
    ($left:expr, $tile:ident, $args:tt) => {
        match $left {
            1 => by_rows!(@ $tile, 1, $args),
            2 => by_rows!(@ $tile, 2, $args),
            3 => by_rows!(@ $tile, 3, $args),
            _ => by_rows!(@ $tile, 4, $args),
        }
    };
    (@ $tile:ident, $n:expr, ($($arg:expr),*)) => {{
        $tile::<$n>($($arg),*);
        $n
    }};
}

/// # Safety
/// The lengths were checked (`Rows::check`).
pub(super) unsafe fn gemm(x: Rows<'_>, weights: &[f32], panels: usize, bias: Option<&[f32]>, out: &mut Target<'_>) {
    for panel in 0..panels {
        let mut row = 0;
        while row < x.count {
            // SAFETY: `row` and `panel` are inside the slices that were checked.
            row += unsafe {
                let a = x.values.as_ptr().add(row * x.stride);
                let w = weights.as_ptr().add(panel * x.width * LANES);
                let y = out.values.as_mut_ptr().add(row * out.stride + panel * LANES);
                let b = bias.map_or((y.cast_const(), out.stride), |b| (b.as_ptr().add(panel * LANES), 0));
                by_rows!(x.count - row, tile, (a, x.stride, x.width, w, b, y, out.stride))
            };
        }
    }
}

/// `R` rows by one panel.
///
/// # Safety
/// `R` rows can be read at `a` and written at `y`, one panel read at `w`; the sums start from what stands at `from`.
#[inline(always)]
unsafe fn tile<const R: usize>(
    a: *const f32,
    stride: usize,
    width: usize,
    w: *const f32,
    (from, from_stride): (*const f32, usize),
    y: *mut f32,
    out_stride: usize,
) {
    // SAFETY: as the caller promised; `k` stays below `width`.
    unsafe {
        let mut sums: [[v128; 2]; R] = std::array::from_fn(|r| {
            let from = from.add(r * from_stride);
            [load(from), load(from.add(4))]
        });
        for k in 0..width {
            let columns = [load(w.add(k * LANES)), load(w.add(k * LANES + 4))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let input = v128_load32_splat(a.add(r * stride + k).cast());
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = add_product(*sum, input, column);
                }
            }
        }
        store(sums, y, out_stride);
    }
}

/// # Safety
/// The lengths were checked (`Codes::check`).
pub(super) unsafe fn gemm_codes(
    lowering: Lowering,
    x: Codes<'_>,
    panels: Panels<'_>,
    bias: Option<&[f32]>,
    out: &mut Target<'_>,
) {
    // SAFETY: as the caller promised.
    unsafe {
        match (lowering, panels.bits) {
            #[cfg(not(target_feature = "relaxed-simd"))]
            (Lowering::Plain, Bits::Four) => by_tiles::<Q4>(x, panels, bias, out),
            #[cfg(not(target_feature = "relaxed-simd"))]
            (Lowering::Plain, Bits::Eight) => by_tiles::<Q8>(x, panels, bias, out),
            #[cfg(target_feature = "relaxed-simd")]
            (Lowering::Pairs, Bits::Four) => pairs::gemm(x, panels, bias, out),
            #[cfg(target_feature = "relaxed-simd")]
            (Lowering::Pairs, Bits::Eight) => by_tiles::<Q8<RUN, ROW>>(x, panels, bias, out),
            #[cfg(target_feature = "relaxed-simd")]
            (Lowering::Fours, Bits::Four) => by_tiles::<Q4Fours>(x, panels, bias, out),
            #[cfg(target_feature = "relaxed-simd")]
            (Lowering::Fours, Bits::Eight) => by_tiles::<Q8<{ RUN * SIDE }, RUN>>(x, panels, bias, out),
        }
    }
}

/// A head on integers, in the products that the engine has.
///
/// # Safety
/// See [`attend::attend`].
pub(super) unsafe fn attend(lowering: Lowering, head: Attention<'_>, coded: &mut Coded, y: &mut [f32]) {
    // SAFETY: as the caller promised.
    unsafe {
        match lowering {
            #[cfg(not(target_feature = "relaxed-simd"))]
            Lowering::Plain => attend::attend::<attend::Halves>(head, coded, y),
            #[cfg(target_feature = "relaxed-simd")]
            Lowering::Pairs => attend::attend::<attend::Halves>(head, coded, y),
            #[cfg(target_feature = "relaxed-simd")]
            Lowering::Fours => attend::attend::<attend::Bytes>(head, coded, y),
        }
    }
}

/// How a block of weights multiplies a block of codes.
trait Weights {
    /// Words an output takes in a block.
    const WORDS: usize;

    /// Turns of the loop over a block. It stays a loop: unrolled, the compiler would order the work by sums, which keeps
    /// more vectors alive than there are registers. One word a turn was 13 % faster than two.
    const TURNS: usize = Self::WORDS;

    /// A block's integer sums for four rows and the panel's halves.
    ///
    /// # Safety
    /// A block of words can be read at `words`, of four rows' codes at `codes`, four rows' corrections at `from`; `turns`
    /// is [`Self::TURNS`].
    unsafe fn block(words: *const u32, codes: *const Code, from: *const i32, turns: usize) -> Dots;
}

/// Integer sums, or products on their way there: row, half of the panel.
type Dots = [[v128; 2]; SIDE];

/// Four rows by one panel at a time; rows that fill up the last group are computed and not stored.
///
/// # Safety
/// The lengths were checked (`Codes::check`).
#[inline(always)]
unsafe fn by_tiles<W: Weights>(x: Codes<'_>, panels: Panels<'_>, bias: Option<&[f32]>, out: &mut Target<'_>) {
    // A number that the compiler does not know.
    let turns = black_box(W::TURNS);
    for (index, panel) in panels.each().enumerate() {
        // SAFETY: eight floats are there.
        let bias = bias.map(|bias| unsafe { [0, 4].map(|half| load(bias.as_ptr().add(index * LANES + half))) });
        for row in (0..x.count).step_by(SIDE) {
            // SAFETY: the slices hold whole groups of rows and whole blocks.
            unsafe {
                let mut sums = [[f32x4_splat(0.0); 2]; SIDE];
                let first = row * x.blocks;
                let (mut words, mut codes) = (panel.words.as_ptr(), x.codes.as_ptr().add(first * ROW));
                let (mut from, mut own) = (x.corrections.as_ptr().add(first), x.scales.as_ptr().add(first));
                let mut scales = panel.scales.as_ptr();
                let end = scales.add(panel.scales.len());
                while scales != end {
                    let dots = W::block(words, codes, from, turns);
                    let both = [load(scales), load(scales.add(4))];
                    for (r, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                        let own = v128_load32_splat(own.add(r).cast());
                        for ((sum, dot), scale) in sums.iter_mut().zip(dots).zip(both) {
                            *sum = add_product(*sum, f32x4_convert_i32x4(dot), f32x4_mul(scale, own));
                        }
                    }
                    (words, codes) = (words.add(W::WORDS * LANES), codes.add(ROW * SIDE));
                    (scales, from, own) = (scales.add(LANES), from.add(SIDE), own.add(SIDE));
                }
                for (r, [low, high]) in sums.into_iter().take(x.count - row).enumerate() {
                    let to = out.values.as_mut_ptr().add((row + r) * out.stride + index * LANES);
                    let there = bias.unwrap_or_else(|| [load(to), load(to.add(4))]);
                    v128_store(to.cast(), f32x4_add(low, there[0]));
                    v128_store(to.add(4).cast(), f32x4_add(high, there[1]));
                }
            }
        }
    }
}

/// Row `r`'s run of codes, in every lane.
///
/// # Safety
/// Four rows' runs can be read at `codes`.
#[inline(always)]
unsafe fn splat(codes: *const Code, r: usize) -> v128 {
    // SAFETY: as the caller promised; the load needs no alignment.
    unsafe { v128_load32_splat(codes.add(r * RUN).cast()) }
}

/// The corrections of four rows, each in every lane.
///
/// # Safety
/// Four numbers can be read at `from`.
#[inline(always)]
unsafe fn corrections(from: *const i32) -> Dots {
    // SAFETY: as the caller promised.
    std::array::from_fn(|r| [unsafe { v128_load32_splat(from.add(r).cast()) }; 2])
}

/// The runs of four rows, each in every lane, by a load for each.
///
/// # Safety
/// Four rows' runs can be read at `codes`.
#[inline(always)]
unsafe fn splats(codes: *const Code) -> [v128; SIDE] {
    // SAFETY: as the caller promised.
    std::array::from_fn(|r| unsafe { splat(codes, r) })
}

/// The runs of four rows, each in every lane, by one load and four shuffles: here a load for each is 5 % slower, and in
/// the other kernels, which have fewer instructions to spare for shuffles, 5 % faster.
///
/// # Safety
/// Four rows' runs can be read at `codes`.
#[cfg(target_feature = "relaxed-simd")]
#[inline(always)]
unsafe fn runs(codes: *const Code) -> [v128; SIDE] {
    // SAFETY: as the caller promised; the load needs no alignment.
    let all = unsafe { v128_load(codes.cast()) };
    [
        i32x4_shuffle::<0, 0, 0, 0>(all, all),
        i32x4_shuffle::<1, 1, 1, 1>(all, all),
        i32x4_shuffle::<2, 2, 2, 2>(all, all),
        i32x4_shuffle::<3, 3, 3, 3>(all, all),
    ]
}

/// A block of 4-bit codes: each turn adds the products of a word of weights with four rows' runs to their sums.
///
/// # Safety
/// As [`Weights::block`]; `runs` reads four rows' runs.
#[inline(always)]
unsafe fn block_q4(
    words: *const u32,
    codes: *const Code,
    turns: usize,
    mut sums: Dots,
    runs: unsafe fn(*const Code) -> [v128; SIDE],
    add: impl Fn(v128, v128, v128) -> v128,
) -> Dots {
    let (mut words, mut codes) = (words, codes);
    // SAFETY: as the caller promised.
    unsafe {
        let end = words.add(turns * LANES);
        while words != end {
            let w = [load(words.cast()), load(words.add(4).cast())];
            for (sums, a) in sums.iter_mut().zip(runs(codes)) {
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = add(*sum, a, w);
                }
            }
            words = words.add(LANES);
            codes = codes.add(RUN * SIDE);
        }
    }
    sums
}

/// 4-bit codes.
#[cfg(not(target_feature = "relaxed-simd"))]
struct Q4;

#[cfg(not(target_feature = "relaxed-simd"))]
impl Weights for Q4 {
    const WORDS: usize = Q4_WORDS * CUTS;

    #[inline(always)]
    unsafe fn block(words: *const u32, codes: *const Code, from: *const i32, turns: usize) -> Dots {
        let add = |sum, a, w| i32x4_add(sum, i32x4_dot_i16x8(a, w));
        // SAFETY: as the caller promised.
        unsafe { block_q4(words, codes, turns, corrections(from), splats, add) }
    }
}

/// 4-bit codes where the relaxed product of bytes adds up four in 32 bits with one instruction.
#[cfg(target_feature = "relaxed-simd")]
struct Q4Fours;

#[cfg(target_feature = "relaxed-simd")]
impl Weights for Q4Fours {
    const WORDS: usize = Q4_WORDS * CUTS;

    #[inline(always)]
    unsafe fn block(words: *const u32, codes: *const Code, from: *const i32, turns: usize) -> Dots {
        let add = |sum, a, w| i32x4_relaxed_dot_i8x16_i7x16_add(a, w, sum);
        // SAFETY: as the caller promised.
        unsafe { block_q4(words, codes, turns, corrections(from), runs, add) }
    }
}

/// 8-bit codes.
#[cfg(not(target_feature = "relaxed-simd"))]
struct Q8;

#[cfg(not(target_feature = "relaxed-simd"))]
impl Weights for Q8 {
    const WORDS: usize = Q8_WORDS;

    /// Even and odd bytes of the weights as 16 bits, against codes of the same width.
    #[inline(always)]
    unsafe fn block(words: *const u32, codes: *const Code, _from: *const i32, turns: usize) -> Dots {
        let mut sums = [[i32x4_splat(0); 2]; SIDE];
        for word in 0..turns {
            // SAFETY: as the caller promised.
            unsafe {
                let w = [load(words.add(word * LANES).cast()), load(words.add(word * LANES + 4).cast())];
                let codes = codes.add((word / 2 * 4 + word % 2) * RUN * SIDE);
                let cuts = [w.map(|w| i16x8_shr(i16x8_shl(w, 8), 8)), w.map(|w| i16x8_shr(w, 8))];
                for (odd, cut) in cuts.into_iter().enumerate() {
                    let codes = codes.add(odd * 2 * RUN * SIDE);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = splat(codes, r);
                        for (sum, cut) in sums.iter_mut().zip(cut) {
                            *sum = i32x4_add(*sum, i32x4_dot_i16x8(a, cut));
                        }
                    }
                }
            }
        }
        sums
    }
}

/// 8-bit codes. A run of a row's codes is `WORD` codes after the one before, and `NEXT` codes before the next row's.
#[cfg(target_feature = "relaxed-simd")]
struct Q8<const WORD: usize, const NEXT: usize>;

#[cfg(target_feature = "relaxed-simd")]
impl<const WORD: usize, const NEXT: usize> Weights for Q8<WORD, NEXT> {
    const WORDS: usize = Q8_WORDS;

    /// Even and odd bytes of both sides as 16 bits: signed bytes have no relaxed product with one result everywhere.
    #[inline(always)]
    unsafe fn block(words: *const u32, codes: *const Code, _from: *const i32, turns: usize) -> Dots {
        let halves = |v: v128| [i16x8_shr(i16x8_shl(v, 8), 8), i16x8_shr(v, 8)];
        let mut sums = [[i32x4_splat(0); 2]; SIDE];
        for word in 0..turns {
            // SAFETY: as the caller promised.
            unsafe {
                let w = [load(words.add(word * LANES).cast()), load(words.add(word * LANES + 4).cast())].map(halves);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let [even, odd] = halves(v128_load32_splat(codes.add(word * WORD + r * NEXT).cast()));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = i32x4_add(*sum, i32x4_dot_i16x8(even, w[0]));
                        *sum = i32x4_add(*sum, i32x4_dot_i16x8(odd, w[1]));
                    }
                }
            }
        }
        sums
    }
}

/// `a · b + sum`, in one rounding where the engine has it.
#[inline(always)]
fn add_product(sum: v128, a: v128, b: v128) -> v128 {
    #[cfg(target_feature = "relaxed-simd")]
    return f32x4_relaxed_madd(a, b, sum);
    #[cfg(not(target_feature = "relaxed-simd"))]
    f32x4_add(sum, f32x4_mul(a, b))
}

/// # Safety
/// Four floats can be read at `from`.
#[inline(always)]
unsafe fn load(from: *const f32) -> v128 {
    // SAFETY: as the caller promised; the load needs no alignment.
    unsafe { v128_load(from.cast()) }
}

/// # Safety
/// Eight floats can be written at `to` for each of `R` rows, `stride` apart.
#[inline(always)]
unsafe fn store<const R: usize>(sums: [[v128; 2]; R], to: *mut f32, stride: usize) {
    for (r, [low, high]) in sums.into_iter().enumerate() {
        // SAFETY: as the caller promised; the stores need no alignment.
        unsafe {
            v128_store(to.add(r * stride).cast(), low);
            v128_store(to.add(r * stride + 4).cast(), high);
        }
    }
}
