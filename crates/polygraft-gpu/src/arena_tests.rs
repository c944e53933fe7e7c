//! What becomes of the arena when it is full.

#![allow(clippy::unwrap_used, reason = "tests")]

use crate::variant_tests::open;
use polygraft::ir::{Dense, LowRank, Op, Payload, PayloadId};
use polygraft::tensor::{Matrix, Storage};
use std::sync::Arc;

/// A layer of 32 MB.
fn layer(id: u64) -> Arc<Payload> {
    let weight = Matrix::new(2048, 4096, Storage::F32(vec![1.0; 2048 * 4096]));
    Arc::new(Payload { id: PayloadId(id), op: Op::ReplaceLinear(Dense { weight, bias: None }) })
}

#[test]
fn idle_adapters_make_room_and_what_does_not_fit_leaves_nothing_behind() {
    let mut gpu = open();
    let layers: Vec<_> = (0..4).map(layer).collect();
    // 128 MB, less what has been put there before.
    let kept = gpu.store.owned(&gpu.device, &layers[..3]).unwrap();
    let before = gpu.memory();
    let small = Matrix::vector(vec![1.0; 1024]);
    let large = Matrix::new(4096, 4096, Storage::F32(vec![1.0; 4096 * 4096])).unwrap();
    let op = Op::LowRank(LowRank { a: small, b: large, bias: None, scale: 1.0 });
    let pair = Arc::new(Payload { id: PayloadId(9), op });
    assert!(gpu.store.owned(&gpu.device, std::slice::from_ref(&pair)).is_err());
    assert_eq!(gpu.memory(), before, "half of a payload stayed");
    assert!(!gpu.store.make_room(&layers), "nothing is idle");
    drop(kept);
    assert!(gpu.store.make_room(&layers[2..]));
    assert!(gpu.memory() < before);
    gpu.store.owned(&gpu.device, &layers[2..]).unwrap();
}
