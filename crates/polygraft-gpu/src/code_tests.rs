//! Low-rank updates and layers of adapters in numbers and in codes, over odd shapes and extreme values, against the
//! canonical steps.

use crate::gpu::Gpu;
use crate::variant_tests::{Host, X, Y, difference, open, program, tables};
use polygraft::ir::{Bottleneck, LowRank, Op, Payload, PayloadId, Residual, Rules, Site};
use polygraft::model::Activation;
use polygraft::program::{Extent, OpKind, Purpose, Segment, StepKind, Table, TableDesc, TableId};
use polygraft::quant::codes::{Book, Codes, Group};
use polygraft::tensor::{Matrix, Scheme, Storage};
use polygraft::testing::{Random, store};
use std::sync::Arc;

/// How a matrix of a case is stored: bits (32: numbers) and groups.
type How = (u8, Group);

fn matrix(rows: usize, cols: usize, spread: f32, (bits, group): How, random: &mut Random) -> Matrix {
    let values: Vec<f32> = random.vec(rows * cols, spread).iter().map(|x| x + spread / 4.0).collect();
    let storage = match bits {
        32 => Storage::F32(values),
        _ => Storage::Code(Codes::encode((rows, cols), &values, bits, group, Book::Median).unwrap()),
    };
    Matrix::new(rows, cols, storage).unwrap()
}

/// Runs the one step that `kind` makes of its table with `segments` of `ops`, on `t` rows of `k` and `n` numbers.
fn off(
    gpu: &mut Gpu,
    (t, k, n): (usize, usize, usize),
    spread: f32,
    (kind, op): (StepKind, OpKind),
    ops: Vec<Op>,
    segments: &[(std::ops::Range<usize>, u32, f32)],
) -> f32 {
    let mut random = Random(t as u64);
    let host = Host(vec![
        store(t, k, random.vec(t * k, spread), Scheme::F32),
        store(1, k, vec![0.5 * spread; k], Scheme::F32),
        store(n, k, random.vec(n * k, 0.1), Scheme::F32),
    ]);
    gpu.store.load(&gpu.device, polygraft::model::WeightId(2), &host.0[2]);
    let base =
        StepKind::Linear { x: X, out: Y, weight: Some(polygraft::model::WeightId(2)), bias: None, replaced: None };
    let mut program = program(&[(Extent::Tokens, k), (Extent::Tokens, n)], vec![base, kind], Y);
    let purpose = Purpose::Patches { site: Site::Pooled, op, ordinal: 0, head: None };
    program.tables = vec![TableDesc { extent: Extent::Tokens, purpose }];
    let mut tables = tables(&[t]);
    let segment = |(range, payload, scale): &(std::ops::Range<usize>, u32, f32)| Segment {
        range: range.clone(),
        payload: Some(*payload),
        scale: *scale,
    };
    tables.tables = vec![Table { segments: segments.iter().map(segment).collect() }];
    let payload = |(i, op)| Arc::new(Payload { id: PayloadId(1 + i as u64), op });
    tables.payloads = ops.into_iter().enumerate().map(payload).collect();
    let off = difference(gpu, &host, &program, &tables);
    tables.payloads.iter().for_each(|p| gpu.forget(p.id));
    gpu.store.sweep();
    off
}

const HOWS: [How; 10] = [
    (32, Group::Tensor),
    (1, Group::Tensor),
    (1, Group::Row),
    (1, Group::Block(32)),
    (2, Group::Tensor),
    (2, Group::Block(64)),
    (4, Group::Row),
    (4, Group::Block(6)),
    (8, Group::Tensor),
    (8, Group::Block(32)),
];

