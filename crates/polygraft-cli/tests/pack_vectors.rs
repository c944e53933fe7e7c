//! Language vectors, packed: a file of their own kind goes into codes and comes back as one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn polygraft(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_polygraft")).args(args).output().unwrap()
}

fn done(args: &[&str]) {
    let out = polygraft(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A vector for queries and one for passages, as `center` without a pivot makes them.
fn write(path: &Path, vectors: &[(&str, &[f32])]) {
    let mut header = serde_json::json!({"__metadata__": {"polygraft":
        r#"{"format":1,"kind":"language-vector","lang":"hu","under":"rank","base":null,"lineage":null}"#}});
    let mut data = Vec::new();
    for (name, values) in vectors {
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        header[*name] =
            serde_json::json!({"dtype": "F32", "shape": [values.len()], "data_offsets": [start, data.len()]});
    }
    let header = header.to_string();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
}

fn read(path: &Path, name: &str) -> (Vec<f32>, String) {
    let bytes = std::fs::read(path).unwrap();
    let n = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    let at = |i: usize| 8 + n + header[name]["data_offsets"][i].as_u64().unwrap() as usize;
    let values = bytes[at(0)..at(1)].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (values, header["__metadata__"]["polygraft"].as_str().unwrap().to_owned())
}

#[test]
fn a_language_vector_is_packed_and_comes_back() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bases/bert").display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let path =
        |name: &str| -> (PathBuf, String) { (dir.path().join(name), dir.path().join(name).display().to_string()) };
    let vector: Vec<f32> = (0..32u8).map(|i| (f32::from(i) * 0.7).sin() * 0.1).collect();
    let query: Vec<f32> = (0..32u8).map(|i| (f32::from(i) * 1.3).cos() * 0.02).collect();
    let (file, source) = path("hu.safetensors");
    write(&file, &[("query", &query), ("vector", &vector)]);
    for bits in ["1", "2", "4", "8", "16"] {
        let packed = path(&format!("{bits}.packed")).1;
        let (folder_at, folder) = path(&format!("{bits}.folder"));
        done(&["pack", &source, &packed, "--base", &base, "--bits", bits]);
        // It loads, as an adapter of this base.
        done(&["explain", "--base", &base, "--adapter", &format!("v={packed}"), "--compose", "v"]);
        done(&["unpack", &packed, &folder]);
        let back = folder_at.join("language_vector.safetensors");
        for (name, values) in [("vector", &vector), ("query", &query)] {
            let (got, about) = read(&back, name);
            assert!(about.contains(r#""lang":"hu""#) && about.contains(r#""under":"rank""#), "{about}");
            let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let off = got.iter().zip(values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let allowed = match bits {
                "16" => largest * 1e-3,
                "8" => largest / 253.0,
                "4" => largest * 0.3,
                _ => largest,
            };
            assert!(got.len() == 32 && off <= allowed, "{name} at {bits} bits: off by {off}");
            let mut different = got.clone();
            different.sort_by(f32::total_cmp);
            different.dedup();
            assert!(bits != "1" || different.len() == 2, "{different:?}");
        }
        // What came back is a language vector that loads, and can be packed again.
        done(&[
            "pack",
            &back.display().to_string(),
            &path(&format!("{bits}.again")).1,
            "--base",
            &base,
            "--bits",
            bits,
        ]);
        assert!(!polygraft(&["pack", &packed, &source, "--base", &base, "--bits", bits, "--force"]).status.success());
    }
}
