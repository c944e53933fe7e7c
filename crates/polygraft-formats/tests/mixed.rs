//! Any composition for any row of one batch: adapters of every family that the libraries made, mixed at random, against
//! each row alone, bit for bit.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use polygraft::backend::{Backend, Precision};
use polygraft::batch::Row;
use polygraft::compose::Compose;
use polygraft::ir::Graft;
use polygraft::plan::Want;
use polygraft::reference::Reference;
use polygraft::session::{Batch, RowOutput, Session};
use polygraft_formats::{AdapterOptions, load_adapter};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const WANT: Want = Want { hidden: true, embedding: false, logits: true };
const BATCHES: u64 = 200;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

/// The adapters of every case on `base`, by name: where they are and how they are read.
fn adapters(base: &str) -> BTreeMap<String, (PathBuf, Value)> {
    fn walk(dir: &Path, base: &str, out: &mut BTreeMap<String, (PathBuf, Value)>) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        if let Ok(text) = std::fs::read(dir.join("request.json"))
            && !dir.join("error.txt").exists()
        {
            let request: Value = serde_json::from_slice(&text).unwrap();
            let is = request["base"].as_str().is_some_and(|b| b.ends_with(&format!("bases/{base}")));
            for (name, about) in request["adapters"].as_object().into_iter().flatten().filter(|_| is) {
                let path = about.as_str().or_else(|| about["path"].as_str()).unwrap();
                let key = format!("{}.{name}", dir.display()).replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                let key = key.rsplit_once("golden_").map_or(key.clone(), |(_, k)| k.to_owned());
                out.insert(key, (dir.join(path), about.clone()));
            }
        }
        entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).for_each(|d| walk(&d, base, out));
    }
    let mut out = BTreeMap::new();
    walk(&support::repository("tests/golden"), base, &mut out);
    out
}

/// A session with all of them, and the names of those that a row can run under by themselves.
fn session<B: Backend>(base: &str, backend: B) -> (Session<B>, Vec<String>, BTreeSet<String>) {
    let files = support::folder(&support::repository("tests/golden/bases").join(base));
    let mut session = support::session(&files, backend).unwrap();
    let (mut names, mut families) = (Vec::new(), BTreeSet::new());
    for (name, (path, about)) in adapters(base) {
        if !path.is_dir() {
            continue;
        }
        let options = about.as_object().map_or_else(AdapterOptions::default, |o| {
            let mut o = o.clone();
            o.remove("path");
            serde_json::from_value(Value::Object(o)).unwrap_or_default()
        });
        // What no version reads yet is pending elsewhere; here it is only not there.
        let Ok(adapter) = load_adapter(&support::folder(&path), session.spec(), &options) else { continue };
        let family = adapter.family;
        if session.graft(&name, adapter, Graft::default()).is_ok()
            && session.resolve(&name.parse::<Compose>().unwrap()).is_ok()
        {
            families.insert(family.to_owned());
            names.push(name);
        }
    }
    (session, names, families)
}

fn compose(names: &[String], random: &mut Random) -> Compose {
    let mut name = || names[random.below(names.len())].clone();
    let (a, b, c) = (name(), name(), name());
    let text = match random.below(12) {
        0 => "base".into(),
        1 | 2 => format!("stack({a}, {b})"),
        3 => format!("stack({a}, {b}, {c})"),
        4 => format!("mix({a}:0.3, {b}:0.7)"),
        5 => format!("average({a}, {b})"),
        6 => format!("split({a}:2, {b}:*)"),
        7 => format!("stack({a}, average({b}, {c}))"),
        8 => format!("{a}:0.5"),
        _ => a,
    };
    text.parse().unwrap()
}

fn bits(output: &RowOutput) -> (Vec<u32>, Vec<u32>) {
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect();
    let logits = output.logits.as_ref().map(|l| bits(&l.values)).unwrap_or_default();
    (output.hidden.as_deref().map(bits).unwrap_or_default(), logits)
}

fn check<B: Backend>(base: &str, backend: B, batches: u64) {
    let (mut s, names, families) = session(base, backend);
    assert!(names.len() > 20 && families.len() > 1, "{} adapters of {families:?}", names.len());
    let (mut mixed, mut kinds) = (0, BTreeSet::new());
    for seed in 0..batches {
        let mut random = Random(seed);
        let (mut rows, mut composes) = (Vec::new(), Vec::new());
        while rows.len() < 3 + seed as usize % 5 {
            let row = Row::from((0..3 + random.below(9)).map(|_| random.below(100) as u32).collect::<Vec<_>>());
            let compose = compose(&names, &mut random);
            // Some compositions have no meaning, and are refused one at a time as in a batch.
            let alone = Batch::uniform(vec![row.clone()], compose.clone());
            if s.prepare(&alone, WANT, Precision::Exact).is_ok() {
                kinds.insert(compose.to_string().split('(').next().unwrap().to_owned());
                rows.push(row);
                composes.push(compose);
            }
        }
        let batch = Batch::by_row(rows.clone(), composes.clone());
        let together = s.run(&batch, WANT, Precision::Exact).unwrap();
        for (i, (row, compose)) in rows.into_iter().zip(composes).enumerate() {
            let text = compose.to_string();
            let alone = s.run(&Batch::uniform(vec![row], compose), WANT, Precision::Exact).unwrap().remove(0);
            assert!(bits(&alone) == bits(&together[i]), "batch {seed}, row {i} under {text} is another than alone");
            mixed += 1;
        }
    }
    assert!(mixed > 600 || batches < 200, "{mixed} rows");
    for kind in ["stack", "mix"] {
        assert!(kinds.contains(kind), "{kind} never had a meaning");
    }
}

#[test]
fn mixed_batches_on_the_reference() {
    check("bert", Reference::new(), BATCHES);
}

#[test]
fn mixed_batches_on_the_cpu() {
    check("bert", polygraft_cpu::Cpu::new(), BATCHES);
}
