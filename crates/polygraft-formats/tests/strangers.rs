//! What a stranger may send, put before every reader of such a file: safetensors, torch's files, JSON, configurations that
//! ask for too much. Each is refused by its code, soon, and without room for what is only claimed.
//! Tokenizers are in `strange_tokenizers.rs`; `tests/attacks/README.md` says which row of which table is where.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use polygraft::model::ModelSpec;
use polygraft::reference::Reference;
use polygraft_formats::{AdapterOptions, FormatError, MemoryFiles, Tokenizer, index, language, load};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn folder(path: &str) -> MemoryFiles {
    support::folder(&support::repository("tests/golden").join(path))
}

fn spec() -> &'static ModelSpec {
    static SPEC: OnceLock<ModelSpec> = OnceLock::new();
    SPEC.get_or_init(|| support::session(&folder("bases/bert"), Reference::new()).unwrap().spec().clone())
}

/// `ok`, or the code of the refusal; its message is short enough to be read.
fn said<T>(done: Result<T, FormatError>) -> &'static str {
    match done {
        Ok(_) => "ok",
        Err(e) => {
            assert!(e.to_string().len() < 2000, "{}: a message of {} bytes", e.code(), e.to_string().len());
            e.code()
        }
    }
}

fn adapter(files: &MemoryFiles) -> &'static str {
    said(load(files, spec(), &AdapterOptions::default()))
}

fn base(files: &MemoryFiles) -> &'static str {
    said(support::session(files, Reference::new()))
}

type Reader = fn(&MemoryFiles) -> &'static str;

/// Every file of tensors that a reader opens: the folder, the file, the reader.
const TENSORS: &[(&str, &str, Reader)] = &[
    ("bases/bert", "model.safetensors", base),
    ("peft-lora/six_linears/adapter", "adapter_model.safetensors", adapter),
    ("hub/union/lora_and_bottleneck/adapter", "adapter.safetensors", adapter),
    ("hub/fusion/both_sites/fusion", "model_adapter_fusion.safetensors", adapter),
];

/// A safetensors file with another header over the same data.
fn with_header(file: &[u8], change: impl FnOnce(&mut serde_json::Map<String, Value>, u64)) -> Vec<u8> {
    let head = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    let mut json: Value = serde_json::from_slice(&file[8..8 + head]).unwrap();
    let data = &file[8 + head..];
    change(json.as_object_mut().unwrap(), data.len() as u64);
    framed(&json.to_string(), data)
}

