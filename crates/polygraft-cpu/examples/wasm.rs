//! The same benchmark for a WebAssembly host, whose only import is a clock: `node examples/wasm.mjs target/…/wasm.wasm`.

#![cfg_attr(all(target_arch = "wasm32", target_feature = "relaxed-simd"), feature(asm_experimental_arch))]

#[path = "../tests/support/mod.rs"]
mod cases;
mod support;

use polygraft::backend::Precision;
use polygraft::session::{Batch, RowOutput, Session};
use polygraft_cpu::Cpu;
use std::cell::RefCell;

polygraft_cpu::assembly!();

thread_local! {
    static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
    static BENCH: RefCell<Option<(Session<Cpu>, Batch)>> = const { RefCell::new(None) };
}

mod host {
    #[link(wasm_import_module = "host")]
    unsafe extern "C" {
        pub(crate) safe fn now() -> f64;
    }
}

fn now() -> f64 {
    host::now()
}

/// Makes the model and a batch: see [`support::batch`]; adapters 0: none, 1: small, 2: large, 3: bits.
#[unsafe(no_mangle)]
pub extern "C" fn prepare(rows: usize, tokens: usize, adapters: usize) {
    BENCH.with(|bench| {
        let mut bench = bench.borrow_mut();
        let session = bench.take().map_or_else(support::session, |(session, _)| session);
        let batch = support::batch(&session, rows, tokens, ["", "small", "large", "bits"][adapters]);
        *bench = Some((session, batch));
    });
}

/// Tokens of the batch.
#[unsafe(no_mangle)]
pub extern "C" fn tokens() -> usize {
    BENCH.with(|b| b.borrow().as_ref().map_or(0, |(_, batch)| batch.rows.iter().map(|r| r.ids.len()).sum()))
}

/// Time by kernel: where the text is, for `profile_length` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn profile() -> *const u8 {
    let text = BENCH.with(|b| b.borrow_mut().as_mut().map(|(s, batch)| support::profile(s, batch, now)));
    TEXT.with(|t| {
        *t.borrow_mut() = text.unwrap_or_default();
        t.borrow().as_ptr()
    })
}

/// Bytes of the last profile.
#[unsafe(no_mangle)]
pub extern "C" fn profile_length() -> usize {
    TEXT.with(|t| t.borrow().len())
}

/// Runs the batch once.
#[unsafe(no_mangle)]
pub extern "C" fn bench(fast: bool) -> f32 {
    let precision = if fast { Precision::Fast } else { Precision::Exact };
    BENCH.with(|bench| bench.borrow_mut().as_mut().map_or(f32::NAN, |(s, b)| support::run(s, b, precision)))
}

/// See [`polygraft_cpu::check::products`].
#[unsafe(no_mangle)]
pub extern "C" fn products(outlier: f32) -> f32 {
    polygraft_cpu::check::products(outlier)
}

/// The largest difference to the oracle over the cases of the conformance test; infinite when a row alone has other
/// bits than in the batch, or is far off where it rounds.
#[unsafe(no_mangle)]
pub extern "C" fn check() -> f32 {
    let mut worst = 0.0f32;
    for case in cases::cases() {
        let (mut near, mut oracle) = (cases::session(Cpu::new(), &case), cases::session(case.oracle(), &case));
        let batch = case.batch(&mut near);
        let want = oracle.run(&batch, cases::ALL, Precision::Exact).expect("the oracle runs");
        for precision in [Precision::Exact, Precision::Fast] {
            let got = near.run(&batch, cases::ALL, precision).expect("the batch runs");
            for (row, (got, want)) in got.iter().zip(&want).enumerate() {
                if precision == Precision::Exact {
                    worst = worst.max(cases::distance(got, want));
                } else if case.dims.scheme.is_quantized() {
                    // NaN is not near.
                    let near = cosine(got, want) >= 0.999;
                    worst = if near { worst } else { f32::INFINITY };
                }
                let composition = batch.compositions[batch.of[row]].clone();
                let one = Batch::uniform(vec![batch.rows[row].clone()], composition);
                if near.run(&one, cases::ALL, precision).expect("the row runs")[0] != *got {
                    return f32::INFINITY;
                }
            }
        }
    }
    worst
}

fn cosine(a: &RowOutput, b: &RowOutput) -> f32 {
    let (Some(a), Some(b)) = (&a.embedding, &b.embedding) else { return f32::NAN };
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
