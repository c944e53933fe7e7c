//! Known answers: a small Program with every kind of step, on fixed numbers, against the definition of the steps.
//!
//! A device that computes wrong numbers gives no error, only wrong rankings; this is run before one is used.

use crate::gpu::Gpu;
use crate::schedule::schedule;
use crate::variants::{Covers, Shape, VARIANTS, choose};
use polygraft::backend::{Call, Poll, Precision};
use polygraft::ir::{LowRank, Norm, Offset, Op, Payload, PayloadId};
use polygraft::model::{Activation, Buckets, Pooling, WeightId};
use polygraft::program::{
    BufferDesc, BufferId, Extent, OpKind, Output, OutputKind, Program, Purpose, Relative, RelativeBuffers, Scope,
    Segment, Step, StepKind, Table, TableDesc, TableId, Tables,
};
use polygraft::quant::codes::{self, Codes};
use polygraft::quant::{q4_0, q8_0};
use polygraft::steps::{Machine, Weights};
use polygraft::tensor::{Matrix, Storage};
use polygraft::{Error, Result};
use std::sync::Arc;

/// Largest difference to the known answer, for numbers around 1.
const TOLERANCE: f32 = 2e-4;

/// The same where activations are rounded to 8 bits.
const ROUNDED: f32 = 0.1;

/// Weights of the test, out of the way of any base's.
const FIRST: u32 = u32::MAX - 64;
const HIDDEN: usize = 64;
const WIDE: usize = 96;
const TOKENS: usize = 41;
const VOCABULARY: usize = 50;
const BUCKETS: Buckets = Buckets::Signed { span: 4, log: None };

/// A number in −1..1 that is the same everywhere.
fn number(i: usize) -> f32 {
    let mut x = (i as u32).wrapping_mul(0x9e37_79b9) ^ 0x85eb_ca6b;
    x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
    x = (x ^ (x >> 12)).wrapping_mul(0x297a_2d39);
    ((x ^ (x >> 15)) >> 8) as f32 / 8_388_608.0 - 1.0
}

fn numbers(seed: usize, n: usize, scale: f32) -> Vec<f32> {
    (0..n).map(|i| number(seed * 100_003 + i) * scale).collect()
}

struct Case {
    program: Program,
    tables: Tables,
    weights: Vec<Matrix>,
}

/// The base's side of a case, by the test's ids.
struct Known<'a>(&'a [Matrix]);

impl Weights for Known<'_> {
    fn row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        let matrix = self.0.get(id.0.wrapping_sub(FIRST) as usize);
        matrix.ok_or_else(|| Error::Program("a weight outside the self-test".into()))?.decode_row(row, out);
        Ok(())
    }
}

const B: fn(u32) -> BufferId = BufferId;
const W: fn(u32) -> WeightId = |i| WeightId(FIRST + i);

fn matrix(seed: usize, rows: usize, cols: usize, bits: u32) -> Result<Matrix> {
    let values = numbers(seed, rows * cols, 1.7 / (cols as f32).sqrt());
    let storage = match bits {
        4 => {
            let (codes, scales) = q4_0::encode(&values);
            Storage::Q4_0 { codes, scales }
        }
        8 => {
            let (codes, scales) = q8_0::encode(&values);
            Storage::Q8_0 { codes, scales }
        }
        _ => Storage::F32(values),
    };
    Matrix::new(rows, cols, storage).ok_or_else(|| Error::Program("a shape of the self-test".into()))
}

/// A matrix in codes.
fn codes(seed: usize, rows: usize, cols: usize, bits: u8) -> Result<Matrix> {
    let data: Vec<u8> =
        (0..codes::bytes(rows * cols, bits)).map(|i| (number(seed * 1009 + i).to_bits() >> 9) as u8).collect();
    let stats = [[0.01, 1.7 / (cols as f32).sqrt()]];
    let levels = codes::levels(bits, codes::Book::Median);
    let codes = Codes::new((rows, cols), bits, codes::Group::Tensor, data, stats, levels);
    let matrix = codes.and_then(|codes| Matrix::new(rows, cols, Storage::Code(codes)));
    matrix.ok_or_else(|| Error::Program("a shape of the self-test".into()))
}

