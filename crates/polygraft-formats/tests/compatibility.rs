//! `docs/compatibility.md` is what the tables that the readers dispatch on say, and how many fixtures prove it.
//!
//! `POLYGRAFT_WRITE=1 cargo test -p polygraft-formats --test compatibility` writes it anew.

#![allow(clippy::unwrap_used, reason = "tests")]

use polygraft_formats::{base, hub, peft, sparse};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[test]
fn the_page_is_what_the_tables_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = root.join("docs/compatibility.md");
    let text = document(&Cases::under(&root.join("tests/golden")));
    if std::env::var_os("POLYGRAFT_WRITE").is_some() {
        std::fs::write(&page, &text).unwrap();
    }
    let there = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        there == text,
        "docs/compatibility.md is stale: POLYGRAFT_WRITE=1 cargo test -p polygraft-formats --test compatibility"
    );
    for family in peft::FAMILIES.iter().filter(|f| f.refusal().is_none()) {
        assert!(text.contains(&format!("`{}`", family.peft_type)));
    }
}

/// How many golden cases prove what; what is listed as pending does not count.
#[derive(Default)]
struct Cases {
    peft: BTreeMap<String, usize>,
    hub: BTreeMap<&'static str, usize>,
    bases: BTreeMap<String, usize>,
    sparse: usize,
}

impl Cases {
    fn under(golden: &Path) -> Self {
        let pending = std::fs::read_to_string(golden.join("pending.txt")).unwrap_or_default();
        let pending: Vec<PathBuf> = pending
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .map(|l| golden.join(l.split_once(':').map_or(l, |(_, path)| path)))
            .collect();
        let mut cases = Vec::new();
        folders(golden, "request.json", &mut cases);
        assert!(cases.len() > 500, "the fixtures are missing: {} cases", cases.len());
        let mut out = Self::default();
        for case in cases.iter().filter(|c| !pending.iter().any(|p| c.starts_with(p))) {
            out.count(case);
        }
        out
    }

