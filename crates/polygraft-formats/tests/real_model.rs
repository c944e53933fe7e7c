//! The real base: its tokenizer against Python's on a hundred texts in many scripts, its embeddings against PyTorch's.
//!
//! Needs `models/multilingual-e5-small`, which `npm test` makes first; without it these tests fail and say so.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use polygraft::backend::{Backend, Precision};
use polygraft::ir::Graft;
use polygraft::model::ModelSpec;
use polygraft::plan::Want;
use polygraft::reference::Reference;
use polygraft::session::Batch;
use polygraft::{Compose, text};
use polygraft_cpu::Cpu;
use polygraft_formats::{AdapterOptions, MemoryFiles, Tokenizer, load_adapter};
use polygraft_gpu::{GpuBackend, Rounded};
use std::fs;

fn model() -> MemoryFiles {
    let path = support::repository("models/multilingual-e5-small");
    assert!(path.exists(), "{} is missing: run `npm start -- --no-serve` once", path.display());
    support::folder(&path)
}

fn reference(file: &str) -> Vec<u8> {
    fs::read(support::repository("tests/collections/reference").join(file)).unwrap()
}

fn texts() -> Vec<String> {
    serde_json::from_slice(&reference("texts.json")).unwrap()
}

/// Rows as the library cuts them, and the vocabulary's tokenizer.
fn rows(spec: &ModelSpec, tokenizer: &Tokenizer, limit: usize) -> Vec<polygraft::batch::Row> {
    texts().iter().map(|t| text::single(spec, tokenizer, t, limit).unwrap().row).collect()
}

fn embeddings<B: Backend>(backend: B, precision: Precision) -> Vec<f32> {
    cosines(backend, precision, None, "embeddings.safetensors")
}

/// Cosines of our embeddings with the ones in `file`, under the adapter at `place`, a folder or a file, where one is given.
fn cosines<B: Backend>(backend: B, precision: Precision, place: Option<&str>, file: &str) -> Vec<f32> {
    let files = model();
    let mut session = support::session(&files, backend).unwrap();
    let tokenizer = Tokenizer::load(&files, session.spec().vocab).unwrap();
    let rows = rows(session.spec(), &tokenizer, session.spec().max_tokens());
    let mut compose = Compose::Base;
    if let Some(place) = place {
        let path = support::repository(place);
        let files = if path.is_file() {
            MemoryFiles([(place.to_owned(), fs::read(path).unwrap())].into())
        } else {
            support::folder(&path)
        };
        let adapter = load_adapter(&files, session.spec(), &AdapterOptions::default()).unwrap();
        session.graft("rank", adapter, Graft::default()).unwrap();
        compose = "rank".parse().unwrap();
    }
    let expected = reference(file);
    let header = u64::from_le_bytes(*expected.first_chunk().unwrap()) as usize;
    let expected: Vec<f32> = expected[8 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let width = session.spec().embedding_width();
    let want = Want { embedding: true, ..Want::default() };
    let mut cosines = Vec::new();
    for (rows, expected) in rows.chunks(10).zip(expected.chunks(10 * width)) {
        let out = session.run(&Batch::uniform(rows.to_vec(), compose.clone()), want, precision).unwrap();
        for (got, want) in out.iter().zip(expected.chunks(width)) {
            cosines.push(got.embedding.as_ref().unwrap().iter().zip(want).map(|(a, b)| a * b).sum());
        }
    }
    assert_eq!(cosines.len(), 100);
    cosines
}

fn worst(cosines: &[f32]) -> f32 {
    cosines.iter().copied().fold(1.0, f32::min)
}

#[test]
fn tokens_are_pythons() {
    let files = model();
    let session = support::session(&files, Reference::new()).unwrap();
    let tokenizer = Tokenizer::load(&files, session.spec().vocab).unwrap();
    let want: Vec<Vec<u32>> = serde_json::from_slice(&reference("tokens.json")).unwrap();
    let got = rows(session.spec(), &tokenizer, usize::MAX);
    assert_eq!(got.len(), want.len());
    for ((got, want), text) in got.iter().zip(&want).zip(texts()) {
        assert_eq!(&got.ids, want, "{text:?}");
    }
}

#[test]
fn reference_embeddings_are_pytorchs() {
    let worst = worst(&embeddings(Reference::new(), Precision::Exact));
    assert!(worst >= 0.99999, "{worst}");
}

#[test]
fn cpu_exact_embeddings_are_pytorchs() {
    let worst = worst(&embeddings(Cpu::new(), Precision::Exact));
    assert!(worst >= 0.99999, "{worst}");
}

/// On whatever device this machine has, Mesa's software one in continuous integration.
#[test]
fn gpu_embeddings_are_pytorchs() {
    let exact = embeddings(GpuBackend::open().unwrap(), Precision::Exact);
    assert!(worst(&exact) >= 0.9999, "{}", worst(&exact));
    for (how, least) in [(Rounded::Bytes, 0.998), (Rounded::Half, 0.9999)] {
        let mut rounding = GpuBackend::open().unwrap();
        assert!(rounding.gpu_mut().round(how), "{how:?}: lavapipe has it");
        let fast = embeddings(rounding, Precision::Fast);
        assert!(worst(&fast) >= least, "{how:?}: {}", worst(&fast));
        assert!(fast != exact, "{how:?}: nothing is rounded");
    }
}

#[test]
fn embeddings_under_the_lora_are_pytorchs() {
    let all = cosines(Cpu::new(), Precision::Exact, Some("adapters/rank-lora"), "rank.safetensors");
    assert!(worst(&all) >= 0.99999, "{}", worst(&all));
}

/// The packed file of one bit against `peft` on what `unpack` makes of it.
#[test]
fn embeddings_under_the_twin_of_one_bit_are_pytorchs() {
    let all = cosines(
        Cpu::new(),
        Precision::Exact,
        Some("adapters/rank-lora-1bit/rank-lora-1bit.safetensors"),
        "rank1.safetensors",
    );
    assert!(worst(&all) >= 0.99999, "{}", worst(&all));
}

#[test]
fn cpu_fast_embeddings_are_close() {
    let cosines = embeddings(Cpu::new(), Precision::Fast);
    let mean = cosines.iter().sum::<f32>() / 100.0;
    assert!(worst(&cosines) >= 0.999 && mean >= 0.9999, "worst {}, mean {mean}", worst(&cosines));
}
