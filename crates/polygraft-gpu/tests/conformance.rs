//! The GPU backend against the oracle, on random models, adapters and batches, on whatever device this machine has:
//! Mesa's lavapipe in continuous integration.

#[path = "../../polygraft-cpu/tests/support/mod.rs"]
mod support;

use polygraft::Compose;
use polygraft::backend::Precision;
use polygraft::session::Batch;
use polygraft::tensor::Scheme;
use polygraft::testing::{self, Random};
use polygraft_gpu::GpuBackend;
use support::{ALL, Case, cases, distance, session};

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

/// Every composition of the random adapters, all in one batch, a row or two each.
#[test]
fn every_composition_agrees_with_the_oracle() {
    for seed in 20..28 {
        let (hidden, heads, ffn) = [(40, 5, 52), (27, 3, 17)][seed as usize % 2];
        let case = Case::new(Scheme::F32, hidden, heads, ffn, seed);
        let (mut near, mut oracle) = (session(gpu(), &case), session(case.oracle(), &case));
        let mut random = Random(seed);
        let known = testing::compositions(&mut near);
        let of: Vec<Compose> = known.iter().chain(&known[..known.len() / 2]).cloned().collect();
        let rows = of.iter().map(|_| testing::row(near.spec(), 1 + random.below(40), &mut random)).collect();
        let batch = Batch::by_row(rows, of.clone());
        let got = near.run(&batch, ALL, Precision::Exact).unwrap();
        let want = oracle.run(&batch, ALL, Precision::Exact).unwrap();
        for ((got, want), compose) in got.iter().zip(&want).zip(&of) {
            let off = distance(got, want);
            assert!(off <= 5e-4, "{case:?} {compose}: off by {off:e}");
        }
    }
}
