//! `q4_0`: blocks of 32 codes of 4 bits with one f16 scale; value = (code − 8) × scale.
//!
//! Byte `j` of a block's 16 holds element `j` in its low and element `j + 16` in its high nibble, as in ggml.

use super::BLOCK;
use half::f16;

/// Decodes whole blocks; `codes` is half as long as `out`.
pub fn decode(codes: &[u8], scales: &[u16], out: &mut [f32]) {
    for ((c, &s), o) in codes.chunks_exact(BLOCK / 2).zip(scales).zip(out.chunks_exact_mut(BLOCK)) {
        let s = f16::from_bits(s).to_f32();
        let (low, high) = o.split_at_mut(BLOCK / 2);
        for ((l, h), &c) in low.iter_mut().zip(high).zip(c) {
            *l = (f32::from(c & 15) - 8.0) * s;
            *h = (f32::from(c >> 4) - 8.0) * s;
        }
    }
}

/// Encodes whole blocks as ggml does: the value of largest magnitude, sign kept, maps to −8.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=15")]
pub fn encode(values: &[f32]) -> (Vec<u8>, Vec<u16>) {
    let (mut codes, mut scales) = (Vec::with_capacity(values.len() / 2), Vec::with_capacity(values.len() / BLOCK));
    for block in values.chunks_exact(BLOCK) {
        let peak = block.iter().fold(0.0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
        let scale = f16::from_f32(peak / -8.0);
        let inverse = super::q8_0::inverse(scale);
        let code = |x: f32| (x * inverse + 8.0).round().clamp(0.0, 15.0) as u8;
        let (low, high) = block.split_at(BLOCK / 2);
        codes.extend(low.iter().zip(high).map(|(&l, &h)| code(l) | (code(h) << 4)));
        scales.push(scale.to_bits());
    }
    (codes, scales)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibble_order_and_offset() {
        let mut codes = [0x88u8; 16];
        codes[0] = 0xF0; // element 0 → 0 − 8, element 16 → 15 − 8
        let mut out = [9.0; BLOCK];
        decode(&codes, &[f16::from_f32(0.5).to_bits()], &mut out);
        assert_eq!((out[0], out[16], out[1], out[17]), (-4.0, 3.5, 0.0, 0.0));
    }

    #[test]
    fn encode_keeps_what_decode_gives() {
        let codes: Vec<u8> = (0u8..32).map(|i| i.wrapping_mul(37) | 0x10).collect();
        let scales = [f16::from_f32(0.25).to_bits(), f16::from_f32(-0.5).to_bits()];
        let mut x = vec![0.0; 64];
        decode(&codes, &scales, &mut x);
        let (again, scales2) = encode(&x);
        let mut y = vec![0.0; 64];
        decode(&again, &scales2, &mut y);
        let worst = x.iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 0.26, "{worst}");
    }
}