#[test]
fn low_rank_updates() {
    let mut gpu = open();
    let mut random = Random(11);
    let shapes =
        [(1, 32, 5, 1), (3, 30, 33, 3), (17, 96, 64, 8), (17, 129, 31, 16), (513, 64, 384, 17), (40, 384, 65, 8)];
    for (t, k, n, rank) in shapes {
        for how in HOWS {
            for spread in [1.0, 127.0] {
                let lora = |rank, how, random: &mut Random| {
                    let (a, b) = (matrix(rank, k, 0.3, how, random), matrix(n, rank, 0.3, how, random));
                    let bias = (rank % 2 == 1).then(|| random.vec(n, 0.3));
                    Op::LowRank(LowRank { a, b, bias, scale: 0.5 })
                };
                // Of other ranks and forms in the same launch.
                let ops = vec![
                    lora(rank, how, &mut random),
                    lora(2, (32, Group::Tensor), &mut random),
                    lora(9, (1, Group::Tensor), &mut random),
                ];
                let third = t / 3;
                let many = [(0..third, 0, 1.0), (third..third + t / 4, 1, 0.5), (t - third..t, 2, -2.0)];
                for segments in [&[][..], &[(0..t, 0, 0.7)], &many] {
                    let segments: Vec<_> = segments.iter().filter(|s| !s.0.is_empty()).cloned().collect();
                    let kind = (StepKind::LowRank { x: X, out: Y, table: TableId(0) }, OpKind::LowRank);
                    let off = off(&mut gpu, (t, k, n), spread, kind, ops.clone(), &segments);
                    assert!(off <= 2e-5, "{t}×{k}→{rank}→{n} {how:?} {spread} {} runs: {off:e}", segments.len());
                }
            }
        }
    }
    assert_eq!(gpu.store.arena.used(), 0, "what was forgotten is free again");
}

#[test]
fn bottlenecks() {
    let mut gpu = open();
    let mut random = Random(12);
    for (t, k, b) in [(1usize, 32, 1), (17, 384, 24), (33, 65, 7), (70, 64, 48)] {
        for how in HOWS {
            let rules = Rules {
                parallel: false,
                keeps: false,
                norm_before: false,
                residual: Residual::Input,
                residual_inside: false,
                norm_after: false,
            };
            let op = |b, how, random: &mut Random| {
                Op::Bottleneck(Box::new(Bottleneck {
                    norm_before: None,
                    down: matrix(b, k, 0.2, how, random),
                    down_bias: random.vec(b, 0.2),
                    // Not zero at zero: padding must not come through.
                    activation: Activation::Sigmoid,
                    up: matrix(k, b, 0.2, how, random),
                    up_bias: random.vec(k, 0.2),
                    gate: None,
                    norm_after: None,
                    rules,
                }))
            };
            let ops = vec![op(b, how, &mut random), op(3, (32, Group::Tensor), &mut random)];
            let kind = StepKind::Bottleneck { h: Y, x: X, table: TableId(0), norm: None, turn: 0 };
            let segments = [(0..t.div_ceil(2), 0, 1.0), (t.div_ceil(2)..t, 1, 0.5)];
            let segments: Vec<_> = segments.into_iter().filter(|s| !s.0.is_empty()).collect();
            let off = off(&mut gpu, (t, k, k), 1.0, (kind, OpKind::Bottleneck), ops, &segments);
            assert!(off <= 2e-5, "{t}×{k}→{b} {how:?}: {off:e}");
        }
    }
}

#[test]
fn codes_stay_codes_on_the_device() {
    let mut gpu = open();
    let mut random = Random(13);
    let mut bytes = |how| {
        let (a, b) = (matrix(8, 384, 0.3, how, &mut random), matrix(384, 8, 0.3, how, &mut random));
        let lora = Payload { id: PayloadId(7), op: Op::LowRank(LowRank { a, b, bias: None, scale: 1.0 }) };
        gpu.store.own(&gpu.device, &lora).unwrap();
        let bytes = gpu.payload_bytes(lora.id);
        gpu.forget(lora.id);
        gpu.store.sweep();
        bytes
    };
    // Two matrices of 3072 codes; a vec4 for levels and statistics, and what four levels more take.
    assert_eq!(bytes((1, Group::Tensor)), 2 * (384 + 16));
    assert_eq!(bytes((2, Group::Tensor)), 2 * (768 + 32));
    assert_eq!(bytes((8, Group::Tensor)), 2 * (3072 + 16));
    assert_eq!(bytes((32, Group::Tensor)), 2 * 3072 * 4);
}
