//! The GPU backend against the oracle, on random models, adapters and batches, on whatever device this machine has:
//! Mesa's lavapipe in continuous integration.

#[path = "../../polygraft-cpu/tests/support/mod.rs"]
mod support;

use polygraft::backend::Precision;
use polygraft_gpu::GpuBackend;
use support::{ALL, cases, distance, session};

fn gpu() -> GpuBackend {
    GpuBackend::open().expect("a Vulkan device (Debian: mesa-vulkan-drivers has one in software)")
}

#[test]
fn exact_agrees_with_the_oracle() {
    for case in cases() {
        let (mut near, mut oracle) = (session(gpu(), &case), session(case.oracle(), &case));
        let batch = case.batch(&mut near);
        let got = near.run(&batch, ALL, Precision::Exact).unwrap();
        let want = oracle.run(&batch, ALL, Precision::Exact).unwrap();
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let off = distance(got, want);
            assert!(off <= 5e-4, "{case:?} row {i}: off by {off:e}");
        }
    }
}
