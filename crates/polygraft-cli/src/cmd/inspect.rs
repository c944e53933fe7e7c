//! `inspect`: what a file or folder is, and what in it is unused.

use crate::args::Inspect;
use crate::error::{Error, Result};
use crate::files::Disk;
use crate::load;
use polygraft::model::ModelSpec;
use polygraft_formats::container::safetensors::{Header, header_len};
use polygraft_formats::{Files, language, sparse};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How to be told more.
const MORE: &str = "give --base DIR to see what it changes, layer by layer, and what is unused";

pub(crate) fn run(args: &Inspect) -> Result<()> {
    let disk = Disk::open(&args.path)?;
    let about = about(args, &disk)?;
    if args.json {
        println!("{about:#}");
        return Ok(());
    }
    print(&about, 0);
    Ok(())
}

fn about(args: &Inspect, disk: &Disk) -> Result<Value> {
    if let Some(base) = &args.base {
        return grafted(args, base);
    }
    if disk.has("adapter_config.json") {
        return saved(args, disk);
    }
    if disk.has("config.json") || disk.has("modules.json") {
        return Ok(base(&load::base(&args.path, |_, _| Ok(()))?));
    }
    if disk.has(sparse::FILE) {
        return Ok(json!({
            "kind": "adapter", "library": "composable-sft", "family": sparse::FAMILY.name, "method": sparse::FAMILY.paper,
            "becomes": sparse::FAMILY.ops, "files": disk.names(), "more": MORE,
        }));
    }
    let format = |source| Error::Format { path: args.path.clone(), source };
    if let [name] = disk.names().as_slice() {
        let bytes = disk.read(name, polygraft_formats::source::ADAPTER).map_err(format)?;
        if let Some(packed) = polygraft_formats::packed::contents_of(name, &bytes).map_err(format)? {
            return Ok(json!({
                "kind": "packed adapter", "base": packed.base, "lineage": packed.lineage, "bits": packed.bits, "bytes": bytes.len(),
                "configurations": packed.texts, "tensors": packed.tensors.into_iter().collect::<BTreeMap<_, _>>(),
                "more": "give --base DIR to see what it changes, layer by layer; polygraft unpack gives the library's folder back",
            }));
        }
        return match language::load(name, bytes) {
            Ok(ir) => Ok(json!({
                "kind": "adapter", "family": ir.family, "language": ir.language, "made_under": ir.made_under,
                "base": ir.base.name, "lineage": ir.base.lineage, "bytes": ir.patches.iter().map(|p| p.op.bytes()).sum::<usize>(),
            })),
            Err(polygraft_formats::FormatError::NotAModel { .. }) => tensors(name, disk).map_err(format),
            Err(source) => Err(format(source)),
        };
    }
    Err(format(polygraft_formats::FormatError::NotAModel {
        why: format!(
            "this is neither a model nor an adapter: it has no config.json and no adapter_config.json; it has {}",
            disk.names().iter().take(8).cloned().collect::<Vec<_>>().join(", ")
        ),
    }))
}

fn base(spec: &ModelSpec) -> Value {
    let mut schemes: BTreeMap<&str, usize> = BTreeMap::new();
    for w in &spec.weights {
        *schemes.entry(w.scheme.name()).or_default() += w.rows * w.cols;
    }
    let head = spec
        .head
        .as_ref()
        .map(|h| json!({"kind": format!("{:?}", h.kind), "labels": h.labels, "label_names": h.label_names}));
    json!({
        "kind": "base", "architecture": spec.arch.name(), "name": spec.fingerprint.name, "lineage": spec.fingerprint.lineage,
        "layers": spec.layers, "hidden": spec.hidden, "heads": spec.heads, "ffn": spec.ffn, "vocabulary": spec.vocab,
        "max_tokens": spec.max_tokens(), "parameters_by_scheme": schemes, "head": head,
        "image": spec.image.map(|i| json!({"channels": i.channels, "size": i.size, "patch": i.patch, "patches": i.patches()})),
        "pooling": format!("{:?}", spec.sentence.pooling), "prompts": spec.sentence.prompts,
    })
}

