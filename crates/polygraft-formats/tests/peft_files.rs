//! PEFT's files as other versions and other models write them: made from the fixtures, where the installed version writes
//! another.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use polygraft::ir::{AdapterIr, LinearSite, Op, Site};
use polygraft::model::{HeadTask, ModelSpec};
use polygraft::reference::Reference;
use polygraft_formats::combine::{Kind, Part, Recipe, combine};
use polygraft_formats::{AdapterOptions, FormatError, Loaded, MemoryFiles, load};
use serde_json::{Map, Value, json};

const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";

fn adapter(case: &str) -> MemoryFiles {
    support::folder(&support::repository("tests/golden/peft-lora").join(case).join("adapter"))
}

fn base(name: &str) -> ModelSpec {
    let files = support::folder(&support::repository("tests/golden/bases").join(name));
    support::session(&files, Reference::new()).unwrap().spec().clone()
}

fn read(files: &MemoryFiles, base: &ModelSpec) -> Result<AdapterIr, FormatError> {
    match load(files, base, &AdapterOptions::default())? {
        Loaded::Adapter(adapter) => Ok(*adapter),
        Loaded::Setup(_) => panic!("one adapter"),
    }
}

fn configure(files: &mut MemoryFiles, change: Value) {
    let mut config: Value = serde_json::from_slice(&files.0[CONFIG]).unwrap();
    for (key, value) in change.as_object().unwrap() {
        config[key] = value.clone();
    }
    files.0.insert(CONFIG.into(), config.to_string().into_bytes());
}

type Tensors = Vec<(String, Value, Vec<u8>)>;

/// Changes the list of tensors: name, shape, bytes of f32.
fn rewrite(files: &mut MemoryFiles, change: impl FnOnce(&mut Tensors)) {
    let file = &files.0[WEIGHTS];
    let head = 8 + u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&file[8..head]).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, t)| {
        assert_eq!(t["dtype"], "F32");
        let end = |i: usize| head + t["data_offsets"][i].as_u64().unwrap() as usize;
        (name, t["shape"].clone(), file[end(0)..end(1)].to_vec())
    });
    let mut tensors: Tensors = tensors.collect();
    change(&mut tensors);
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    files.0.insert(WEIGHTS.into(), bytes);
}

#[test]
fn an_update_of_a_pooler_that_the_base_lacks_is_unused() {
    let mut files = adapter("all_linear");
    let (with, without) = (read(&files, &base("bert")).unwrap(), read(&files, &base("bert_nopool")).unwrap());
    let pooler = |p: &polygraft::ir::Patch| p.site == Site::Linear(LinearSite::Pooler);
    assert!(with.unused.is_empty() && with.patches.iter().any(pooler));
    assert_eq!(without.patches.len() + 1, with.patches.len());
    assert!(!without.patches.iter().any(pooler));
    let names = ["lora_A", "lora_B"].map(|n| format!("base_model.model.pooler.dense.{n}.weight"));
    assert_eq!(without.unused, names);
    // The bias beside it, too.
    rewrite(&mut files, |tensors| {
        tensors.push(("base_model.model.pooler.dense.base_layer.bias".into(), json!([32]), vec![0; 128]));
    });
    assert_eq!(read(&files, &base("bert_nopool")).unwrap().unused.len(), 3);
}

#[test]
fn the_class_of_the_model_says_whose_head_a_file_without_a_task_has() {
    let mut files = adapter("tokcls_grafted");
    let task = |files: &MemoryFiles, name: &str| read(files, &base(name)).unwrap().head.unwrap().task;
    for (class, wanted) in
        [("BertForTokenClassification", HeadTask::Token), ("BertForSequenceClassification", HeadTask::Sequence)]
    {
        let mapping = json!({"base_model_class": class, "parent_library": "transformers"});
        let change = json!({"task_type": null, "modules_to_save": ["classifier"], "auto_mapping": mapping});
        configure(&mut files, change);
        for name in ["bert", "bert_tokcls", "bert_seqcls"] {
            assert_eq!(task(&files, name), wanted, "{class} on {name}");
        }
    }
    configure(&mut files, json!({"auto_mapping": null}));
    assert_eq!(task(&files, "bert_tokcls"), HeadTask::Token);
    assert_eq!(task(&files, "bert_seqcls"), HeadTask::Sequence);
}

