//! Every variant of the table against the canonical steps it covers, over odd shapes and extreme values.

use crate::backend::block_on;
use crate::device::{Allow, Device};
use crate::gpu::{Gpu, Rounded};
use crate::variants::{Covers, VARIANTS, Variant};
use polygraft::Result;
use polygraft::backend::{Call, Poll, Precision};
use polygraft::model::{Activation, Pooling, WeightId};
use polygraft::program::{BufferDesc, BufferId, Extent, Output, OutputKind, Program, Scope, Step, StepKind, Tables};
use polygraft::steps::{Machine, Weights};
use polygraft::tensor::{Matrix, Scheme, Storage};
use polygraft::testing::{Random, store};
use std::sync::Arc;

pub(crate) struct Host(pub(crate) Vec<Matrix>);

impl Weights for Host {
    fn row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        self.0[id.0 as usize].decode_row(row, out);
        Ok(())
    }
}

pub(crate) const X: BufferId = BufferId(0);
pub(crate) const Y: BufferId = BufferId(1);

/// Input rows (weight 0 is a word table with one row a token), then `kinds`.
pub(crate) fn program(widths: &[(Extent, usize)], kinds: Vec<StepKind>, output: BufferId) -> Program {
    let embed = StepKind::Embed { out: X, word: WeightId(0), position: Some(WeightId(1)), token_type: None };
    let step = |kind| Step { kind, scope: Scope::All, origin: None };
    Program {
        steps: std::iter::once(embed).chain(kinds).map(step).collect(),
        buffers: widths.iter().map(|&(extent, width)| BufferDesc { extent, width }).collect(),
        tables: Vec::new(),
        outputs: vec![Output { kind: OutputKind::Hidden, buffer: output, scope: Scope::All }],
    }
}

pub(crate) fn tables(lengths: &[usize]) -> Tables {
    let mut cu_seqlens = vec![0];
    for n in lengths {
        cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + *n as u32);
    }
    let tokens = cu_seqlens[lengths.len()];
    Tables {
        ids: (0..tokens).collect(),
        positions: vec![0; tokens as usize],
        token_types: vec![0; tokens as usize],
        cu_seqlens,
        ..Tables::default()
    }
}

/// Runs `program` on the device and by definition; the largest difference, relative to the size of the numbers.
pub(crate) fn difference(gpu: &mut Gpu, host: &Host, program: &Program, tables: &Tables) -> f32 {
    differences(gpu, host, host, program, tables, Precision::Exact)
}

/// The same where the device reads `host` and the definition reads `known`.
fn differences(
    gpu: &mut Gpu,
    host: &Host,
    known: &Host,
    program: &Program,
    tables: &Tables,
    precision: Precision,
) -> f32 {
    let mut buffers: Vec<Vec<f32>> =
        program.buffers.iter().map(|b| vec![0.0; b.width * tables.len(b.extent)]).collect();
    for step in &program.steps {
        Machine { program, tables, weights: known, buffers: &mut buffers }.eval(step).unwrap();
    }
    let output = program.outputs[0].buffer;
    let want = &buffers[output.0 as usize];
    let call = Call { program: Arc::new(program.clone()), tables: Arc::new(tables.clone()), precision };
    let mut run = gpu.begin(call).unwrap();
    while gpu.advance(&mut run, host, &mut || false).unwrap() != Poll::Done {}
    let got = gpu.read(&run, output).unwrap();
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(1.0f32, |a, b| a.max(b.abs()));
    got.iter()
        .zip(want)
        .map(|(a, b)| (a - b).abs() / size)
        .fold(0.0, |a, b| if b.is_nan() { f32::INFINITY } else { a.max(b) })
}

fn of(covers: Covers) -> impl Iterator<Item = &'static Variant> {
    VARIANTS.iter().filter(move |v| v.covers == covers)
}

pub(crate) fn open() -> Gpu {
    Gpu::new(block_on(Device::open(Allow::Any)).expect("a Vulkan device"))
}

