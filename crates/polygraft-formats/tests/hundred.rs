//! A hundred 1-bit adapters in memory, every allocation counted.
//!
//! Needs `models/multilingual-e5-small`, as `real_model.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator that counts")]

mod support;

use polygraft::backend::{Backend, Precision};
use polygraft::batch::Row;
use polygraft::ir::Graft;
use polygraft::plan::Want;
use polygraft::quant::codes::{Book, Group};
use polygraft::session::{Batch, Session};
use polygraft_cpu::Cpu;
use polygraft_formats::packed::{Options, pack};
use polygraft_formats::{AdapterOptions, MemoryFiles, load_adapter};
use polygraft_gpu::GpuBackend;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

const ADAPTERS: usize = 100;
const BUDGET: usize = 2_500_000;

static LIVE: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Loads the ranking adapter (rank 8 on query and value) a hundred times, packed at one bit; bytes that this took.
fn load<B: Backend>(session: &mut Session<B>) -> usize {
    let folder = support::folder(&support::repository("adapters/rank-lora"));
    let options = Options { bits: 1, group: Group::Tensor, book: Book::Median, floats: false, heads: false };
    let (packed, _) = pack(&folder, session.spec(), &options).unwrap();
    assert!(packed.len() <= 22_000, "{} bytes in the file", packed.len());
    let files = MemoryFiles::one("packed", packed);
    let before = LIVE.load(Ordering::Relaxed);
    for i in 0..ADAPTERS {
        let adapter = load_adapter(&files, session.spec(), &AdapterOptions::default()).unwrap();
        session.graft(&format!("rank{i}"), adapter, Graft::default()).unwrap();
    }
    (LIVE.load(Ordering::Relaxed) - before).cast_unsigned()
}

/// Runs a short row under each of the first `n`; bytes that the backend holds of all of them.
fn run<B: Backend>(session: &mut Session<B>, n: usize) -> usize {
    let row = Row::from(vec![0, 5, 6, 2]);
    let batch = Batch::by_row(vec![row; n], (0..n).map(|i| format!("rank{i}").parse().unwrap()).collect());
    let want = Want { embedding: true, ..Want::default() };
    assert_eq!(session.run(&batch, want, Precision::Exact).unwrap().len(), n);
    session.occupied().iter().map(|o| o.backend).sum()
}

#[test]
fn a_hundred_adapters() {
    let files = support::folder(&support::repository("models/multilingual-e5-small"));
    let mut session = support::session(&files, Cpu::new()).unwrap();
    let held = load(&mut session);
    println!("{ADAPTERS} adapters: {held} bytes in the session");
    assert!(held <= BUDGET, "{held} bytes");
    // What `explain` shows is what is there; names in a map are a little more.
    let shown: usize = session.occupied().iter().map(|o| o.session).sum();
    assert!(shown.abs_diff(held) <= held / 50, "{shown} bytes are shown, {held} are held");
    let before = session.backend().memory();
    assert_eq!(run(&mut session, 16), 0, "the CPU's kernels read the session's codes");
    assert_eq!(session.backend().memory(), before);
    drop(session);

    let mut session = support::session(&files, GpuBackend::open().unwrap()).unwrap();
    load(&mut session);
    let device = run(&mut session, ADAPTERS);
    println!("{device} bytes on the device");
    assert!(device <= BUDGET && device > ADAPTERS * 18_000, "{device} bytes on the device");
}