fn case() -> Result<Case> {
    let vector = |seed, n, center: f32| Matrix::vector(numbers(seed, n, 0.3).iter().map(|x| x + center).collect());
    let weights = vec![
        matrix(0, VOCABULARY, HIDDEN, 32)?,
        matrix(1, TOKENS, HIDDEN, 32)?,
        vector(2, HIDDEN, 1.0),
        vector(3, HIDDEN, 0.0),
        matrix(4, WIDE, HIDDEN, 4)?,
        vector(5, WIDE, 0.0),
        matrix(6, HIDDEN, WIDE, 8)?,
        vector(7, HIDDEN, 0.0),
        matrix(8, HIDDEN, HIDDEN, 32)?,
        matrix(9, BUCKETS.rows() as usize, HIDDEN, 32)?,
    ];
    let [lora, norm, offset] = [0, 1, 2].map(TableId);
    let scale_bits = 0.25f32.to_bits();
    let linear = |x, out, weight, bias: Option<u32>| StepKind::Linear {
        x: B(x),
        out: B(out),
        weight: Some(W(weight)),
        bias: bias.map(W),
        replaced: None,
    };
    let kinds = vec![
        StepKind::Embed { out: B(0), word: W(0), position: Some(W(1)), token_type: None },
        StepKind::LayerNorm {
            x: B(0),
            out: B(0),
            gamma: Some(W(2)),
            beta: Some(W(3)),
            eps_bits: 1e-5f32.to_bits(),
            replaced: None,
        },
        linear(0, 1, 4, Some(5)),
        StepKind::Activate { x: B(1), function: Activation::Gelu },
        linear(1, 2, 6, Some(7)),
        linear(0, 3, 8, None),
        StepKind::LowRank { x: B(0), out: B(3), table: lora },
        StepKind::Attention {
            q: B(0),
            k: B(2),
            v: B(3),
            out: B(4),
            heads: 2,
            scale_bits,
            window: None,
            relative: None,
            prefix: None,
        },
        StepKind::Activate { x: B(2), function: Activation::Tanh },
        StepKind::Add { a: B(4), b: B(2), out: B(4) },
        StepKind::LayerNorm {
            x: B(4),
            out: B(4),
            gamma: Some(W(2)),
            beta: Some(W(3)),
            eps_bits: 1e-5f32.to_bits(),
            replaced: Some(norm),
        },
        StepKind::Pool { x: B(4), out: B(5), pooling: Pooling::Mean },
        StepKind::Normalize { x: B(5) },
        StepKind::Offset { x: B(5), table: offset },
        StepKind::Rotate { x: B(1), first: 7, out: B(6), heads: 2, theta_bits: 1e4f32.to_bits() },
        StepKind::Gate { x: B(1), out: B(7), function: Activation::Gelu },
        StepKind::Unfold { x: B(7), out: B(8) },
        StepKind::Positions { out: B(9), table: W(9) },
        StepKind::Attention {
            q: B(6),
            k: B(6),
            v: B(3),
            out: B(10),
            heads: 2,
            scale_bits,
            window: Some(5),
            relative: Some(RelativeBuffers { bias: None, keys: Some(B(9)), queries: Some(B(9)) }),
            prefix: None,
        },
    ];
    let scope = |kind: &StepKind| match kind {
        StepKind::LowRank { table, .. } | StepKind::Offset { table, .. } => Scope::Only(*table),
        _ => Scope::All,
    };
    let steps = kinds.into_iter().map(|kind| Step { scope: scope(&kind), kind, origin: None }).collect();
    let widths = [HIDDEN, WIDE, HIDDEN, HIDDEN, HIDDEN];
    let mut buffers: Vec<_> = widths.map(|width| BufferDesc { extent: Extent::Tokens, width }).into();
    buffers.push(BufferDesc { extent: Extent::Rows, width: HIDDEN });
    for (extent, width) in [
        (Extent::Tokens, HIDDEN),
        (Extent::Tokens, WIDE / 2),
        (Extent::Tokens, 3 * WIDE / 2),
        (Extent::Positions, HIDDEN),
        (Extent::Tokens, HIDDEN),
    ] {
        buffers.push(BufferDesc { extent, width });
    }
    let output = |i: usize| Output { kind: OutputKind::Hidden, buffer: B(i as u32), scope: Scope::All };
    let outputs = (0..buffers.len()).map(output).collect();
    let desc = |extent, op| TableDesc {
        extent,
        purpose: Purpose::Patches { site: polygraft::ir::Site::Pooled, op, ordinal: 0, head: None },
    };
    let tables = vec![
        desc(Extent::Tokens, OpKind::LowRank),
        desc(Extent::Tokens, OpKind::ReplaceNorm),
        desc(Extent::Rows, OpKind::Offset),
    ];
    let program = Program { steps, buffers, tables, outputs };
    Ok(Case { program, tables: batch()?, weights })
}