fn framed(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Moves the tensor that lies last by so many bytes.
fn moved(json: &mut serde_json::Map<String, Value>, data: u64, by: i64) {
    let last = json.values_mut().find(|t| t["data_offsets"][1] == data).unwrap();
    for end in 0..2 {
        let at = last["data_offsets"][end].as_i64().unwrap() + by;
        last["data_offsets"][end] = at.into();
    }
}

#[test]
fn every_safetensors_file_is_read_strictly() {
    for (path, file, read) in TENSORS {
        let files = folder(path);
        assert_eq!(read(&files), "ok", "{path}");
        let good = &files.0[*file];
        let head = u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
        let text = std::str::from_utf8(&good[8..8 + head]).unwrap().trim_end();
        let data = &good[8 + head..];
        let first = text.split_once("\":{").unwrap().0.trim_start_matches("{\"").to_owned();
        let twin = format!(
            "{},\"{}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}}}",
            &text[..text.len() - 1],
            if first == "__metadata__" { "__metadata__" } else { &first }
        );
        let extra = |shape: Value| {
            with_header(good, |json, end| {
                json.insert("x".into(), json!({"dtype": "F32", "shape": shape, "data_offsets": [end, end]}));
            })
        };
        let huge = with_header(good, |json, end| {
            let more = json!({"dtype": "F32", "shape": [200_000_000], "data_offsets": [end, end + 800_000_000]});
            json.insert("x".into(), more);
        });
        let length = |n: u64| [&n.to_le_bytes()[..], &good[8..]].concat();
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("P1 of 7 bytes", good[..7].to_vec(), "FORMAT_HEADER"),
            ("P1 of no bytes", Vec::new(), "FORMAT_HEADER"),
            ("P1 a header of 100 MB and a byte", length(100_000_001), "FORMAT_LIMIT"),
            ("P1 a header of all ones", length(u64::MAX), "FORMAT_LIMIT"),
            ("P1 a header longer than the file", length(90_000_000), "FORMAT_HEADER"),
            ("P2 twins", framed(&twin, data), "FORMAT_DUPLICATE"),
            ("P3 a byte to spare", [&good[..], &[0]].concat(), "FORMAT_RANGE"),
            ("P3 a byte too few", good[..good.len() - 1].to_vec(), "FORMAT_RANGE"),
            ("P3 a hole", [&with_header(good, |j, n| moved(j, n, 4))[..], &[0; 4]].concat(), "FORMAT_RANGE"),
            ("P3 an overlap", with_header(&good[..good.len() - 4], |j, n| moved(j, n + 4, -4)), "FORMAT_RANGE"),
            ("P4 2⁶⁴ by 0", extra(json!([u64::MAX, 0])), "FORMAT_LIMIT"),
            ("P4 a product that overflows", extra(json!([4_294_967_295u64, 4_294_967_295u64, 4])), "FORMAT_LIMIT"),
            ("P4 nine dimensions", extra(json!([0, 1, 1, 1, 1, 1, 1, 1, 1])), "FORMAT_LIMIT"),
            ("P4 800 MB that are not there", huge, "FORMAT_RANGE"),
            (
                "P11 a header of depth 10⁵",
                framed(&format!("{{\"a\":{}", "[".repeat(100_000)), data),
                "FORMAT_HEADER FORMAT_JSON",
            ),
            (
                "P11 a number out of range",
                framed("{\"a\":{\"dtype\":\"F32\",\"shape\":[1e400],\"data_offsets\":[0,0]}}", data),
                "FORMAT_HEADER FORMAT_JSON",
            ),
            ("P18 a web page", b"<!DOCTYPE html><html>".to_vec(), "UNSUPPORTED_FORMAT"),
            (
                "P18 a pointer",
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(),
                "UNSUPPORTED_FORMAT",
            ),
        ];
        for (what, bytes, wanted) in cases {
            let mut damaged = files.clone();
            damaged.0.insert((*file).into(), bytes);
            let found = read(&damaged);
            assert!(wanted.split(' ').any(|w| w == found), "{path}/{file}: {what}: {found}");
        }
        // P5: data that is not aligned is the same data.
        let read_as = |files: &MemoryFiles| format!("{:?}", load(files, spec(), &AdapterOptions::default()));
        for pad in 1..8 {
            let mut shifted = files.clone();
            shifted.0.insert((*file).into(), framed(&format!("{text}{}", " ".repeat(pad)), data));
            assert_eq!(read(&shifted), "ok", "{path}: a header padded by {pad}");
            assert!(*file == "model.safetensors" || read_as(&shifted) == read_as(&files));
        }
    }
}