#[test]
fn versions_that_lose_the_biases_of_targets_do_not_promise_them() {
    let base = base("bert");
    let mut files = adapter("bias_lora_only");
    rewrite(&mut files, |tensors| tensors.retain(|(name, ..)| !name.ends_with(".bias")));
    for version in [json!("0.7.0"), json!("0.20.1"), json!("0.18.2.dev0"), Value::Null] {
        configure(&mut files, json!({"peft_version": version}));
        let ir = read(&files, &base).unwrap();
        assert!(ir.missing.iter().any(|n| n.ends_with("query.bias")), "{version}: {:?}", ir.missing);
    }
    for version in ["0.21.0", "1.0.0", "?"] {
        configure(&mut files, json!({"peft_version": version}));
        assert_eq!(read(&files, &base).unwrap_err().code(), "ADAPTER_KEYS", "{version}");
    }
    // One bias that is there promises the others.
    let mut files = adapter("bias_lora_only");
    rewrite(&mut files, |tensors| {
        let one = tensors.iter().position(|(name, ..)| name.ends_with(".bias")).unwrap();
        tensors.remove(one);
    });
    configure(&mut files, json!({"peft_version": "0.20.0"}));
    assert_eq!(read(&files, &base).unwrap_err().code(), "ADAPTER_KEYS");
}

#[test]
fn a_header_whose_length_begins_as_a_zip_is_safetensors() {
    let base = base("bert");
    let mut files = adapter("qv");
    let wanted = read(&files, &base).unwrap();
    let file = files.0.remove(WEIGHTS).unwrap();
    let head = 8 + u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    let padded = u64::from(u16::from_le_bytes(*b"PK"));
    assert_eq!(padded, 19280);
    let mut bytes = padded.to_le_bytes().to_vec();
    bytes.extend(&file[8..head]);
    bytes.resize(8 + padded as usize, b' ');
    bytes.extend(&file[head..]);
    files.0.insert(WEIGHTS.into(), bytes);
    assert_eq!(format!("{:?}", read(&files, &base).unwrap()), format!("{wanted:?}"));
}

#[test]
fn combined_tensors_have_the_rank_of_their_configuration() {
    for said in [1, 64] {
        let mut files = adapter("qv");
        configure(&mut files, json!({"r": said}));
        let part = |name| Part { name, files: &files, weight: 1.0 };
        for kind in [Kind::Linear, Kind::Cat, Kind::Svd, Kind::Ties] {
            let density = (kind == Kind::Ties).then_some(0.5);
            let recipe = Recipe { kind, rank: None, density, majority: None, modules_of: None, name: "c" };
            let error = combine(&[part("a"), part("b")], &recipe).unwrap_err();
            assert_eq!(error.code(), "ADAPTER_SHAPE", "{kind:?}: {error}");
        }
    }
}

#[test]
fn a_saved_head_may_hold_an_update() {
    let mut files = adapter("roberta_seqcls_dense");
    rewrite(&mut files, |tensors| {
        let dense = "base_model.model.classifier.";
        for (name, ..) in tensors.iter_mut() {
            for param in ["weight", "bias"] {
                if *name == format!("{dense}dense.{param}") {
                    *name = format!("{dense}dense.base_layer.{param}");
                }
            }
        }
        for whole in ["", "original_module.", "modules_to_save."] {
            for (factor, shape) in [("A", [4, 32]), ("B", [32, 4])] {
                let name = format!("{dense}{whole}dense.lora_{factor}.weight");
                tensors.push((name, json!(shape), 0.5f32.to_le_bytes().repeat(128)));
            }
        }
    });
    let ir = read(&files, &base("roberta")).unwrap();
    let site = Site::Linear(LinearSite::HeadDense(0));
    let ops: Vec<&Op> = ir.patches.iter().filter(|p| p.site == site).map(|p| &p.op).collect();
    assert!(matches!(ops[..], [Op::ReplaceLinear(_), Op::LowRank(_)]), "{ops:?}");
}
