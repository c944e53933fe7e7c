//! What the training recipe multiplies with (`training/quantize.py`, fixture by `tests/golden/trained.py`) is what `pack` makes
//! of the matrices behind it, bit for bit: a packed file is the adapter that was trained.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The tensors of a safetensors file of f32.
fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let n = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    let read = |of: &serde_json::Value| {
        assert_eq!(of["dtype"], "F32");
        let at = |i: usize| 8 + n + of["data_offsets"][i].as_u64().unwrap() as usize;
        bytes[at(0)..at(1)].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    header.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, of)| (name.clone(), read(of))).collect()
}

#[test]
fn packing_gives_the_numbers_that_were_trained() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let trained = tensors(&golden.join("trained/values.safetensors"));
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for bits in ["1", "2", "4"] {
        for per in ["tensor", "row", "32"] {
            for levels in ["median", "least-squares"] {
                let name = format!("{bits}-{per}-{levels}");
                let (packed, folder) = (dir.path().join(&name), dir.path().join(format!("{name}.folder")));
                let mut pack = Command::new(env!("CARGO_BIN_EXE_polygraft"));
                pack.arg("pack").arg(golden.join("trained/latent")).arg(&packed).arg("--base");
                pack.arg(golden.join("bases/bert")).args(["--bits", bits, "--per", per, "--levels", levels]);
                assert!(pack.output().unwrap().status.success(), "{name}");
                let mut unpack = Command::new(env!("CARGO_BIN_EXE_polygraft"));
                assert!(unpack.arg("unpack").arg(&packed).arg(&folder).output().unwrap().status.success(), "{name}");
                for (tensor, values) in tensors(&folder.join("adapter_model.safetensors")) {
                    let wanted = &trained[&format!("{bits}/{per}/{levels}/{tensor}")];
                    assert_eq!(values.len(), wanted.len(), "{name} {tensor}");
                    let off = values.iter().zip(wanted).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                    assert_eq!(off, 0, "{name} {tensor}: {off} of {} numbers differ", values.len());
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, trained.len());
}