/// Codes of every value there is, the extremes among them, and scales up to a thousand.
fn extreme(rows: usize, cols: usize, scheme: Scheme, random: &mut Random) -> Matrix {
    let scales: Vec<u16> = (0..rows * cols / 32)
        .map(|i| half::f16::from_f32([0.0, 1e-4, 1.0, 1000.0][i % 4] * random.unit()).to_bits())
        .collect();
    let storage = match scheme {
        Scheme::Q4_0 => {
            let codes =
                (0..rows * cols / 2).map(|i| [0x00, 0xff, 0x0f, 0xf0, random.below(256) as u8][i % 5]).collect();
            Storage::Q4_0 { codes, scales }
        }
        _ => {
            let codes =
                (0..rows * cols).map(|i| [127, -127, 0, -1, random.below(255) as i8][i % 5].max(-127)).collect();
            Storage::Q8_0 { codes, scales }
        }
    };
    Matrix::new(rows, cols, storage).unwrap()
}

#[test]
fn linear_variants() {
    let mut gpu = open();
    let mut random = Random(1);
    let shapes = [(1, 32, 1), (3, 64, 5), (17, 32, 63), (17, 384, 64), (130, 96, 129), (513, 32, 65)];
    for (t, k, n) in shapes {
        for scheme in [Scheme::F32, Scheme::Q8_0, Scheme::Q4_0] {
            for spread in [1.0, 127.0] {
                let weight = match (scheme, spread) {
                    (Scheme::F32, _) | (_, 1.0) => store(n, k, random.vec(n * k, 0.1), scheme),
                    _ => extreme(n, k, scheme, &mut random),
                };
                let host = Host(vec![
                    store(t, k, random.vec(t * k, spread), Scheme::F32),
                    store(1, k, vec![0.0; k], Scheme::F32),
                    weight,
                    Matrix::vector(random.vec(n, 0.3)),
                ]);
                gpu.store.load(&gpu.device, WeightId(2), &host.0[2]);
                gpu.store.load_vector(&gpu.device, WeightId(3), &host.0[3].to_f32()).unwrap();
                for function in [None, Some(Activation::Gelu), Some(Activation::Tanh)] {
                    let bias = function.is_some().then_some(WeightId(3));
                    let mut kinds =
                        vec![StepKind::Linear { x: X, out: Y, weight: Some(WeightId(2)), bias, replaced: None }];
                    kinds.extend(function.map(|function| StepKind::Activate { x: Y, function }));
                    let program = program(&[(Extent::Tokens, k), (Extent::Tokens, n)], kinds, Y);
                    for variant in of(Covers::Linear) {
                        gpu.prefer(Some(variant.name));
                        let off = difference(&mut gpu, &host, &program, &tables(&[t]));
                        // A saturated function hides the size of the sums, and so of their rounding.
                        let allowed = if function == Some(Activation::Tanh) { 2e-4 } else { 2e-5 };
                        assert!(
                            off <= allowed,
                            "{}: {t}×{k}→{n} {scheme:?} {spread} {function:?}: {off:e}",
                            variant.name
                        );
                    }
                }
            }
        }
    }
}

