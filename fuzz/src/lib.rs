//! Targets: each parser of what comes from strangers as a plain function of bytes, which must return, soon, without a
//! panic. `src/main.rs` feeds them with mutations of the corpus, `fuzz_targets/guided.rs` is led by coverage, and
//! `tests/corpus.rs` replays the corpus and every find on each `cargo test`.
#![forbid(unsafe_code)]

pub mod corpus;
pub mod mutate;

use polygraft::compose::Compose;
use polygraft::model::ModelSpec;
use polygraft_formats::bag::TensorBag;
use polygraft_formats::container::safetensors::header_len;
use polygraft_formats::{AdapterOptions, BaseLoader, Files, FormatError, MemoryFiles, Tokenizer, load_adapter};
use std::sync::OnceLock;

/// A parser under test.
pub struct Target {
    /// What the command line calls it.
    pub name: &'static str,
    /// Runs it; what came of it, in words: outcomes that were not seen before are worth mutating further.
    pub run: fn(&[u8]) -> String,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "torch", run: bag, seeds: corpus::torch },
    Target { name: "safetensors", run: bag, seeds: corpus::safetensors },
    Target { name: "adapter", run: adapter, seeds: corpus::adapters },
    Target { name: "base", run: base, seeds: corpus::bases },
    Target { name: "tokenizer", run: tokenizer, seeds: corpus::tokenizers },
    Target { name: "compose", run: compose, seeds: corpus::compositions },
    Target { name: "index", run: index, seeds: corpus::indexes },
    Target { name: "language", run: language, seeds: corpus::languages },
    Target { name: "packed", run: packed, seeds: corpus::packed },
];

/// The target called `name`.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

fn outcome<T>(result: Result<T, FormatError>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(e) => format!("{}: {e}", e.code()),
    }
}

/// A file of tensors of either container: opened, and everything in it taken.
fn bag(data: &[u8]) -> String {
    let mut bag = match TensorBag::open("f", data.to_vec()) {
        Ok(bag) => bag,
        Err(e) => return outcome::<()>(Err(e)),
    };
    let names: Vec<String> = bag.names().map(str::to_owned).collect();
    let mut said = format!("{} tensors", names.len());
    for name in names {
        let shape = bag.shape(&name).unwrap_or_default().to_vec();
        let mut twin = bag.clone();
        said.push_str(&outcome(twin.take_ints(&name, &shape)));
        said.push_str(&outcome(bag.take(&name, &shape)));
    }
    said
}

/// Several files in one input: for each the number of its name, or [`corpus::NAMED`] and the name itself, then a length and
/// that many bytes, as far as there are any.
fn unfold(mut data: &[u8]) -> MemoryFiles {
    let mut out = MemoryFiles::default();
    while let Some((&number, rest)) = data.split_first() {
        let (name, rest) = match (number, rest.split_first()) {
            (corpus::NAMED, Some((&len, rest))) => {
                let (name, rest) = rest.split_at(usize::from(len).min(rest.len()));
                (String::from_utf8_lossy(name).into_owned(), rest)
            }
            _ => (corpus::NAMES.get(usize::from(number)).copied().unwrap_or("stray").to_owned(), rest),
        };
        let Some((len, rest)) = rest.split_first_chunk::<4>() else { break };
        let (body, rest) = rest.split_at((u32::from_le_bytes(*len) as usize).min(rest.len()));
        out.0.insert(name, body.to_vec());
        data = rest;
    }
    out
}

/// An adapter's folder, read for a small BERT.
fn adapter(data: &[u8]) -> String {
    let Some(spec) = spec() else { return "no base".into() };
    let files = unfold(data);
    let strict = outcome(polygraft_formats::load(&files, spec, &AdapterOptions::default()));
    let lenient = AdapterOptions { strict: false, ..AdapterOptions::default() };
    strict + &outcome(load_adapter(&files, spec, &lenient))
}

/// The base that adapters are read for.
pub(crate) fn spec() -> Option<&'static ModelSpec> {
    static SPEC: OnceLock<Option<ModelSpec>> = OnceLock::new();
    SPEC.get_or_init(|| load(&corpus::folder("tests/golden/bases/bert")).ok()).as_ref()
}

/// A packed adapter: read as an adapter, listed, and unpacked.
fn packed(data: &[u8]) -> String {
    let Some(spec) = spec() else { return "no base".into() };
    let read = load_adapter(&MemoryFiles::one("f", data.to_vec()), spec, &AdapterOptions::default());
    let listed = polygraft_formats::packed::contents_of("f", data);
    outcome(read) + &outcome(listed) + &outcome(polygraft_formats::packed::unpack("f", data))
}

/// A base model's folder, without a backend to give the weights to.
fn base(data: &[u8]) -> String {
    outcome(load(&unfold(data)))
}

fn load(files: &MemoryFiles) -> Result<ModelSpec, FormatError> {
    let mut loader = BaseLoader::new(files)?;
    for shard in loader.shards().to_vec() {
        let len = files.len(&shard)?;
        let head = header_len(&shard, &files.range(&shard, 0, len.min(64))?)?;
        let header = files.range(&shard, 0, head.min(len))?;
        for plan in loader.begin(&shard, &header, len)? {
            let bytes = files.range(&shard, plan.offset, plan.bytes)?;
            loader.tensor(&shard, plan.index, bytes)?;
        }
    }
    loader.finish()
}

/// A `tokenizer.json`, and a text through it.
fn tokenizer(data: &[u8]) -> String {
    let files = MemoryFiles::one("tokenizer.json", data.to_vec());
    match Tokenizer::load(&files, 1 << 20) {
        Err(e) => outcome::<()>(Err(e)),
        Ok(tokenizer) => {
            use polygraft::text::Tokenizer as _;
            let texts = ["", "Hello, wörld 123", "\u{0}\u{fffd} naïve ﬁ 日本", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"];
            texts.map(|t| if tokenizer.encode(t).is_ok() { "y" } else { "n" }).concat()
        }
    }
}

/// A composition's text.
fn compose(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    match text.parse::<Compose>() {
        Err(e) => format!("{}: {e}", e.code()),
        Ok(compose) => {
            // What is printed reads back as the same.
            let printed = compose.to_string();
            assert_eq!(printed.parse::<Compose>().as_ref(), Ok(&compose), "{printed:?} of {text:?}");
            "ok".into()
        }
    }
}

fn index(data: &[u8]) -> String {
    outcome(polygraft_formats::read_index("f", data.to_vec()))
}

fn language(data: &[u8]) -> String {
    outcome(polygraft_formats::language::load("f", data.to_vec()))
}
