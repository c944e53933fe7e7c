//! Golden fixtures made by the real Python libraries, through `polygraft forward`, on every backend.
//!
//! A case is a folder under `tests/golden/` with `request.json` and `expected.safetensors` (or, under `bad/`,
//! `error.txt` with what the message must say). One row of the table below a backend; the tolerance is the issue's.
//!
//! `tests/golden/pending.txt` names cases, or groups of them, that are made and not yet supported, a path a line, after
//! a backend and a colon when only that backend lacks them. A pending case must fail: one that passes has to leave the
//! list.

#![allow(clippy::unwrap_used, reason = "tests")]

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Backend, precision, largest absolute difference allowed.
const RUNS: [(&str, &str, f32); 3] = [("reference", "exact", 2e-4), ("cpu", "exact", 5e-4), ("gpu", "exact", 5e-4)];

fn main() {
    let args = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut cases = Vec::new();
    find(&root, &mut cases);
    assert!(cases.len() > 20, "the fixtures are missing: found {} cases under {}", cases.len(), root.display());
    let pending = std::fs::read_to_string(root.join("pending.txt")).unwrap_or_default();
    let pending: Vec<(Option<&str>, &Path)> = pending
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(|l| l.split_once(':').map_or((None, Path::new(l)), |(backend, path)| (Some(backend), Path::new(path))))
        .collect();
    let mut trials = Vec::new();
    for case in cases {
        let path = case.strip_prefix(&root).unwrap();
        let name = path.display().to_string();
        for (backend, precision, tolerance) in RUNS {
            let waits = pending.iter().any(|(of, p)| of.is_none_or(|of| of == backend) && path.starts_with(p));
            let case = case.clone();
            trials.push(Trial::test(format!("{backend}/{name}"), move || {
                let done = run(&case, backend, precision, tolerance);
                match (waits, done) {
                    (false, done) => done,
                    (true, Err(_)) => Ok(()),
                    (true, Ok(())) => Err("it passes: take it out of tests/golden/pending.txt".into()),
                }
            }));
        }
    }
    libtest_mimic::run(&args, trials).exit();
}

fn find(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    if dir.join("request.json").is_file() {
        out.push(dir.to_owned());
    }
    let mut dirs: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    dirs.sort();
    dirs.iter().for_each(|d| find(d, out));
}

fn run(case: &Path, backend: &str, precision: &str, tolerance: f32) -> Result<(), Failed> {
    let request: Value = serde_json::from_slice(&std::fs::read(case.join("request.json"))?)?;
    let base = case.join(request["base"].as_str().unwrap_or_default());
    if !base.exists() && base.components().any(|c| c.as_os_str() == "models") {
        eprintln!("{}: {} is not there; `npm start` makes it", case.display(), base.display());
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("out.safetensors");
    let done = Command::new(env!("CARGO_BIN_EXE_polygraft"))
        .args(["forward", "--backend", backend, "--precision", precision, "--request"])
        .arg(case.join("request.json"))
        .arg("--output")
        .arg(&out)
        .output()?;
    let stderr = String::from_utf8_lossy(&done.stderr);
    if let Ok(wanted) = std::fs::read_to_string(case.join("error.txt")) {
        let wanted = wanted.trim();
        if done.status.code() != Some(1) || !stderr.contains(wanted) || out.exists() {
            return Err(format!("status {:?}, wanted 1 and {wanted:?} in: {stderr}", done.status.code()).into());
        }
        return Ok(());
    }
    if !done.status.success() {
        return Err(format!("status {:?}: {stderr}", done.status.code()).into());
    }
    let (got, want) = (read(&out)?, read(&case.join("expected.safetensors"))?);
    let names = |m: &BTreeMap<String, Tensor>| m.keys().cloned().collect::<Vec<_>>();
    if names(&got) != names(&want) {
        return Err(format!("outputs {:?}, wanted {:?}", names(&got), names(&want)).into());
    }
    for (name, (shape, values)) in &want {
        let (got_shape, got_values) = &got[name];
        if got_shape != shape {
            return Err(format!("{name}: shape {got_shape:?}, wanted {shape:?}").into());
        }
        let worst = values.iter().zip(got_values).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        if worst.is_nan() || worst > tolerance {
            return Err(format!("{name}: off by {worst:e}, allowed {tolerance:e}").into());
        }
    }
    Ok(())
}

type Tensor = (Vec<u64>, Vec<f32>);

/// The smallest reader there can be, on purpose not the one under test.
fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, Failed> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let n = u64::from_le_bytes(bytes[..8].try_into()?) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + n])?;
    let data = &bytes[8 + n..];
    let mut out = BTreeMap::new();
    for (name, info) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        if info["dtype"] != "F32" {
            return Err(format!("{name}: dtype {}", info["dtype"]).into());
        }
        let at = |i: usize| info["data_offsets"][i].as_u64().unwrap_or(0) as usize;
        let values = data[at(0)..at(1)].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        out.insert(name, (serde_json::from_value(info["shape"].clone())?, values));
    }
    Ok(out)
}