/// `x` as `round` leaves it, in blocks of 32.
fn rounded(x: &[f32]) -> Vec<f32> {
    let block = |x: &[f32]| {
        let peak = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let inverse = if peak > 0.0 { 127.0 / peak } else { 0.0 };
        x.iter().map(|x| (x * inverse).round_ties_even() * (peak / 127.0)).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(block).collect()
}

#[test]
fn linear_on_rounded_activations() {
    let mut gpu = open();
    assert!(gpu.round(Rounded::Bytes), "naga knows products of four bytes");
    let mut random = Random(6);
    for (t, k, n) in [(1, 32, 1), (3, 64, 5), (17, 384, 64), (65, 96, 129), (513, 32, 65)] {
        for scheme in [Scheme::Q8_0, Scheme::Q4_0] {
            for weight in [store(n, k, random.vec(n * k, 0.1), scheme), extreme(n, k, scheme, &mut random)] {
                let mut x = random.vec(t * k, 2.0);
                x[..32].fill(0.0);
                let host = |x: Vec<f32>| {
                    Host(vec![
                        store(t, k, x, Scheme::F32),
                        store(1, k, vec![0.0; k], Scheme::F32),
                        weight.clone(),
                        Matrix::vector(vec![0.5; n]),
                    ])
                };
                gpu.store.load(&gpu.device, WeightId(2), &weight);
                gpu.store.load_vector(&gpu.device, WeightId(3), &vec![0.5; n]).unwrap();
                let linear = StepKind::Linear {
                    x: X,
                    out: Y,
                    weight: Some(WeightId(2)),
                    bias: Some(WeightId(3)),
                    replaced: None,
                };
                let program = program(&[(Extent::Tokens, k), (Extent::Tokens, n)], vec![linear], Y);
                let (near, known) = (host(x.clone()), host(rounded(&x)));
                let off = differences(&mut gpu, &near, &known, &program, &tables(&[t]), Precision::Fast);
                assert!(off <= 2e-5, "{t}×{k}→{n} {scheme:?}: {off:e}");
            }
        }
    }
}

/// `v` as 16 bits hold it.
fn halved(v: &[f32], unit: f32) -> Vec<f32> {
    v.iter().map(|v| half::f16::from_f32(v / unit).to_f32() * unit).collect()
}

#[test]
fn linear_in_half() {
    let mut gpu = open();
    assert!(gpu.round(Rounded::Half), "lavapipe has numbers of 16 bits");
    let mut random = Random(7);
    for (t, k, n) in [(16, 32, 1), (17, 64, 5), (17, 384, 64), (65, 96, 129), (130, 1536, 66), (513, 32, 65)] {
        for scheme in [Scheme::Q8_0, Scheme::Q4_0] {
            // The largest activations are beyond what 16 bits hold without their unit.
            for spread in [1.0, 127.0, 3e5] {
                let weight = store(n, k, random.vec(n * k, 0.1), scheme);
                let x = random.vec(t * k, spread);
                let host = |x: Vec<f32>, weight: Matrix| {
                    let zeros = store(1, k, vec![0.0; k], Scheme::F32);
                    Host(vec![store(t, k, x, Scheme::F32), zeros, weight, Matrix::vector(vec![0.5; n])])
                };
                gpu.store.load(&gpu.device, WeightId(2), &weight);
                gpu.store.load_vector(&gpu.device, WeightId(3), &vec![0.5; n]).unwrap();
                let (weight_id, bias) = (Some(WeightId(2)), Some(WeightId(3)));
                let linear = StepKind::Linear { x: X, out: Y, weight: weight_id, bias, replaced: None };
                let gelu = StepKind::Activate { x: Y, function: Activation::Gelu };
                let program = program(&[(Extent::Tokens, k), (Extent::Tokens, n)], vec![linear, gelu], Y);
                let known = host(halved(&x, 16.0), store(n, k, halved(&weight.to_f32(), 1.0), Scheme::F32));
                let near = host(x, weight);
                for variant in of(Covers::Half) {
                    gpu.prefer(Some(variant.name));
                    let off = differences(&mut gpu, &near, &known, &program, &tables(&[t]), Precision::Fast);
                    assert!(off <= 2e-5, "{}: {t}×{k}→{n} {scheme:?} {spread}: {off:e}", variant.name);
                }
            }
        }
    }
}

#[test]
fn a_device_is_proved_on_what_it_rounds_to() {
    let mut gpu = open();
    for how in [Rounded::No, Rounded::Bytes, Rounded::Half] {
        assert!(gpu.round(how));
        block_on(gpu.self_test()).unwrap();
    }
}

/// Every launch is booked, on the steps that it is for, and the answers are those of a call that is not measured.
#[test]
fn a_profile_has_every_kernel() {
    let mut gpu = open();
    let mut random = Random(8);
    let (t, k) = (300, 64);
    let host = Host(vec![
        store(t, k, random.vec(t * k, 1.0), Scheme::F32),
        store(1, k, vec![0.0; k], Scheme::F32),
        store(k, k, random.vec(k * k, 0.1), Scheme::Q4_0),
    ]);
    gpu.store.load(&gpu.device, WeightId(2), &host.0[2]);
    let linear = StepKind::Linear { x: X, out: Y, weight: Some(WeightId(2)), bias: None, replaced: None };
    let gelu = StepKind::Activate { x: Y, function: Activation::Gelu };
    // Two submissions on a software device.
    let (program, tables) = (
        program(&[(Extent::Tokens, k), (Extent::Tokens, k)], vec![linear, gelu, StepKind::Normalize { x: Y }], Y),
        tables(&[100, 100, 100]),
    );
    let run = |gpu: &mut Gpu| {
        let (program, tables) = (Arc::new(program.clone()), Arc::new(tables.clone()));
        let mut run = gpu.begin(Call { program, tables, precision: Precision::Exact }).unwrap();
        while gpu.advance(&mut run, &host, &mut || false).unwrap() != Poll::Done {}
        run
    };
    let plain = run(&mut gpu);
    assert!(plain.profile().is_empty());
    assert!(gpu.measure(), "lavapipe has timestamps");
    let measured = run(&mut gpu);
    let booked: Vec<_> = measured.profile().iter().map(|t| (t.kernel, t.steps.clone())).collect();
    assert_eq!(booked, [("linear direct 4×4", 1..3), ("normalize", 3..4)]);
    assert!(measured.profile().iter().all(|t| (0.0..1e5).contains(&t.milliseconds)));
    assert!(measured.profile().iter().any(|t| t.milliseconds > 0.0));
    assert_eq!(gpu.read(&measured, Y).unwrap(), gpu.read(&plain, Y).unwrap());
}

#[test]
fn dense_weights_need_no_whole_blocks() {
    let mut gpu = open();
    let mut random = Random(2);
    for (t, k, n) in [(1, 1, 1), (5, 27, 17), (19, 40, 52), (70, 130, 3)] {
        let host = Host(vec![
            store(t, k, random.vec(t * k, 1.0), Scheme::F32),
            store(1, k, vec![0.0; k], Scheme::F32),
            store(n, k, random.vec(n * k, 0.3), Scheme::F32),
        ]);
        gpu.store.load(&gpu.device, WeightId(2), &host.0[2]);
        let kinds = vec![StepKind::Linear { x: X, out: Y, weight: Some(WeightId(2)), bias: None, replaced: None }];
        let program = program(&[(Extent::Tokens, k), (Extent::Tokens, n)], kinds, Y);
        for variant in of(Covers::Linear) {
            gpu.prefer(Some(variant.name));
            let off = difference(&mut gpu, &host, &program, &tables(&[t]));
            assert!(off <= 1e-5, "{}: {t}×{k}→{n}: {off:e}", variant.name);
        }
    }
}

#[test]
fn attention_variants() {
    let mut gpu = open();
    let mut random = Random(3);
    for (lengths, heads, d) in
        [(&[1][..], 1, 4), (&[3, 1, 17], 3, 32), (&[40, 33, 32, 31], 2, 5), (&[130], 12, 32), (&[9], 2, 64)]
    {
        for spread in [0.5, 30.0] {
            let (t, width) = (lengths.iter().sum::<usize>(), heads * d);
            let host = Host(vec![
                store(t, width, random.vec(t * width, spread), Scheme::F32),
                store(1, width, vec![0.1; width], Scheme::F32),
            ]);
            let scale_bits = (1.0 / (d as f32).sqrt()).to_bits();
            let kinds = vec![StepKind::Attention {
                q: X,
                k: X,
                v: X,
                out: Y,
                heads,
                scale_bits,
                window: None,
                relative: None,
                prefix: None,
            }];
            let program = program(&[(Extent::Tokens, width), (Extent::Tokens, width)], kinds, Y);
            for variant in of(Covers::Attention) {
                gpu.prefer(Some(variant.name));
                let off = difference(&mut gpu, &host, &program, &tables(lengths));
                assert!(off <= 1e-4, "{}: {lengths:?} {heads}×{d}: {off:e}", variant.name);
            }
        }
    }
}

#[test]
fn norm_variants() {
    let mut gpu = open();
    let mut random = Random(4);
    for (t, width) in [(1, 1), (3, 5), (17, 64), (40, 384), (70, 131)] {
        for (spread, center) in [(1.0, 0.0), (0.01, 100.0), (1e4, 0.0)] {
            let values = random.vec(t * width, spread).iter().map(|x| x + center).collect();
            let host = Host(vec![
                store(t, width, values, Scheme::F32),
                store(1, width, vec![0.0; width], Scheme::F32),
                Matrix::vector(random.vec(width, 1.0)),
                Matrix::vector(random.vec(width, 1.0)),
            ]);
            for id in [2, 3] {
                gpu.store.load_vector(&gpu.device, WeightId(id), &host.0[id as usize].to_f32()).unwrap();
            }
            let norm = StepKind::LayerNorm {
                x: Y,
                out: Y,
                gamma: Some(WeightId(2)),
                beta: Some(WeightId(3)),
                eps_bits: 1e-5f32.to_bits(),
                replaced: None,
            };
            let apart = StepKind::LayerNorm {
                x: X,
                out: Y,
                gamma: Some(WeightId(2)),
                beta: Some(WeightId(3)),
                eps_bits: 1e-5f32.to_bits(),
                replaced: None,
            };
            let add = StepKind::Add { a: Y, b: X, out: Y };
            for kinds in [vec![apart], vec![apart, add, norm], vec![apart, norm]] {
                let program = program(&[(Extent::Tokens, width), (Extent::Tokens, width)], kinds, Y);
                for variant in of(Covers::Norm) {
                    gpu.prefer(Some(variant.name));
                    let off = difference(&mut gpu, &host, &program, &tables(&[t]));
                    // Far from zero the mean itself has only so many digits in f32.
                    let allowed = if center > 0.0 { 5e-2 } else { 5e-5 };
                    assert!(off <= allowed, "{}: {t}×{width} {spread} {center}: {off:e}", variant.name);
                }
            }
        }
    }
}

#[test]
fn pooling_and_the_rest() {
    let mut gpu = open();
    let mut random = Random(5);
    let lengths = [1, 3, 17, 64, 5];
    let (t, width) = (lengths.iter().sum::<usize>(), 70);
    let host = Host(vec![
        store(t, width, random.vec(t * width, 1.0), Scheme::F32),
        store(1, width, vec![0.0; width], Scheme::F32),
    ]);
    for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Max, Pooling::MeanSqrtLen] {
        let kinds = vec![StepKind::Pool { x: X, out: Y, pooling }, StepKind::Normalize { x: Y }];
        let program = program(&[(Extent::Tokens, width), (Extent::Rows, width)], kinds, Y);
        let off = difference(&mut gpu, &host, &program, &tables(&lengths));
        assert!(off <= 1e-6, "{pooling:?}: {off:e}");
    }
    use Activation as A;
    for function in [A::Gelu, A::GeluTanh, A::Relu, A::Silu, A::Tanh, A::Sigmoid, A::Identity] {
        let kinds = vec![StepKind::Add { a: X, b: X, out: Y }, StepKind::Activate { x: Y, function }];
        let program = program(&[(Extent::Tokens, width), (Extent::Tokens, width)], kinds, Y);
        let off = difference(&mut gpu, &host, &program, &tables(&lengths));
        assert!(off <= 2e-6, "{function:?}: {off:e}");
    }
}