/// Files of torch: each reader of one refuses what is refused, with the same code.
#[test]
fn every_torch_file_is_read_strictly() {
    let expected = std::fs::read_to_string(support::repository("tests/attacks/expected.tsv")).unwrap();
    let places = [
        ("peft-lora/six_linears/adapter", "adapter_model.safetensors", "adapter_model.bin"),
        ("hub/bottleneck/houlsby/adapter", "pytorch_adapter.bin", "pytorch_adapter.bin"),
        ("hub/setup/fuse/setup", "x/pytorch_adapter.bin", "x/pytorch_adapter.bin"),
        ("hub/setup/fuse/setup", "x,y/pytorch_model_adapter_fusion.bin", "x,y/pytorch_model_adapter_fusion.bin"),
        ("sparse/lt-sft/norms/adapters/l", "pytorch_diff.bin", "pytorch_diff.bin"),
    ];
    for (path, gone, name) in places {
        let mut files = folder(path);
        files.0.remove(gone).unwrap();
        for line in expected.lines() {
            let [attack, code, _] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let bytes = std::fs::read(support::repository("tests/attacks/torch").join(attack)).unwrap();
            files.0.insert(name.into(), bytes);
            let start = Instant::now();
            let found = adapter(&files);
            assert!(start.elapsed() < Duration::from_secs(1), "{name}: {attack} took {:?}", start.elapsed());
            // What torch writes is no adapter of ours; what is refused is refused for the same reason. A sparse
            // fine-tuning is another object, and no safetensors file.
            let sparse = name == "pytorch_diff.bin";
            assert!(found != "ok", "{name}: {attack}");
            assert!(found == code || code == "ok" || sparse, "{name}: {attack}: {found}, not {code}");
        }
    }
}

/// Every JSON file that a reader opens.
const JSONS: &[(&str, &str, Reader)] = &[
    ("bases/bert", "config.json", base),
    ("bases/bert", "model.safetensors.index.json", base),
    ("sentence", "modules.json", base),
    ("sentence", "1_Pooling/config.json", base),
    ("peft-lora/six_linears/adapter", "adapter_config.json", adapter),
    ("hub/bottleneck/houlsby/adapter", "adapter_config.json", adapter),
    ("hub/setup/fuse/setup", "adapter_setup.json", adapter),
    ("hub/setup/fuse/setup", "x/adapter_config.json", adapter),
    ("hub/setup/fuse/setup", "x,y/adapter_fusion_config.json", adapter),
    ("hub/static_heads/words_bert/adapter", "head_config.json", adapter),
];

/// Text that is no JSON that anything here reads, by row.
fn bad_json() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let deep = |n: usize| format!("{{\"a\": {}{}}}", "[".repeat(n), "]".repeat(n)).into_bytes();
    vec![
        ("P2 a key twice", b"{\"a\": 1, \"a\": 2}".to_vec(), "FORMAT_DUPLICATE"),
        ("P2 a key twice, inside", b"{\"a\": [{\"b\": 1, \"b\": 1}]}".to_vec(), "FORMAT_DUPLICATE"),
        ("P11 depth 129", deep(129), "FORMAT_JSON"),
        ("P11 depth 10⁵", deep(100_000), "FORMAT_JSON"),
        ("P11 depth 10⁵, not closed", b"[".repeat(100_000), "FORMAT_JSON"),
        ("P11 1e400", b"{\"a\": 1e400}".to_vec(), "FORMAT_JSON"),
        ("P11 2⁶⁴", b"{\"a\": 18446744073709551616}".to_vec(), "FORMAT_JSON"),
        ("P11 a byte-order mark", b"\xef\xbb\xbf{}".to_vec(), "FORMAT_JSON"),
        ("P11 no text", b"\xff\xfe{\0}\0".to_vec(), "FORMAT_JSON"),
        ("P11 nothing", Vec::new(), "FORMAT_JSON"),
        ("P11 NaN", b"{\"a\": NaN}".to_vec(), "FORMAT_JSON"),
        ("P18 a web page", b"<!doctype html><html>".to_vec(), "FORMAT_JSON"),
        ("P18 a pointer", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "FORMAT_JSON"),
    ]
}

#[test]
fn every_json_file_is_read_strictly() {
    for (path, file, read) in JSONS {
        let mut files = if *path == "sentence" {
            let first = std::fs::read_dir(support::repository("tests/golden/sentence")).unwrap().flatten();
            let mut homes: Vec<_> =
                first.map(|e| e.path()).filter(|p| p.join("1_Pooling/config.json").exists()).collect();
            homes.sort();
            support::folder(&homes[0])
        } else {
            folder(path)
        };
        for (what, bytes, wanted) in bad_json() {
            files.0.insert((*file).into(), bytes);
            let found = read(&files);
            assert!(found == wanted, "{path}/{file}: {what}: {found}");
        }
    }
    for (what, bytes, wanted) in bad_json() {
        let mut files = folder("tokenizers/bpe");
        files.0.insert("tokenizer.json".into(), bytes);
        let found = said(Tokenizer::load(&files, 1 << 20).map(drop));
        assert!(found == wanted || found == "TOKENIZER", "tokenizer.json: {what}: {found}");
    }
}

