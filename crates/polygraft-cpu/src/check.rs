//! The integer kernels of this machine against sums in f64 of the same rounded numbers: over odd shapes and extreme values.
//! Public for the WebAssembly build, whose tests are a module of their own (examples/wasm.rs).

use crate::decode;
use crate::kernels::{Isa, Rows, Target};
use crate::math::ROUND;
use crate::pack::{LANES, Packed};
use crate::quantize::Quantized;
use polygraft::quant::BLOCK;
use polygraft::tensor::{Matrix, Storage};

/// Rows, inputs and outputs of a product.
const SHAPES: [(usize, usize, usize); 12] = [
    (1, 32, 8),
    (2, 64, 3),
    (3, 96, 16),
    (4, 160, 24),
    (5, 384, 40),
    (6, 352, 17),
    (7, 416, 32),
    (8, 768, 16),
    (9, 800, 9),
    (13, 1536, 64),
    (16, 32, 16),
    (33, 64, 48),
];

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// −1 to 1.
    fn number(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }

    fn weights(&mut self, n: usize, k: usize, four: bool) -> Option<Matrix> {
        // Half precision, 2⁻⁷ to 1, of both signs.
        let scales =
            (0..n * k / BLOCK).map(|_| (0x2000 + self.next() % 0x1c00 + self.next() % 2 * 0x8000) as u16).collect();
        let storage = if four {
            Storage::Q4_0 { codes: (0..n * k / 2).map(|_| self.next() as u8).collect(), scales }
        } else {
            Storage::Q8_0 { codes: (0..n * k).map(|_| (self.next() as i8).max(-127)).collect(), scales }
        };
        Matrix::new(n, k, storage)
    }
}

/// The largest error, in parts of the sum of the products' magnitudes; infinite where what is not finite gets lost. One
/// channel is `outlier` times as large as the others, as encoders have them: what a kernel makes of the scales of blocks
/// shows there.
#[must_use]
pub fn products(outlier: f32) -> f32 {
    let mut random = Random(11);
    let mut worst = 0.0f32;
    let mut against = |x: &[f32], k: usize, weights: Option<Matrix>| {
        worst = worst.max(weights.map_or(f32::INFINITY, |w| error(x, k, &w)));
    };
    for four in [true, false] {
        for (rows, k, n) in SHAPES {
            let mut x: Vec<f32> = (0..rows * k).map(|_| random.number()).collect();
            x.iter_mut().step_by(k).for_each(|x| *x *= outlier);
            // A row of nothing, or of one number.
            x[(rows - 1) * k..].fill(if rows % 2 == 0 { 0.0 } else { 1.0 });
            against(&x, k, random.weights(n, k, four));
        }
    }
    for sign in [1.0, -1.0] {
        // 1, −2, the smallest normal number.
        for (scale, byte) in [(0x3c00, 0x00), (0x3c00, 0xff), (0xc000, 0x0f), (0x0400, 0xf0)] {
            let (k, n) = (1536, 16);
            let storage = Storage::Q4_0 { codes: vec![byte; n * k / 2], scales: vec![scale; n * k / BLOCK] };
            let x: Vec<f32> = (0..4 * k).map(|i| if i % 5 == 0 { -sign } else { sign }).collect();
            against(&x, k, Matrix::new(n, k, storage));
            against(&vec![sign; 4 * k], k, random.weights(n, k, true));
        }
    }
    for lost in [f32::NAN, f32::INFINITY] {
        let mut x = vec![1.0; 3 * 64];
        x[70] = lost;
        let y = random.weights(8, 64, true).map_or(Vec::new(), |w| multiply(&x, 64, &w));
        if y.len() != 3 * LANES || y.iter().enumerate().any(|(i, y)| (i / LANES == 1) == y.is_finite()) {
            return f32::INFINITY;
        }
    }
    worst
}

/// `[row][output of whole panels]`.
fn multiply(x: &[f32], k: usize, weights: &Matrix) -> Vec<f32> {
    let (isa, rows) = (Isa::detect(), x.len() / k);
    let packed = Packed::new(isa, weights);
    let wide = packed.panels() * LANES;
    let (mut quantized, mut words) = (Quantized::default(), Vec::new());
    let codes = quantized.of(isa, (0, 0..rows), Rows { values: x, stride: k, count: rows, width: k });
    let bias: Vec<f32> = (0..wide).map(|i| i as f32).collect();
    let mut y = vec![f32::NAN; rows * wide];
    let mut target = Target { values: &mut y, stride: wide };
    if let Some(panels) = decode::coded(isa, &packed, 0..packed.panels(), &mut words) {
        // Once from the bias and once onto what is there.
        for bias in [Some(bias.as_slice()), None] {
            isa.gemm_codes(codes, panels, bias, &mut target);
        }
    }
    y
}

fn error(x: &[f32], k: usize, weights: &Matrix) -> f32 {
    let got = multiply(x, k, weights);
    let wide = got.len() * k / x.len();
    let rounded: Vec<f64> = x.chunks_exact(BLOCK).flat_map(round).collect();
    let weights = weights.to_f32();
    let mut worst = 0.0f64;
    for (x, got) in rounded.chunks_exact(k).zip(got.chunks_exact(wide)) {
        for (o, (w, &got)) in weights.chunks_exact(k).zip(got).enumerate() {
            let products = x.iter().zip(w).map(|(x, w)| 2.0 * x * f64::from(*w));
            let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
            let off = (f64::from(got) - sum - o as f64).abs() / (size + o as f64 + 1e-3);
            // A NaN is not near, and `max` would forget it.
            worst = worst.max(if off.is_nan() { f64::INFINITY } else { off });
        }
    }
    worst as f32
}

/// A block in 8 bits: what [`crate::quantize`] makes of it.
fn round(block: &[f32]) -> Vec<f64> {
    let scale = block.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    block.iter().map(|x| f64::from((x * inverse + ROUND) - ROUND) * f64::from(scale)).collect()
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    #[test]
    fn products_are_the_sums_of_their_rounded_numbers() {
        for outlier in [1.0, 30.0, 300.0] {
            let worst = super::products(outlier);
            assert!(worst > 0.0 && worst <= 1e-5, "{outlier}: {worst}");
        }
    }
}
