//! Every base of the fixtures, written as a converted model and read again: the same model under the library's names.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use polygraft::model::{ModelSpec, WeightId};
use polygraft::tensor::Matrix;
use polygraft_formats::base::write;
use polygraft_formats::container::safetensors::header_len;
use polygraft_formats::quantize::{self, Bits};
use polygraft_formats::{BaseLoader, Files, MemoryFiles};
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
            *matrix = quantize::weight(&mut spec, *id, matrix.clone(), Bits::Eight).unwrap();
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