/// P6: an index that names what is not there, or what is outside.
#[test]
fn shards_are_those_of_the_index() {
    let whole = folder("bases/bert");
    let sharded = |map: Value| {
        let mut files = whole.clone();
        let bytes = files.0.remove("model.safetensors").unwrap();
        files.0.insert("a.safetensors".into(), bytes);
        files.0.insert("model.safetensors.index.json".into(), json!({"weight_map": map}).to_string().into_bytes());
        base(&files)
    };
    let word = "embeddings.word_embeddings.weight";
    assert_eq!(sharded(json!({word: "a.safetensors"})), "ok");
    for (what, map, wanted) in [
        ("a shard that is missing", json!({word: "b.safetensors"}), "FILE_MISSING"),
        ("a shard outside", json!({word: "../a.safetensors"}), "FILE_MISSING"),
        ("an absolute one", json!({word: "/a.safetensors"}), "FILE_MISSING"),
        ("a tensor that its shard lacks", json!({"nothing": "a.safetensors"}), "MODEL_KEYS"),
        ("a file that is no weights", json!({word: "config.json"}), "FORMAT_LIMIT FORMAT_HEADER"),
        ("no text", json!({word: 1}), "FORMAT_JSON"),
        ("no shards", json!({}), "FORMAT_JSON"),
        ("a list", json!([1]), "FORMAT_JSON"),
    ] {
        let found = sharded(map);
        assert!(wanted.split(' ').any(|w| w == found), "{what}: {found}");
    }
}

