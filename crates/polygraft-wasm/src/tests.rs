//! The engine behind the boundary, on a random model, natively.

use crate::engine::{Core, Host};
use crate::failure::Failure;
use crate::folder::Folder;
use crate::loading::Loading;
use polygraft::backend::{Backend, Poll, Precision};
use polygraft::model::{ModelSpec, WeightId};
use polygraft::session::Session;
use polygraft::share::Satellite;
use polygraft::tasks::Engine;
use polygraft::tensor::{Matrix, Scheme};
use polygraft::testing::{self, Dims};
use polygraft::text::Tokenizer;
use polygraft_formats::bag::TensorBag;
use polygraft_formats::base::write;
use polygraft_formats::{BaseLoader, Files as _};
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
    let job = core.start(op, &args.to_string(), &[])?;
    let mut last = 0;
    loop {
        let (poll, tokens, _) = core.step(job, &mut || true)?;
        assert!(tokens >= last, "progress falls");
        last = tokens;
        if poll == Poll::Done {
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
    let mut files = Folder::default();
    files.add("hu.safetensors".into(), bytes);
    core.load_adapter("again", &files, r#"{"strict": true, "allow_base_mismatch": false}"#).unwrap();
    core.explain(&json!({"texts": texts, "adapters": ["hu", "again", null]}).to_string()).unwrap();
    core.unload_adapter("again").unwrap();
    assert_eq!(core.unload_adapter("again").unwrap_err().code, "ADAPTER_UNKNOWN");
}

#[test]
fn arguments_are_read_strictly() {
    let mut core = core();
    let code = |core: &mut Core, op: &str, args: Value| core.start(op, &args.to_string(), &[]).unwrap_err().code;
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
    assert_eq!(core.start("embed", "{", &[]).unwrap_err().code, "ARGUMENT");
    let files = Folder::default();
    assert_eq!(core.load_adapter("a", &files, r#"{"Strict": true}"#).unwrap_err().code, "ARGUMENT");
}

#[test]
fn jobs_that_are_gone_say_so() {
    let mut core = core();
    let args = json!({"texts": ["a"], "side": null, "adapters": [null], "precision": null}).to_string();
    let job = core.start("embed", &args, &[]).unwrap();
    assert_eq!(core.result(job).unwrap_err().code, "ARGUMENT");
    assert_eq!(core.step(job, &mut || false).unwrap_err().code, "ARGUMENT");
    let job = core.start("embed", &args, &[]).unwrap();
    core.cancel(job);
    core.cancel(job);
    assert_eq!(core.result(job).unwrap_err().code, "ARGUMENT");
}

/// A model whose matrices are in 4 bits, tables included.
fn quantized() -> (ModelSpec, Vec<Matrix>) {
    let dims = Dims { hidden: 32, heads: 4, ffn: 64, layers: 2, vocab: 100, scheme: Scheme::Q4_0 };
    let (mut spec, weights) = testing::model(dims, 2);
    spec.head = None;
    (spec, weights)
}

/// The layers of [`quantized`], from its files: all tensors but the tables'.
fn satellite() -> Satellite<Host> {
    let (spec, weights) = quantized();
    let mut weights: Vec<Option<Matrix>> = weights.into_iter().map(Some).collect();
    let mut bytes = Vec::new();
    write::weights(&mut bytes, &spec, |id| weights[id.0 as usize].take()).unwrap();
    let mut files = Folder::default();
    files.add(write::CONFIG.into(), write::config(&spec));
    files.announce(write::WEIGHTS.into(), bytes.len() as u64);
    let mut loading = Loading::to_satellite(files).unwrap();
    let (shard, len) = (write::WEIGHTS, bytes.len() as u64);
    let header = Loading::header_length(shard, &bytes[..16]).unwrap() as usize;
    let plans = loading.begin(shard, &bytes[..header], len).unwrap();
    // Codes and scales of the word table, positions, types.
    assert_eq!(loading.tables(shard).len(), 4);
    for plan in plans.chunks(3) {
        let (index, at, len) = (plan[0] as usize, plan[1] as usize, plan[2] as usize);
        assert!(!loading.tables(shard).contains(&(index as u32)));
        loading.expect(len);
        loading.part(&bytes[at..at + len]);
        loading.tensor(shard, index).unwrap();
    }
    loading.finish_satellite().unwrap()
}

/// A job run to its end by the owner and `crew`; gives its answer and how many parcels the crew answered.
fn run_shared(core: &mut Core, crew: &mut [Satellite<Host>], op: &str, args: &Value) -> ((Value, Vec<f32>), usize) {
    core.set_satellites(crew.len());
    let job = core.start(op, &args.to_string(), &[]).unwrap();
    let mut answered = 0;
    loop {
        for (s, satellite) in crew.iter_mut().enumerate() {
            while let Some(parcel) = core.share(job, s).unwrap() {
                satellite.take(&parcel).unwrap();
            }
            if let Some(answer) = satellite.advance(&mut || true).unwrap() {
                assert!(core.take_in(job, &answer.to_bytes()).unwrap());
                answered += 1;
            }
        }
        if core.step(job, &mut || true).unwrap().0 == Poll::Done {
            break;
        }
    }
    let output = core.result(job).unwrap();
    let mut json: Value = serde_json::from_str(&output.json).unwrap();
    json["index"].take();
    ((json, output.floats), answered)
}

#[test]
fn answers_are_the_same_whoever_computes_along() {
    let new = || {
        let (spec, weights) = quantized();
        let mut backend = Host::new();
        for (id, matrix) in weights.into_iter().enumerate() {
            backend.load_weight(WeightId(id as u32), matrix).unwrap();
        }
        let mut session = Session::new(spec, backend).unwrap();
        for (i, name) in ["a", "b"].iter().enumerate() {
            let mut adapter = testing::adapter(session.spec(), 5 + i as u64);
            adapter.head = None;
            adapter.patches.retain(|p| !p.site.is_head());
            session.graft(name, adapter, polygraft::ir::Graft::default()).unwrap();
        }
        Core::new(Engine::new(session, Box::new(Bytes), Precision::Fast))
    };
    let texts: Vec<String> = (0..40).map(|i| "some water for many people".repeat(1 + i % 2) + &i.to_string()).collect();
    let adapters: Vec<&str> = (0..40).map(|i| ["a", "b", "base"][i % 3]).collect();
    for precision in ["fast", "exact"] {
        let rerank = json!({"query": "water", "documents": texts, "queryAdapters": null, "documentAdapters": adapters,
            "topN": null, "windows": true, "precision": precision});
        let embed = json!({"texts": texts, "side": null, "adapters": adapters, "precision": precision});
        let index = json!({"documents": texts, "documentAdapters": ["a"], "windows": false, "precision": precision});
        let language =
            json!({"texts": texts, "pivot": null, "lang": "hu", "under": null, "name": null, "precision": precision});
        for (op, args) in [("rerank", rerank), ("embed", embed), ("index", index), ("languageVector", language)] {
            let (alone, none) = run_shared(&mut new(), &mut [], op, &args);
            let (shared, some) = run_shared(&mut new(), &mut [satellite(), satellite()], op, &args);
            assert_eq!(shared, alone, "{op} {precision}");
            assert!(none == 0 && some > 2, "{op}: {some} parcels");
        }
    }
}

/// A job that has begun to embed forty texts.
fn forty(core: &mut Core, adapter: Option<&str>) -> u32 {
    let texts: Vec<String> = (0..40).map(|i| "many people, some water".to_owned() + &i.to_string()).collect();
    let args = json!({"texts": texts, "side": null, "adapters": [adapter], "precision": null});
    let job = core.start("embed", &args.to_string(), &[]).unwrap();
    core.step(job, &mut || false).unwrap();
    job
}

/// Parcels that the first satellite is given.
fn parcels(core: &mut Core, job: u32) -> usize {
    std::iter::from_fn(|| core.share(job, 0).unwrap()).count()
}

#[test]
fn what_is_given_up_is_computed_here() {
    let mut core = core();
    core.set_satellites(1);
    let job = forty(&mut core, None);
    assert!(parcels(&mut core, job) > 0);
    assert_eq!(core.step(job, &mut || false).unwrap().0, Poll::Waiting);
    assert_eq!(core.result(job).err().unwrap().code, "ARGUMENT");
    let job = forty(&mut core, None);
    core.share(job, 0).unwrap().unwrap();
    core.take_back(job, 0).unwrap();
    assert_eq!(core.step(job, &mut || false).unwrap().0, Poll::Done);
    assert_eq!(core.result(job).unwrap().floats.len(), 40 * 32);
    assert_eq!(core.share(job, 0).unwrap_err().code, "ARGUMENT");
}

/// A fixture's files.
fn fixture(folder: &str) -> Folder {
    let mut out = Folder::default();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(folder);
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        out.add(path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap());
    }
    out
}

/// A fixture's base, with a token a byte.
fn base(folder: &str) -> Core {
    let files = fixture(folder);
    let mut loader = BaseLoader::new(&files).unwrap();
    let mut backend = Host::new();
    for shard in loader.shards().to_vec() {
        let bytes = files.read(&shard, u64::MAX).unwrap();
        let header = Loading::header_length(&shard, &bytes[..16]).unwrap() as usize;
        for plan in loader.begin(&shard, &bytes[..header], bytes.len() as u64).unwrap() {
            let (at, length) = (plan.offset as usize, plan.bytes as usize);
            for (id, matrix) in loader.tensor(&shard, plan.index, bytes[at..at + length].to_vec()).unwrap() {
                backend.load_weight(id, matrix).unwrap();
            }
        }
    }
    let session = Session::new(loader.finish().unwrap(), backend).unwrap();
    Core::new(Engine::new(session, Box::new(Bytes), Precision::Exact))
}

#[test]
fn changed_positions_stay_where_their_table_is() {
    let mut core = base("bases/mpnet");
    core.load_adapter("a", &fixture("peft/relative_positions/mpnet_saved/adapter"), "{}").unwrap();
    core.set_satellites(1);
    let mut shared = |adapter| {
        let job = forty(&mut core, adapter);
        let given = parcels(&mut core, job);
        core.take_back(job, 0).unwrap();
        while core.step(job, &mut || false).unwrap().0 != Poll::Done {}
        assert_eq!(core.result(job).unwrap().floats.len(), 40 * 32);
        given
    };
    assert!(shared(None) > 0);
    assert_eq!(shared(Some("a")), 0);
}

#[test]
fn images_are_embedded_as_the_library_sees_them() {
    let mut loading = Loading::to_run(fixture("bases-pixels/vit")).unwrap();
    let bytes = fixture("bases-pixels/vit").read("model.safetensors", u64::MAX).unwrap();
    let header = Loading::header_length("model.safetensors", &bytes[..16]).unwrap() as usize;
    let plans = loading.begin("model.safetensors", &bytes[..header], bytes.len() as u64).unwrap();
    for plan in plans.chunks(3) {
        let (at, length) = (plan[1] as usize, plan[2] as usize);
        loading.part(&bytes[at..at + length]);
        loading.tensor("model.safetensors", plan[0] as usize).unwrap();
    }
    let mut core = loading.finish("exact").unwrap();
    assert_eq!(core.info()["image"], json!({"channels": 3, "height": 12, "width": 12}));
    core.load_adapter("a", &fixture("peft/on_vit/lora/adapter"), "{}").unwrap();
    // What the library's class tokens are, for the base and under the adapter.
    let (numbers, width, patches) = (3 * 12 * 12, 32, 9);
    let floats = |case: &str, file: &str, tensor: &str, shape: &[usize]| {
        let mut bag = TensorBag::open(file, fixture(case).read(file, u64::MAX).unwrap()).unwrap();
        bag.take(tensor, shape).unwrap().unwrap()
    };
    let mut pixels = Vec::new();
    let mut wanted = Vec::new();
    for case in ["base-families/vit/plain", "peft/on_vit/lora"] {
        let count = if case.starts_with("peft") { 2 } else { 3 };
        pixels.extend(floats(case, "pixels.safetensors", "pixel_values", &[count, 3, 12, 12])[..numbers].to_vec());
        let hidden = floats(case, "expected.safetensors", "last_hidden_state.0", &[patches + 1, width]);
        let norm = hidden[..width].iter().map(|x| x * x).sum::<f32>().sqrt();
        wanted.extend(hidden[..width].iter().map(|x| x / norm));
    }
    // Twice: nothing that was remembered of one image is another's.
    for _ in 0..2 {
        let args = json!({"texts": [], "images": 2, "side": null, "adapters": [null, "a"], "precision": null});
        let job = core.start("embed", &args.to_string(), &pixels).unwrap();
        while core.step(job, &mut || false).unwrap().0 != Poll::Done {}
        let found = core.result(job).unwrap().floats;
        assert_eq!(found.len(), wanted.len());
        let worst = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 5e-4, "{worst}");
    }
    // A head's logits, of the base's or of an adapter's; a row without any head is refused.
    core.load_adapter("h", &fixture("hub/vit/head_image/adapter"), "{}").unwrap();
    let images = floats("hub/vit/head_image", "pixels.safetensors", "pixel_values", &[2, 3, 12, 12]);
    let args = json!({"texts": [], "images": 2, "side": null, "adapters": ["h"], "precision": null});
    let job = core.start("classify", &args.to_string(), &images).unwrap();
    while core.step(job, &mut || false).unwrap().0 != Poll::Done {}
    let output = core.result(job).unwrap();
    let answer: Value = serde_json::from_str(&output.json).unwrap();
    let labels = answer["shapes"][0][1].as_u64().unwrap() as usize;
    assert_eq!(answer["shapes"], json!([[labels, labels], [labels, labels]]));
    for (i, row) in output.floats.chunks(labels).enumerate() {
        let wanted = floats("hub/vit/head_image", "expected.safetensors", &format!("logits.{i}"), &[labels]);
        let worst = row.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 5e-4, "{worst}");
    }
    let args = json!({"texts": [], "images": 1, "side": null, "adapters": [null], "precision": null});
    let bare = core.start("classify", &args.to_string(), &images[..numbers]).unwrap_err();
    assert!(bare.code == "HEAD_MISSING" && bare.message.contains("needs a head"), "{}", bare.message);
    // Texts, and images of another size, are refused with what to do.
    let refused = |core: &mut Core, args: Value, pixels: &[f32]| {
        let job = core.start("embed", &args.to_string(), pixels).unwrap();
        loop {
            match core.step(job, &mut || false) {
                Ok((poll, ..)) => assert_ne!(poll, Poll::Done),
                Err(failure) => break failure,
            }
        }
    };
    let text = refused(&mut core, json!({"texts": ["hot"], "side": null, "adapters": [null], "precision": null}), &[]);
    assert!(text.code == "ARGUMENT" && text.message.contains("pixels"), "{}", text.message);
    let args = json!({"texts": [], "images": 1, "side": null, "adapters": [null], "precision": null});
    let small = refused(&mut core, args, &pixels[..numbers - 1]);
    assert!(small.code == "ARGUMENT" && small.message.contains("12 × 12"), "{}", small.message);
}
