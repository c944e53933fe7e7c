//! `q8_0`: blocks of 32 signed bytes with one f16 scale; value = code × scale.

use super::BLOCK;
use half::f16;

/// Decodes whole blocks; `codes` and `out` have the same length.
pub fn decode(codes: &[i8], scales: &[u16], out: &mut [f32]) {
    for ((c, &s), o) in codes.chunks_exact(BLOCK).zip(scales).zip(out.chunks_exact_mut(BLOCK)) {
        let s = f16::from_bits(s).to_f32();
        for (o, &c) in o.iter_mut().zip(c) {
            *o = f32::from(c) * s;
        }
    }
}

/// Encodes whole blocks, rounding to nearest: scale = max|x| / 127, stored as f16.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "clamped to the range of i8")]
pub fn encode(values: &[f32]) -> (Vec<i8>, Vec<u16>) {
    let (mut codes, mut scales) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len() / BLOCK));
    for block in values.chunks_exact(BLOCK) {
        let peak = block.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        // Codes are made for the scale as stored, so that rounding it to f16 costs nothing twice.
        let scale = f16::from_f32(peak / 127.0);
        let inverse = inverse(scale);
        codes.extend(block.iter().map(|x| (x * inverse).round().clamp(-127.0, 127.0) as i8));
        scales.push(scale.to_bits());
    }
    (codes, scales)
}

pub(super) fn inverse(scale: f16) -> f32 {
    let scale = scale.to_f32();
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_at_most_half_a_step() {
        let x: Vec<f32> = (0u16..96).map(|i| (f32::from(i) * 0.7).sin() * f32::from(i)).collect();
        let (codes, scales) = encode(&x);
        let mut y = vec![0.0; x.len()];
        decode(&codes, &scales, &mut y);
        for (b, (x, y)) in x.chunks(BLOCK).zip(y.chunks(BLOCK)).enumerate() {
            let step = f16::from_bits(scales[b]).to_f32();
            assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() <= 0.52 * step + 0.05 * step));
        }
    }

    #[test]
    fn zeros_stay_zero() {
        let (codes, scales) = encode(&[0.0; BLOCK]);
        let mut y = [1.0; BLOCK];
        decode(&codes, &scales, &mut y);
        assert_eq!(y, [0.0; BLOCK]);
    }
}
