//! Numbers without branches, written so that the compiler turns loops over them into vectors of any width.
//!
//! Everything here is `#[inline(always)]`: a kernel file instantiates it under its own target features.

/// f16 bits to f32, for every value. Rebiasing by a multiplication keeps subnormals right.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let wide = u32::from(bits);
    let magnitude = f32::from_bits((wide & 0x7fff) << 13) * f32::from_bits((254 - 15) << 23);
    let special = if wide & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (wide & 0x8000) << 16)
}

/// bfloat16 bits to f32.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Added to and subtracted from a small float, it rounds to the nearest integer; after the addition alone, the low
/// bits of the float are that integer.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// The logarithm of 2 in two parts, the first with few bits, so that a small multiple of it is exact.
pub(crate) const EXP_LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `(eˣ − 1 − x) / x²` near zero, the highest power first.
pub(crate) const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// `eˣ` within 2 ulp; 0 below −87, saturated above 88. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let low = x < -87.0;
    // Comparisons instead of min and max: these let NaN through, and cost one instruction on every target.
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if low { -87.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * EXP_LN2[0]) - n * EXP_LN2[1];
    let mut p = EXP[0];
    for k in &EXP[1..] {
        p = p * r + k;
    }
    let p = (p * r * r + r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if low { 0.0 } else { p * power }
}

/// `x/2 · (1 + erf(x/√2))` within 7e-7: formula 7.1.26 of Abramowitz and Stegun for erf.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152_1;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_72;
    let p = p * t + 0.254_829_6;
    // 1 − erf(|x|/√2), so that the far negative side keeps its relative precision.
    let tail = p * t * exp(-z * z);
    let half = 0.5 * x * tail;
    if x > 0.0 { x - half } else { half }
}

/// From here on erf(x/√2) is 1 as far as [`gelu_fast`] goes.
pub(crate) const GELU_LIMIT: f32 = 4.25;

/// erf(x/√2) / x as a polynomial in x², the highest power first: the least largest error of GELU up to the limit.
pub(crate) const GELU_ERF: [f32; 9] = [
    9.094_163_6e-11,
    -9.030_622e-9,
    3.972_322_4e-7,
    -1.029_503_5e-5,
    1.769_783_6e-4,
    -2.158_156_4e-3,
    1.943_756e-2,
    -1.323_805_6e-1,
    7.976_384e-1,
];

/// GELU within 4e-5 and without a division, for outputs that are rounded to 8 bits.
#[cfg_attr(all(target_arch = "wasm32", target_feature = "simd128"), allow(dead_code, reason = "a kernel has it"))]
#[inline(always)]
pub(crate) fn gelu_fast(x: f32) -> f32 {
    let c = if x > GELU_LIMIT { GELU_LIMIT } else { x };
    let c = if c < -GELU_LIMIT { -GELU_LIMIT } else { c };
    let z = c * c;
    let mut p = GELU_ERF[0];
    for k in &GELU_ERF[1..] {
        p = p * z + k;
    }
    let half = 0.5 * x;
    half * (c * p) + half
}

/// Hyperbolic tangent, within 2e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    let y = (1.0 - e) / (1.0 + e);
    if x < 0.0 { -y } else { y }
}

/// GELU by its tanh approximation.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(0.797_884_6 * (x + 0.044_715 * x * x * x)))
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use polygraft::model::Activation;

    #[test]
    fn half_floats_decode_as_the_library_does() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn functions_are_close_to_their_definitions() {
        type Case = (Activation, fn(f32) -> f32, f32);
        let cases: [Case; 4] = [
            (Activation::Gelu, gelu, 1e-6),
            (Activation::GeluTanh, gelu_tanh, 1e-6),
            (Activation::Tanh, tanh, 4e-7),
            (Activation::Sigmoid, sigmoid, 4e-7),
        ];
        for (function, ours, tolerance) in cases {
            for i in -120_000..=120_000 {
                let x = i as f32 * 1e-4;
                let off = (ours(x) - function.eval(x)).abs();
                assert!(off <= tolerance * x.abs().max(1.0), "{function:?}({x}) is off by {off:e}");
            }
            assert!(ours(f32::NAN).is_nan(), "{function:?}");
        }
    }

    #[test]
    fn fast_gelu_is_close_and_lets_nothing_vanish() {
        for i in -120_000..=120_000 {
            let x = i as f32 * 1e-4;
            let off = (gelu_fast(x) - Activation::Gelu.eval(x)).abs();
            assert!(off <= 4e-5 * x.abs().max(1.0), "gelu({x}) is off by {off:e}");
        }
        assert!(gelu_fast(f32::NAN).is_nan() && gelu_fast(f32::INFINITY) == f32::INFINITY);
        assert!(!gelu_fast(f32::NEG_INFINITY).is_finite(), "the exact one makes a NaN of it");
    }

    #[test]
    fn exp_is_close_and_saturates() {
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 3e-7 * exact, "exp({x})");
        }
        assert_eq!((exp(-1000.0), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY).is_finite());
    }
}