/// What an adapter does to a base: its changes layer by layer, and what of it is unused or missing.
fn grafted(args: &Inspect, base: &std::path::Path) -> Result<Value> {
    let spec = load::base(base, |_, _| Ok(()))?;
    let options = json!({"strict": false}).as_object().cloned().unwrap_or_default();
    let ir = load::adapter_ir(&spec, &args.path, &options)?;
    let report = polygraft::ir::check("adapter", &ir, &spec, polygraft::ir::Graft::default())?;
    let mut layers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for patch in &ir.patches {
        let layer = patch.site.layer().map_or("outside the layers".to_owned(), |l| format!("layer {l:>2}"));
        layers.entry(layer).or_default().push(format!(
            "{}: {}, {} bytes",
            patch.site,
            patch.op.name(),
            patch.op.bytes()
        ));
    }
    Ok(json!({
        "kind": "adapter", "family": report.family, "base": ir.base.name, "bytes": report.bytes,
        "head": ir.head.as_ref().map(|h| h.labels), "language": report.language, "applied": report.applied, "changes": layers,
        "unused tensors": report.unused, "missing tensors": report.missing, "virtual tokens": ir.rows.virtual_tokens,
    }))
}

/// Without a base the shapes cannot be checked; what the folder claims can be shown.
fn saved(args: &Inspect, disk: &Disk) -> Result<Value> {
    let format = |source| Error::Format { path: args.path.clone(), source };
    let config = disk.read("adapter_config.json", polygraft_formats::source::SMALL).map_err(format)?;
    let methods = polygraft_formats::hub::methods(&config);
    let config: Value = serde_json::from_slice(&config)
        .map_err(|e| Error::Content { path: args.path.join("adapter_config.json"), why: e.to_string() })?;
    if config["peft_type"].is_null() {
        let list = |of: fn(&polygraft_formats::hub::Family) -> &str| -> Vec<&str> {
            methods.iter().flatten().map(|f| of(f)).collect()
        };
        return Ok(json!({
            "kind": "adapter", "library": "AdapterHub", "name": config["name"], "base": config["model_name"],
            "methods": list(|f| f.name), "becomes": list(|f| f.ops), "refused": methods.as_ref().err().map(ToString::to_string),
            "model_class": config["model_class"], "version": config["version"], "config": config["config"],
            "files": disk.names(), "more": MORE,
        }));
    }
    let known = config["peft_type"].as_str().and_then(polygraft_formats::peft::family);
    let mut out = json!({
        "kind": "adapter", "library": "PEFT", "family": config["peft_type"], "base": config["base_model_name_or_path"],
        "method": known.map(|f| f.paper), "becomes": known.map(|f| f.ops), "refused": known.and_then(|f| f.refusal()), "more": MORE,
    });
    for key in
        ["r", "lora_alpha", "use_rslora", "bias", "target_modules", "modules_to_save", "task_type", "peft_version"]
    {
        if !config[key].is_null() {
            out[key] = config[key].clone();
        }
    }
    if disk.has("adapter_model.safetensors") {
        out["tensors"] = tensors("adapter_model.safetensors", disk).map_err(format)?["tensors"].clone();
    }
    Ok(out)
}

fn tensors(name: &str, disk: &Disk) -> polygraft_formats::Result<Value> {
    let len = disk.len(name)?;
    let start = disk.range(name, 0, len.min(64))?;
    let header = disk.range(name, 0, header_len(name, &start)?.min(len))?;
    let header = Header::parse(name, &header, Some(len))?;
    let list: serde_json::Map<String, Value> =
        header.tensors.iter().map(|t| (t.name.clone(), json!(format!("{} {:?}", t.dtype.name(), t.shape)))).collect();
    Ok(json!({"kind": "safetensors", "metadata": header.metadata, "tensors": list}))
}

fn print(value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    for (key, value) in value.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()) {
        match value {
            Value::Object(_) => {
                println!("{pad}{key}:");
                print(value, depth + 1);
            }
            Value::Array(list) if list.iter().any(|v| v.as_str().is_some_and(|s| s.len() > 24)) => {
                println!("{pad}{key}:");
                list.iter().for_each(|v| println!("{pad}  {}", v.as_str().unwrap_or_default()));
            }
            Value::String(text) => println!("{pad}{key}: {text}"),
            other => println!("{pad}{key}: {other}"),
        }
    }
}
