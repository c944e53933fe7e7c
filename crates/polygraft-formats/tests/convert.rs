//! Every base of the fixtures, written as a converted model and read again: the same model under the library's names.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use polygraft::model::{ModelSpec, WeightId};
use polygraft::tensor::Matrix;
use polygraft_formats::base::write;
use polygraft_formats::container::safetensors::header_len;
use polygraft_formats::quantize::{self, Bits};
use polygraft_formats::{BaseLoader, BaseRows, Files, MemoryFiles};
use std::collections::BTreeMap;

fn read(files: &dyn Files) -> (ModelSpec, BTreeMap<WeightId, Matrix>) {
    let mut loader = BaseLoader::new(files).unwrap();
    let mut weights = BTreeMap::new();
    for shard in loader.shards().to_vec() {
        let len = files.len(&shard).unwrap();
        let head = header_len(&shard, &files.range(&shard, 0, len.min(64)).unwrap()).unwrap();
        for plan in loader.begin(&shard, &files.range(&shard, 0, head).unwrap(), len).unwrap() {
            let bytes = files.range(&shard, plan.offset, plan.bytes).unwrap();
            weights.extend(loader.tensor(&shard, plan.index, bytes).unwrap());
        }
    }
    (loader.finish().unwrap(), weights)
}

/// The whole of a weight in fewer bits, which `spec` is told.
fn narrower(spec: &mut ModelSpec, id: WeightId, matrix: Matrix, bits: Bits) -> Matrix {
    let scheme = quantize::target(spec, id, bits).unwrap();
    spec.weights[id.0 as usize].scheme = scheme;
    quantize::rows(&spec.weight(id).name, matrix, scheme).unwrap()
}

/// By the names that the file gives them.
fn named(spec: &ModelSpec, weights: &BTreeMap<WeightId, Matrix>) -> BTreeMap<String, Matrix> {
    weights.iter().map(|(id, m)| (spec.weight(*id).name.clone(), m.clone())).collect()
}

#[test]
fn every_base_is_the_same_after_conversion() {
    let mut folders: Vec<_> =
        std::fs::read_dir(support::repository("tests/golden/bases")).unwrap().flatten().map(|e| e.path()).collect();
    folders.sort();
    assert!(folders.len() > 20);
    for folder in folders {
        let files = support::folder(&folder);
        let (mut spec, mut weights) = read(&files);
        for (id, matrix) in &mut weights {
            *matrix = narrower(&mut spec, *id, matrix.clone(), Bits::Eight);
        }
        let mut written = MemoryFiles::default();
        let mut bytes = Vec::new();
        write::weights(&mut bytes, &spec, |id| weights.get(&id).cloned()).unwrap();
        written.0.insert(write::WEIGHTS.into(), bytes);
        written.0.insert(write::CONFIG.into(), write::config(&spec));
        let (again, converted) = read(&written);
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(named(&spec, &weights), named(&again, &converted), "{name}");
        assert_eq!(spec.fingerprint.lineage, again.fingerprint.lineage, "{name}");
        let shape = |s: &ModelSpec| {
            let sites = (s.linears.keys().copied().collect::<Vec<_>>(), s.norms.keys().copied().collect::<Vec<_>>());
            let sizes = (s.embedding, s.hidden, s.order.clone(), s.heads, s.ffn, s.max_positions, s.position_offset);
            let head = s.head.as_ref().map(|h| (h.key(), h.task));
            (s.arch, sites, sizes, s.eps.to_bits(), s.activation, head, s.head_kinds.clone(), s.pair)
        };
        assert_eq!(shape(&spec), shape(&again), "{name}");
    }
}

/// In 16, 8 and 4 bits: the bytes are those of whole matrices, whatever the runs of rows.
#[test]
fn row_by_row_gives_the_same_bytes() {
    let mut folders: Vec<_> =
        std::fs::read_dir(support::repository("tests/golden/bases")).unwrap().flatten().map(|e| e.path()).collect();
    folders.sort();
    for folder in folders {
        let files = support::folder(&folder);
        for bits in [Bits::Four, Bits::Eight, Bits::Sixteen] {
            let (mut spec, mut weights) = read(&files);
            for (id, matrix) in &mut weights {
                *matrix = narrower(&mut spec, *id, matrix.clone(), bits);
            }
            let mut whole = Vec::new();
            write::weights(&mut whole, &spec, |id| weights.remove(&id)).unwrap();
            let source = BaseRows::open(&files).unwrap();
            let mut rows_spec = source.spec().clone();
            for (weight, id) in rows_spec.weights.iter_mut().zip((0..).map(WeightId)) {
                weight.scheme = quantize::target(source.spec(), id, bits).unwrap();
            }
            assert_eq!(rows_spec.fingerprint, spec.fingerprint);
            for most in [1, 1000, 1 << 20] {
                let mut in_runs = Vec::new();
                let mut runs = 0;
                write::by_rows(&mut in_runs, &rows_spec, |id, put| {
                    source.each(id, most, &mut |rows| {
                        runs += 1;
                        let info = rows_spec.weight(id);
                        put(quantize::rows(&info.name, rows, info.scheme)?)
                    })
                })
                .unwrap();
                assert!(in_runs == whole, "{} in runs of {most} bytes", folder.display());
                assert!(most > 1000 || runs > spec.weights.len());
            }
        }
    }
}

/// What is converted is read in the same way and stays as it is; its codes cannot become others.
#[test]
fn converted_bases_are_read_in_rows_too() {
    let (mut spec, mut weights) = read(&support::folder(&support::repository("tests/golden/bases/bert")));
    for (id, matrix) in &mut weights {
        *matrix = narrower(&mut spec, *id, matrix.clone(), Bits::Eight);
    }
    let mut bytes = Vec::new();
    write::weights(&mut bytes, &spec, |id| weights.get(&id).cloned()).unwrap();
    let mut files = MemoryFiles::one(write::WEIGHTS, bytes.clone());
    files.0.insert(write::CONFIG.into(), write::config(&spec));
    let source = BaseRows::open(&files).unwrap();
    let mut again = Vec::new();
    write::by_rows(&mut again, source.spec(), |id, put| source.each(id, 100, put)).unwrap();
    assert!(again == bytes);
    let word = source.spec().embeddings.word;
    assert_eq!(quantize::target(source.spec(), word, Bits::Four).unwrap_err().code(), "UNSUPPORTED_FORMAT");
    // A number that is not finite is named by its place in the weight, not in the run.
    let name = "embeddings.word_embeddings.weight";
    let mut damaged = support::folder(&support::repository("tests/golden/bases/bert"));
    let data = damaged.0.get_mut("model.safetensors").unwrap();
    let head = header_len("f", data).unwrap() as usize;
    let header = polygraft_formats::container::Header::parse("f", &data[..head], None).unwrap();
    let info = header.tensors.iter().find(|t| t.name.ends_with(name)).unwrap();
    let at = info.offset as usize + 5 * info.shape[1] * 4;
    data[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let source = BaseRows::open(&damaged).unwrap();
    let told = source.each(source.spec().embeddings.word, 1, &mut |_| Ok(())).unwrap_err();
    assert!(
        matches!(told, polygraft_formats::FormatError::NotFinite { index, .. } if index == 5 * info.shape[1]),
        "{told}"
    );
}
