//! Every kernel that this machine has against the plain ones.

use super::*;
use crate::decode;
use crate::pack::{Form, Packed};
use crate::quantize::Quantized;
use polygraft::tensor::{Matrix, Scheme, Storage};
use polygraft::testing::{Random, store};

/// `[rows, 8]` of one panel by the kernels of `isa`; f32 when the panel is not quantized.
fn product(isa: Isa, x: &[f32], k: usize, weight: &Packed) -> Vec<f32> {
    let rows = Rows { values: x, stride: k, count: x.len() / k, width: k };
    let bias: [f32; LANES] = std::array::from_fn(|i| i as f32);
    let mut out = vec![0.0; rows.count * LANES];
    let mut target = Target { values: &mut out, stride: LANES };
    let (mut quantized, mut scratch) = (Quantized::default(), Vec::new());
    let codes = quantized.of(isa, (0, 0..rows.count), rows);
    let mut cut = Vec::new();
    match (decode::coded(isa, weight, 0..1, &mut cut), &weight.form) {
        (Some(panels), _) => isa.gemm_codes(codes, panels, Some(&bias), &mut target),
        (None, Form::F32(w)) => isa.gemm(rows, w, &bias, &mut target),
        (None, _) => isa.gemm(rows, decode::panels(isa, weight, 0..1, &mut scratch), &bias, &mut target),
    }
    out
}

fn compare(x: &[f32], k: usize, matrix: &Matrix) {
    let plain = product(Isa::portable(), x, k, &Packed::new(Isa::portable(), matrix));
    for isa in Isa::every() {
        for (a, b) in product(isa, x, k, &Packed::new(isa, matrix)).iter().zip(&plain) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{} {:?}: {a} {b}", isa.name(), matrix.scheme());
        }
    }
}

#[test]
fn every_kernel_agrees_with_the_plain_one() {
    let mut random = Random(5);
    for scheme in [Scheme::F32, Scheme::F16, Scheme::Q8_0, Scheme::Q4_0] {
        for (rows, k) in [(1, 32), (3, 64), (6, 96), (11, 32), (17, 160), (23, 32)] {
            let x = random.vec(rows * k, 1.0);
            compare(&x, k, &store(8, k, random.vec(8 * k, 0.3), scheme));
        }
    }
}

#[test]
fn extreme_codes_do_not_overflow() {
    let one = half::f16::from_f32(1.0).to_bits();
    for sign in [1.0, -1.0] {
        let x = vec![127.0 * sign; 2 * 64];
        for byte in [0x00, 0xff, 0x0f] {
            let storage = Storage::Q4_0 { codes: vec![byte; 8 * 32], scales: vec![one; 16] };
            compare(&x, 64, &Matrix::new(8, 64, storage).unwrap());
        }
        for code in [127i8, -127, -128] {
            let storage = Storage::Q8_0 { codes: vec![code; 8 * 64], scales: vec![one; 16] };
            compare(&x, 64, &Matrix::new(8, 64, storage).unwrap());
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_not_lost() {
    let mut random = Random(6);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = random.vec(64, 1.0);
        x[40] = bad;
        for scheme in [Scheme::F32, Scheme::Q8_0, Scheme::Q4_0] {
            let matrix = store(8, 64, random.vec(8 * 64, 1.0), scheme);
            for isa in Isa::every() {
                let weight = Packed::new(isa, &matrix);
                let lost = product(isa, &x, 64, &weight).iter().any(|y| y.is_finite());
                assert!(!lost, "{} {scheme:?} {bad}", isa.name());
            }
        }
    }
}
