//! The same targets led by coverage, through libFuzzer. `cargo fuzz` is not needed, nor a nightly compiler:
//!
//! ```text
//! RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
//!   -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions" \
//!   cargo build -p polygraft-fuzz --release --features guided --bin guided --target x86_64-unknown-linux-gnu
//! POLYGRAFT_TARGET=torch target/x86_64-unknown-linux-gnu/release/guided -max_total_time=3600 WORK fuzz/corpus/torch
//! ```
//!
//! New inputs go to the folder WORK; `POLYGRAFT_SEEDS=WORK` writes the target's seeds there first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polygraft_fuzz::{TARGETS, Target, target};
use std::sync::OnceLock;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(init: {
    let name = std::env::var("POLYGRAFT_TARGET").unwrap_or_default();
    let chosen = target(&name).unwrap_or(&TARGETS[0]);
    if let Ok(folder) = std::env::var("POLYGRAFT_SEEDS") {
        for (i, seed) in (chosen.seeds)().iter().enumerate() {
            // A seed that cannot be written is only missing from the start.
            let _ = std::fs::write(format!("{folder}/seed-{i}"), seed);
        }
    }
    let _ = TARGET.set(chosen);
}, |data: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(data);
    }
});
