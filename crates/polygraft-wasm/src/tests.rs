//! The engine behind the boundary, on a random model, natively.

use crate::engine::{Core, Host};
use crate::failure::Failure;
use polygraft::backend::{Backend, Precision};
use polygraft::model::WeightId;
use polygraft::session::Session;
use polygraft::tasks::Engine;
use polygraft::tensor::Scheme;
use polygraft::testing::{self, Dims};
use polygraft::text::Tokenizer;
use serde_json::{Value, json};

/// A token a byte.
struct Bytes;

impl Tokenizer for Bytes {
    fn encode(&self, text: &str) -> polygraft::Result<Vec<u32>> {
        Ok(text.bytes().map(|b| u32::from(b) % 90).collect())
    }
}

fn core() -> Core {
    let dims = Dims { hidden: 32, heads: 4, ffn: 64, layers: 2, vocab: 100, scheme: Scheme::F32 };
    let (mut spec, weights) = testing::model(dims, 1);
    // Without a head, rerank and search score alike.
    spec.head = None;
    let mut backend = Host::new();
    for (id, matrix) in weights.into_iter().enumerate() {
        backend.load_weight(WeightId(id as u32), matrix).unwrap();
    }
    Core::new(Engine::new(Session::new(spec, backend).unwrap(), Box::new(Bytes), Precision::Exact))
}

/// Runs a job to its end, pausing at every chance.
fn run(core: &mut Core, op: &str, args: &Value) -> Result<(Value, Vec<u8>, Vec<f32>), Failure> {
    let job = core.start(op, &args.to_string())?;
    let mut last = 0;
    loop {
        let (poll, tokens, _) = core.step(job, &mut || true)?;
        assert!(tokens >= last, "progress falls");
        last = tokens;
        if poll == polygraft::backend::Poll::Done {
            break;
        }
    }
    let output = core.result(job)?;
    Ok((serde_json::from_str(&output.json).unwrap(), output.bytes, output.floats))
}

#[test]
fn every_operation_answers() {
    let mut core = core();
    let texts = json!(["some water", "many people", "hot"]);
    let (answer, _, floats) =
        run(&mut core, "embed", &json!({"texts": texts, "side": "query", "adapters": [null], "precision": "exact"}))
            .unwrap();
    assert_eq!((answer["rows"].clone(), answer["width"].clone()), (json!(3), json!(32)));
    assert_eq!(floats.len(), 96);
    let norm: f32 = floats[..32].iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-4);

    let rerank = json!({"query": "water", "documents": texts, "queryAdapters": null, "documentAdapters": [null],
        "topN": 2, "windows": false, "precision": null});
    let (ranked, ..) = run(&mut core, "rerank", &rerank).unwrap();
    assert_eq!(ranked["results"].as_array().unwrap().len(), 2);

    let index = json!({"documents": texts, "documentAdapters": ["base"], "windows": false, "precision": null});
    let (index, ..) = run(&mut core, "index", &index).unwrap();
    let handle = index["index"].as_u64().unwrap() as u32;
    let search = json!({"index": handle, "query": "water", "queryAdapters": null, "documentAdapters": null, "topN": 2,
        "precision": null});
    let (found, ..) = run(&mut core, "search", &search).unwrap();
    assert_eq!(found["results"], ranked["results"]);
    core.drop_index(handle);
    assert_eq!(run(&mut core, "search", &search).unwrap_err().code, "ARGUMENT");

    let vector = json!({"texts": texts, "pivot": null, "lang": "hu", "under": null, "name": "hu", "precision": null});
    let (made, bytes, _) = run(&mut core, "languageVector", &vector).unwrap();
    assert_eq!(made["adapter"]["language"], "hu");
    let mut files = crate::folder::Folder::default();
    files.add("hu.safetensors".into(), bytes);
    core.load_adapter("again", &files, r#"{"strict": true, "allow_base_mismatch": false}"#).unwrap();
    core.explain(&json!({"texts": texts, "adapters": ["hu", "again", null]}).to_string()).unwrap();
    core.unload_adapter("again").unwrap();
    assert_eq!(core.unload_adapter("again").unwrap_err().code, "ADAPTER_UNKNOWN");
}

#[test]
fn arguments_are_read_strictly() {
    let mut core = core();
    let code = |core: &mut Core, op: &str, args: Value| core.start(op, &args.to_string()).unwrap_err().code;
    let embed = |extra: (&str, Value)| {
        let mut args = json!({"texts": ["a"], "side": null, "adapters": [null], "precision": null});
        args[extra.0] = extra.1;
        args
    };
    assert_eq!(code(&mut core, "embed", embed(("text", json!("a")))), "ARGUMENT");
    assert_eq!(code(&mut core, "embed", embed(("side", json!("passage")))), "ARGUMENT");
    assert_eq!(code(&mut core, "embed", embed(("texts", json!([])))), "ARGUMENT");
    assert_eq!(code(&mut core, "embed", embed(("adapters", json!([null, null])))), "ARGUMENT");
    assert_eq!(code(&mut core, "embed", embed(("adapters", json!(["gone"])))), "ADAPTER_UNKNOWN");
    assert_eq!(code(&mut core, "embed", embed(("adapters", json!(["a b"])))), "COMPOSE_INVALID");
    assert_eq!(code(&mut core, "translate", json!({})), "ARGUMENT");
    assert_eq!(core.start("embed", "{").unwrap_err().code, "ARGUMENT");
    let files = crate::folder::Folder::default();
    assert_eq!(core.load_adapter("a", &files, r#"{"Strict": true}"#).unwrap_err().code, "ARGUMENT");
}

#[test]
fn jobs_that_are_gone_say_so() {
    let mut core = core();
    let args = json!({"texts": ["a"], "side": null, "adapters": [null], "precision": null}).to_string();
    let job = core.start("embed", &args).unwrap();
    assert_eq!(core.result(job).unwrap_err().code, "ARGUMENT");
    assert_eq!(core.step(job, &mut || false).unwrap_err().code, "ARGUMENT");
    let job = core.start("embed", &args).unwrap();
    core.cancel(job);
    core.cancel(job);
    assert_eq!(core.result(job).unwrap_err().code, "ARGUMENT");
}