/// P12: each number of a configuration in turn is one that no model has: an error or a model, at once.
#[test]
fn no_number_of_a_configuration_is_believed() {
    fn numbers(value: &Value, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
        match value {
            Value::Number(_) => out.push(path.clone()),
            Value::Object(map) => {
                for (key, value) in map {
                    path.push(key.clone());
                    numbers(value, path, out);
                    path.pop();
                }
            }
            _ => {}
        }
    }
    let mut homes = Vec::new();
    for (root, marker, read) in [
        ("bases", "config.json", base as Reader),
        ("peft", "adapter_config.json", adapter),
        ("hub", "adapter_config.json", adapter),
        ("sparse/spiel", "adapter_config.json", adapter),
    ] {
        find(&support::repository("tests/golden").join(root), marker, &mut |home| {
            homes.push((home.to_owned(), marker, read))
        });
    }
    let mut seen = std::collections::HashSet::new();
    let mut tried = 0;
    for (home, marker, read) in homes {
        let files = support::folder(&home);
        let config: Value = serde_json::from_slice(&files.0[marker]).unwrap();
        let mut paths = Vec::new();
        numbers(&config, &mut Vec::new(), &mut paths);
        let kind =
            [&config["peft_type"], &config["model_type"], &config["config"]["architecture"]].map(|v| v.to_string());
        // One case of each entry of each method is enough.
        paths.retain(|p| seen.insert((kind.clone(), p.clone())));
        for path in paths {
            for number in [json!(0), json!(-1), json!(1_000_000_000), json!(1e18), json!(0.5), json!(-1e-9)] {
                let mut changed = config.clone();
                let mut at = &mut changed;
                for key in &path {
                    at = &mut at[key.as_str()];
                }
                *at = number.clone();
                let mut files = files.clone();
                files.0.insert(marker.into(), changed.to_string().into_bytes());
                let start = Instant::now();
                let found = read(&files);
                let took = start.elapsed();
                assert!(
                    took < Duration::from_secs(2),
                    "{}: {path:?} = {number}: {found} after {took:?}",
                    home.display()
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

fn find(dir: &std::path::Path, marker: &str, found: &mut dyn FnMut(&std::path::Path)) {
    if dir.join(marker).is_file() {
        found(dir);
    }
    let mut inside: Vec<_> =
        std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    inside.sort();
    inside.iter().for_each(|dir| find(dir, marker, found));
}

/// P17: a language vector with any bit turned over; one of before there were hashes, with a bit of an exponent.
#[test]
fn a_language_vector_is_the_one_that_was_made() {
    let adapter = |bytes: Vec<u8>| language::load("f", bytes);
    let own = polygraft::ir::AdapterIr {
        patches: vec![polygraft::ir::Patch {
            site: polygraft::ir::Site::Pooled,
            op: polygraft::ir::Op::Offset(polygraft::ir::Offset {
                vector: vec![0.5, -0.25, 1e-3],
                query: Some(vec![0.125; 3]),
            }),
        }],
        language: Some("hu".into()),
        made_under: Some("rank".into()),
        ..adapter(std::fs::read(support::repository("adapters/lang/base/hu.safetensors")).unwrap()).unwrap()
    };
    let written = language::write_language_vector(&own).unwrap();
    assert_eq!(adapter(written.clone()).unwrap(), own);
    for at in 0..written.len() * 8 {
        let mut turned = written.clone();
        turned[at / 8] ^= 1 << (at % 8);
        assert!(adapter(turned).is_err(), "bit {at}");
    }
    let head = 8 + u64::from_le_bytes(*written.first_chunk().unwrap()) as usize;
    let text = std::str::from_utf8(&written[8..head]).unwrap();
    let from = text.find(",\\\"sha256").unwrap();
    let to = text[from..].find('}').unwrap() + from;
    let older = format!("{}{}", &text[..from], &text[to..]);
    let older = [older.trim_end(), &" ".repeat(8 - older.trim_end().len() % 8)].concat();
    let mut bytes = [&(older.len() as u64).to_le_bytes(), older.as_bytes(), &written[head..]].concat();
    assert_eq!(adapter(bytes.clone()).unwrap(), own);
    let last = bytes.len() - 1;
    bytes[last] ^= 1 << 6;
    assert_eq!(said(adapter(bytes)), "INTEGRITY");
}

/// P17: our own files of a later version, or with any bit of what describes them turned over.
#[test]
fn our_own_files_are_of_this_version() {
    let written = index::write_index(&polygraft::tasks::Index {
        base: polygraft::model::Fingerprint { name: "tiny".into(), lineage: None },
        width: 2,
        entries: vec![polygraft::tasks::IndexEntry { compose: "base".into(), backbone: String::new(), vectors: 3 }],
        vectors: vec![0.5; 6],
    });
    let written = written.unwrap();
    let head = 8 + u64::from_le_bytes(*written.first_chunk().unwrap()) as usize;
    let text = std::str::from_utf8(&written[8..head]).unwrap();
    let newer = text.replace("\\\"format\\\":1", "\\\"format\\\":2");
    assert_ne!(newer, text);
    let later = [&written[..8], newer.as_bytes(), &written[head..]].concat();
    assert_eq!(said(index::read_index("f", later)), "UNSUPPORTED_FORMAT");
    for at in 0..head * 8 {
        let mut turned = written.clone();
        turned[at / 8] ^= 1 << (at % 8);
        // A name may change, and nothing else may pass as it was.
        if let Ok(read) = index::read_index("f", turned) {
            assert_eq!(read.vectors, vec![0.5; 6], "bit {at}");
        }
    }
    for bytes in [&b"<html>"[..], b"version https://git-lfs", b"", b"PK\x03\x04"] {
        assert!(said(language::load("f", bytes.to_vec())) != "ok");
        assert!(said(index::read_index("f", bytes.to_vec())) != "ok");
    }
}
