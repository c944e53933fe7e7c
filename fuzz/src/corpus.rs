//! Inputs to begin with: the golden fixtures, the files of `tests/attacks`, and what the fuzzer found (`fuzz/corpus/`).

use polygraft::model::Fingerprint;
use polygraft::quant::codes::{Book, Group};
use polygraft::tasks::{Index, IndexEntry};
use polygraft_formats::packed::{Options, pack};
use polygraft_formats::{MemoryFiles, write_index};
use std::path::{Path, PathBuf};

/// Names of files in a folder, by their number in an input.
pub const NAMES: &[&str] = &[
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "adapter.safetensors",
    "pytorch_adapter.bin",
    "head_config.json",
    "model_head.safetensors",
    "pytorch_model_head.bin",
    "adapter_fusion_config.json",
    "model_adapter_fusion.safetensors",
    "pytorch_model_adapter_fusion.bin",
    "adapter_setup.json",
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "polygraft.json",
    "modules.json",
    "1_Pooling/config.json",
    "pytorch_diff.bin",
];
/// Stands for a number: the name itself follows, its length first. Set-ups have folders of any name.
pub const NAMED: u8 = 0xff;

/// A path from the repository's root.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A folder of the repository with the folders in it.
#[must_use]
pub fn folder(path: &str) -> MemoryFiles {
    let root = repository(path);
    let mut out = MemoryFiles::default();
    for file in files(&root) {
        if let (Ok(name), Ok(bytes)) = (file.strip_prefix(&root), std::fs::read(&file)) {
            out.0.insert(name.to_string_lossy().replace('\\', "/"), bytes);
        }
    }
    out
}

/// All files under `root`, sorted.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.path().is_dir() { out.extend(files(&entry.path())) } else { out.push(entry.path()) }
    }
    out.sort();
    out
}

fn contents(path: &str, wanted: impl Fn(&Path) -> bool) -> Vec<Vec<u8>> {
    let found = files(&repository(path)).into_iter().filter(|f| wanted(f));
    found.filter_map(|f| std::fs::read(f).ok()).filter(|b| b.len() <= 1 << 16).collect()
}

/// What the fuzzer found worth keeping for `target`.
#[must_use]
pub fn kept(target: &str) -> Vec<Vec<u8>> {
    contents(&format!("fuzz/corpus/{target}"), |_| true)
}

/// One input that holds a folder's files (see `unfold`).
fn fold(files: &MemoryFiles) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in &files.0 {
        match NAMES.iter().position(|n| n == name).and_then(|at| u8::try_from(at).ok()) {
            Some(number) => out.push(number),
            None if name.len() < 256 => {
                out.extend([NAMED, u8::try_from(name.len()).unwrap_or(0)]);
                out.extend(name.as_bytes());
            }
            None => continue,
        }
        out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(bytes);
    }
    out
}

/// Every folder under `path` that has a file called `marker`.
fn folders(path: &str, marker: &str) -> Vec<Vec<u8>> {
    let root = repository("");
    let homes = files(&repository(path)).into_iter().filter(|f| f.ends_with(marker));
    let homes = homes.filter_map(|f| Some(f.parent()?.strip_prefix(&root).ok()?.to_string_lossy().into_owned()));
    homes.map(|home| fold(&folder(&home))).filter(|input| input.len() <= 1 << 18).collect()
}

pub(crate) fn torch() -> Vec<Vec<u8>> {
    contents("tests/attacks/torch", |_| true)
}

pub(crate) fn safetensors() -> Vec<Vec<u8>> {
    contents("tests/golden/peft-lora", |f| f.extension().is_some_and(|e| e == "safetensors"))
}

pub(crate) fn adapters() -> Vec<Vec<u8>> {
    let mut out = folders("tests/golden/peft-lora", "adapter_config.json");
    out.extend(folders("tests/golden/hub", "adapter_config.json"));
    out.extend(folders("tests/golden/hub", "adapter_fusion_config.json"));
    out.extend(folders("tests/golden/hub/setup", "adapter_setup.json"));
    out.extend(folders("tests/golden/sparse", "adapter_config.json"));
    out.extend(folders("tests/golden/sparse", "pytorch_diff.bin"));
    // One case of each method of PEFT's.
    let root = repository("tests/golden/peft");
    for family in std::fs::read_dir(&root).into_iter().flatten().flatten() {
        let family = family.file_name();
        out.extend(
            folders(&format!("tests/golden/peft/{}", family.to_string_lossy()), "adapter_config.json")
                .into_iter()
                .take(2),
        );
    }
    out
}

pub(crate) fn bases() -> Vec<Vec<u8>> {
    let both = ["tests/golden/bases", "tests/golden/bases-pixels"].map(|root| folders(root, "config.json"));
    both.concat()
}

pub(crate) fn tokenizers() -> Vec<Vec<u8>> {
    contents("tests/golden", |f| f.ends_with("tokenizer.json"))
}

pub(crate) fn compositions() -> Vec<Vec<u8>> {
    let texts = [
        "base",
        "a",
        "stack(a, b:0.5)",
        "fuse(a, b)",
        "average(a:0.3, b:0.7)",
        "mix(a:-1, b:1e-3)",
        "sum(stack(a, b), c)",
        "split(a:3, b:*)",
        "split(a, b)",
    ];
    texts.map(|t| t.as_bytes().to_vec()).into()
}

pub(crate) fn indexes() -> Vec<Vec<u8>> {
    let entry = |name: &str, vectors| IndexEntry { compose: name.into(), backbone: String::new(), vectors };
    let index = Index {
        base: Fingerprint { name: "tiny".into(), lineage: None },
        width: 2,
        entries: vec![entry("base", 1), entry("stack(a, b)", 2)],
        vectors: vec![0.5; 6],
    };
    write_index(&index).into_iter().collect()
}

pub(crate) fn languages() -> Vec<Vec<u8>> {
    contents("adapters", |f| f.extension().is_some_and(|e| e == "safetensors"))
}

pub(crate) fn packed() -> Vec<Vec<u8>> {
    let Some(spec) = crate::spec() else { return Vec::new() };
    let mut out = Vec::new();
    for path in [
        "peft-lora/six_linears/adapter",
        "peft/shira/few/adapter",
        "hub/prefix/mlp/adapter",
        "hub/bottleneck/houlsby/adapter",
        "sparse/lt-sft/norms/adapters/l",
        "sparse/mask/all_linears/adapter",
    ] {
        for (bits, group) in [(1, Group::Tensor), (4, Group::Block(32)), (8, Group::Row), (16, Group::Tensor)] {
            let options = Options { bits, group, book: Book::Median, floats: bits == 8, heads: true };
            out.extend(pack(&folder(&format!("tests/golden/{path}")), spec, &options).map(|(bytes, _)| bytes));
        }
    }
    out
}