/// Three rows, the first of one token; two of them under adapters.
fn batch() -> Result<Tables> {
    let (first, second) = (1, 20);
    let lora = |seed: usize, rank: usize, a: Matrix| {
        let (b, bias) = (codes(seed + 1, HIDDEN, rank, 1)?, Some(numbers(seed + 2, HIDDEN, 0.2)));
        Ok(Op::LowRank(LowRank { a, b, bias, scale: 0.5 }))
    };
    let ops = [
        lora(20, 3, matrix(20, 3, HIDDEN, 32)?)?,
        lora(30, 8, codes(30, 8, HIDDEN, 4)?)?,
        Op::ReplaceNorm(Norm { gamma: None, beta: Some(numbers(40, HIDDEN, 0.5)) }),
        Op::Offset(Offset { vector: numbers(41, HIDDEN, 0.3), query: None }),
    ];
    let payload = |(i, op): (usize, Op)| Arc::new(Payload { id: PayloadId(u64::MAX - 8 + i as u64), op });
    let segment = |range, payload, scale| Segment { range, payload: Some(payload), scale };
    Ok(Tables {
        ids: (0..TOKENS).map(|t| (t * 7 % VOCABULARY) as u32).collect(),
        positions: (0..TOKENS as u32).collect(),
        token_types: vec![0; TOKENS],
        cu_seqlens: vec![0, first, second, TOKENS as u32],
        tables: vec![
            Table { segments: vec![segment(0..1, 0, 1.0), segment(20..TOKENS, 1, 0.5)] },
            Table { segments: vec![segment(1..20, 2, 1.0)] },
            Table { segments: vec![segment(1..2, 3, 0.7)] },
        ],
        payloads: ops.into_iter().enumerate().map(payload).collect(),
        relative: Some(Relative {
            buckets: (0..BUCKETS.rows()).collect(),
            blocks: vec![0, 1, 1],
            places: (1 - TOKENS as i32..TOKENS as i32).map(|distance| BUCKETS.row(distance)).collect(),
            embedded: None,
        }),
        pixels: None,
        embedded: None,
    })
}

/// What every buffer must hold at the end.
fn answers(case: &Case) -> Result<Vec<Vec<f32>>> {
    let mut buffers: Vec<Vec<f32>> =
        case.program.buffers.iter().map(|b| vec![0.0; b.width * case.tables.len(b.extent)]).collect();
    for step in &case.program.steps {
        let weights = &Known(&case.weights);
        Machine { program: &case.program, tables: &case.tables, weights, buffers: &mut buffers }.eval(step)?;
    }
    Ok(buffers)
}

impl Gpu {
    /// Runs every kernel that this device would use on known numbers.
    ///
    /// # Errors
    /// [`Error::DeviceWrong`] with the kernel that is off; when the device is lost.
    pub async fn self_test(&mut self) -> Result<()> {
        let case = case()?;
        let want = answers(&case)?;
        for (i, weight) in case.weights.iter().enumerate().skip(2) {
            let id = W(i as u32);
            if weight.rows() > 1 {
                self.store.load(&self.device, id, weight);
            } else {
                self.store.load_vector(&self.device, id, &weight.to_f32())?;
            }
        }
        let shape = Shape { rows: TOKENS as u32, head: 32 };
        let usable = VARIANTS.iter().filter(|v| matches!(v.covers, Covers::Linear | Covers::Norm));
        let names: Vec<_> = usable.filter(|v| v.usable(shape, &self.tuning)).map(|v| v.name).collect();
        let mut outcome = Ok(());
        for name in names {
            self.tuning.only = Some(name);
            outcome = self.compare(&case, &want, name, Precision::Exact).await;
            if outcome.is_err() {
                break;
            }
        }
        self.tuning.only = None;
        if outcome.is_ok() && self.tuning.fast != Covers::Linear {
            let fast = choose(self.tuning.fast, shape, &self.tuning).map_or("", |v| v.name);
            outcome = self.compare(&case, &want, fast, Precision::Fast).await;
        }
        case.tables.payloads.iter().for_each(|p| self.forget(p.id));
        (0..case.weights.len() as u32).for_each(|i| self.store.unload(W(i)));
        self.store.sweep();
        outcome
    }

    async fn compare(&mut self, case: &Case, want: &[Vec<f32>], name: &str, precision: Precision) -> Result<()> {
        let call = Call { program: Arc::new(case.program.clone()), tables: Arc::new(case.tables.clone()), precision };
        let tolerance = if precision == Precision::Exact { TOLERANCE } else { ROUNDED };
        let host = Known(&case.weights);
        let mut run = self.begin(call)?;
        while self.advance(&mut run, &host, &mut || false)? != Poll::Done {
            run.answered().await;
        }
        for (at, want) in want.iter().enumerate() {
            let got = self.read(&run, B(at as u32))?;
            let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, nan_max);
            if got.len() != want.len() || off > tolerance {
                let step = format!("{} ({name})", writer(&case.program, B(at as u32)));
                return Err(Error::DeviceWrong { device: self.device.info().name.clone(), step, off });
            }
        }
        Ok(())
    }
}

/// The larger one; a difference that is no number is infinite.
fn nan_max(a: f32, b: f32) -> f32 {
    if b.is_nan() { f32::INFINITY } else { a.max(b) }
}

/// The kinds of the steps that write `buffer`.
fn writer(program: &Program, buffer: BufferId) -> String {
    let groups = schedule(program);
    let names = groups.iter().map(|(steps, _)| program.steps[steps.start].kind).filter(|k| k.target() == buffer);
    let names: Vec<_> =
        names.map(|k| format!("{k:?}").split([' ', '{']).next().unwrap_or_default().to_owned()).collect();
    names.join(", ")
}
