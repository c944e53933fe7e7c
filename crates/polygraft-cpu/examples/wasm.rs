//! The same benchmark for a WebAssembly host, without imports: `node examples/wasm.mjs target/…/wasm.wasm`.

#[path = "../tests/support/mod.rs"]
mod cases;
mod support;

use polygraft::backend::Precision;
use polygraft::session::{Batch, Session};
use polygraft_cpu::Cpu;
use std::cell::RefCell;

thread_local! {
    static BENCH: RefCell<Option<(Session<Cpu>, Batch)>> = const { RefCell::new(None) };
}

/// Makes the model and a batch of `rows` rows.
#[unsafe(no_mangle)]
pub extern "C" fn prepare(rows: usize) {
    BENCH.with(|bench| {
        let session = support::session();
        let batch = support::batch(&session, rows);
        *bench.borrow_mut() = Some((session, batch));
    });
}

/// Runs the batch once.
#[unsafe(no_mangle)]
pub extern "C" fn bench(fast: bool) -> f32 {
    let precision = if fast { Precision::Fast } else { Precision::Exact };
    BENCH.with(|bench| bench.borrow_mut().as_mut().map_or(f32::NAN, |(s, b)| support::run(s, b, precision)))
}

/// The largest difference to the oracle over the cases of the conformance test; infinite when a row alone has other
/// bits than in the batch.
#[unsafe(no_mangle)]
pub extern "C" fn check() -> f32 {
    let mut worst = 0.0f32;
    for case in cases::cases() {
        let (mut near, mut oracle) = (cases::session(Cpu::new(), &case), cases::session(case.oracle(), &case));
        let batch = case.batch(&near);
        let want = oracle.run(&batch, cases::ALL, Precision::Exact).expect("the oracle runs");
        for precision in [Precision::Exact, Precision::Fast] {
            let got = near.run(&batch, cases::ALL, precision).expect("the batch runs");
            for (row, (got, want)) in got.iter().zip(&want).enumerate() {
                if precision == Precision::Exact {
                    worst = worst.max(cases::distance(got, want));
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
