//! Damaged files: any byte changed, any length cut; the answer is a result or an error, never a panic, and never an
//! allocation that the file's own size does not justify.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use polygraft::reference::Reference;
use polygraft_formats::{AdapterOptions, MemoryFiles, load_adapter};
use proptest::prelude::*;
use std::sync::OnceLock;

fn base() -> &'static MemoryFiles {
    static BASE: OnceLock<MemoryFiles> = OnceLock::new();
    BASE.get_or_init(|| support::folder(&support::repository("tests/golden/bases/bert_small")))
}

fn adapter() -> &'static MemoryFiles {
    static ADAPTER: OnceLock<MemoryFiles> = OnceLock::new();
    ADAPTER.get_or_init(|| support::folder(&support::repository("tests/golden/peft-lora/six_linears/adapter")))
}

fn damage(files: &MemoryFiles, file: usize, at: usize, byte: u8, cut: Option<usize>) -> MemoryFiles {
    let mut out = files.clone();
    let n = out.0.len();
    let bytes = out.0.values_mut().nth(file % n).unwrap();
    if !bytes.is_empty() {
        // Most of the interest is in the first bytes: lengths, headers, settings.
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Some(cut) = cut {
            bytes.truncate(cut % (bytes.len() + 1));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn damaged_bases_never_panic(file in 0usize..4, at in prop_oneof![0usize..4096, any::<usize>()], byte: u8, cut in prop::option::weighted(0.2, any::<usize>())) {
        let files = damage(base(), file, at, byte, cut);
        if let Err(e) = support::session(&files, Reference::new()) {
            prop_assert!(!e.code().is_empty() && e.to_string().len() < 4096);
        }
    }

    #[test]
    fn damaged_adapters_never_panic(file in 0usize..4, at in prop_oneof![0usize..4096, any::<usize>()], byte: u8, cut in prop::option::weighted(0.2, any::<usize>())) {
        static SPEC: OnceLock<polygraft::model::ModelSpec> = OnceLock::new();
        let spec = SPEC.get_or_init(|| {
            let base = support::folder(&support::repository("tests/golden/bases/bert"));
            support::session(&base, Reference::new()).unwrap().spec().clone()
        });
        let files = damage(adapter(), file, at, byte, cut);
        if let Err(e) = load_adapter(&files, spec, &AdapterOptions::default()) {
            prop_assert!(!e.code().is_empty() && e.to_string().len() < 4096);
        }
    }
}