    fn count(&mut self, case: &Path) {
        let request: Value = serde_json::from_slice(&std::fs::read(case.join("request.json")).unwrap()).unwrap();
        let base = case.join(request["base"].as_str().unwrap_or_default());
        if let Some(kind) = json(&base.join("config.json")).as_ref().and_then(|c| c["model_type"].as_str()) {
            *self.bases.entry(kind.to_owned()).or_default() += 1;
        }
        let (mut of_peft, mut of_hub) = (BTreeSet::new(), BTreeSet::new());
        for adapter in request["adapters"].as_object().into_iter().flat_map(|a| a.values()) {
            let Some(path) = adapter.as_str().or_else(|| adapter["path"].as_str()) else { continue };
            self.sparse += usize::from(case.join(path).join(sparse::FILE).is_file());
            let mut configs = Vec::new();
            folders(&case.join(path), "adapter_config.json", &mut configs);
            for folder in configs {
                let bytes = std::fs::read(folder.join("adapter_config.json")).unwrap();
                match serde_json::from_slice::<Value>(&bytes)
                    .ok()
                    .and_then(|c| c["peft_type"].as_str().map(str::to_owned))
                {
                    Some(kind) => drop(of_peft.insert(kind)),
                    None => of_hub.extend(hub::methods(&bytes).into_iter().flatten().map(|f| f.name)),
                }
            }
        }
        of_peft.into_iter().for_each(|kind| *self.peft.entry(kind).or_default() += 1);
        of_hub.into_iter().for_each(|name| *self.hub.entry(name).or_default() += 1);
    }
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The folders at or below `dir` that have `file`.
fn folders(dir: &Path, file: &str, out: &mut Vec<PathBuf>) {
    if dir.join(file).is_file() {
        out.push(dir.to_owned());
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()) {
        folders(&entry, file, out);
    }
}

fn document(cases: &Cases) -> String {
    let mut out = String::from(
        "# Compatibility\n\n\
         <!-- Written by `POLYGRAFT_WRITE=1 cargo test -p polygraft-formats --test compatibility`; the test fails when it is stale. -->\n\n\
         What this version reads, as its readers' own tables say. *Becomes* is what runs (the table of ops in\n\
         [ARCHITECTURE.md](../ARCHITECTURE.md)); *merges* is whether `polygraft merge` can fold it into the base; *cases* counts\n\
         the folders under `tests/golden/`, made by the real library, that every backend runs or refuses as the library's\n\
         numbers say. Every entry of a configuration that is not named here, or that is refused, is an error when it says\n\
         something.\n",
    );
    bases(&mut out, cases);
    peft_methods(&mut out, cases);
    hub_methods(&mut out, cases);
    sparse_methods(&mut out, cases);
    out
}

fn bases(out: &mut String, cases: &Cases) {
    let _ = write!(out, "\n## Bases\n\n| `model_type` | classes | heads | cases |\n|---|---|---|--:|\n");
    for row in base::families() {
        let count: usize = row.model_types.iter().filter_map(|t| cases.bases.get(*t)).sum();
        let heads: Vec<&str> = row.heads.iter().map(|h| h.name()).collect();
        let _ = writeln!(out, "| {} | `{}…` | {} | {count} |", code(row.model_types), row.class, heads.join(", "));
    }
}

fn peft_methods(out: &mut String, cases: &Cases) {
    let (refused, read): (Vec<_>, Vec<_>) = peft::FAMILIES.iter().partition(|f| f.refusal().is_some());
    let _ = write!(
        out,
        "\n## PEFT 0.5 to 0.21\n\n{} methods. Every one takes {}; without effect on the result are {}.\n\n\
         | method | `peft_type` | becomes | merges | task id | cases |\n|---|---|---|---|---|--:|\n",
        read.len(),
        code(peft::READ),
        code(peft::SILENT)
    );
    for f in &read {
        let count = cases.peft.get(f.peft_type).copied().unwrap_or(0);
        // No PEFT of today writes Bone; its reader is MiSS's.
        assert!(count > 0 || f.peft_type == "BONE", "no fixture has {}", f.peft_type);
        let _ = writeln!(
            out,
            "| {} | `{}` | {} | {} | {} | {count} |",
            f.paper,
            f.peft_type,
            f.ops,
            yes(f.merges),
            yes(f.task)
        );
    }
    let _ = write!(
        out,
        "\n### Entries by method\n\n| `peft_type` | read | without effect | refused |\n|---|---|---|---|\n"
    );
    for f in &read {
        let refuses: Vec<String> = f.refuses.iter().map(|(key, why)| format!("`{key}`: {why}")).collect();
        let _ =
            writeln!(out, "| `{}` | {} | {} | {} |", f.peft_type, code(f.reads), code(f.silent), refuses.join("; "));
    }
    let _ = write!(out, "\n### Methods that cannot be read\n\n| `peft_type` | why |\n|---|---|\n");
    for f in refused {
        let _ = writeln!(out, "| `{}` | {} |", f.peft_type, f.refusal().unwrap_or_default());
    }
}

fn hub_methods(out: &mut String, cases: &Cases) {
    let _ = write!(
        out,
        "\n## AdapterHub: `adapters` 1.3, `adapter-transformers` 1 to 3\n\n\
         Any union of these, heads, fusion layers, set-ups, and words of their own (`embedding.pt`); `.safetensors`, and `.bin` of both of torch's containers.\n\n\
         | method | `architecture` | becomes | merges | read | without effect | cases |\n|---|---|---|---|---|---|--:|\n"
    );
    for f in hub::FAMILIES {
        let count = cases.hub.get(f.name).copied().unwrap_or(0);
        assert!(count > 0, "no fixture has {}", f.name);
        let mode = f.mode.map(|(key, value)| format!(", `{key}`: `{value}`")).unwrap_or_default();
        let _ = writeln!(
            out,
            "| {}: {} | {}{mode} | {} | {} | {} | {} | {count} |",
            f.name,
            f.paper,
            f.architecture.map_or("–".into(), |a| format!("`{a}`")),
            f.ops,
            yes(f.merges),
            code(f.reads),
            code(f.silent)
        );
    }
}

fn sparse_methods(out: &mut String, cases: &Cases) {
    let f = sparse::FAMILY;
    assert!(cases.sparse > 0, "no fixture has {}", f.name);
    let _ = write!(
        out,
        "\n## Sparse fine-tunings: composable-sft\n\n| method | file | becomes | merges | files |\n|---|---|---|---|--:|\n\
         | {} | `{}` | {} | {} | {} |\n",
        f.paper,
        sparse::FILE,
        f.ops,
        yes(f.merges),
        cases.sparse
    );
}

fn code(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

fn yes(x: bool) -> &'static str {
    if x { "yes" } else { "" }
}
