//! AdapterFusion (Pfeiffer et al. 2021): attention over several bottlenecks, saved in a folder of its own with the names
//! of its members, `adapter_fusion_layer.A,B.{query, key, value}`.

use super::config::Settings;
use super::names;
use super::reading::{Head, Reading};
use super::tensors::Tensors;
use crate::adapter::AdapterOptions;
use crate::error::Result;
use crate::json::Json;
use crate::names::backbone_prefix;
use crate::source::{Files, SMALL};
use polygraft::ir::{AdapterIr, BlockSite, Fusion, Op, Site};
use polygraft::model::ModelSpec;
use polygraft::tensor::Matrix;

/// The configuration's name.
pub(crate) const CONFIG: &str = "adapter_fusion_config.json";
const WEIGHTS: [&str; 2] = ["pytorch_model_adapter_fusion.bin", "model_adapter_fusion.safetensors"];
/// With a temperature, the library begins each process at 50.
const TEMPERATURE: f32 = 50.0;
const READ: &[&str] =
    &["key", "query", "query_before_ln", "residual_before", "temperature", "value", "value_before_softmax"];
const SILENT: &[&str] = &["dropout_prob", "regularization", "value_initialized"];

/// Reads a folder that `save_adapter_fusion` wrote.
///
/// # Errors
/// As [`super::load`].
pub(crate) fn load(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<AdapterIr> {
    let top = Json::parse(CONFIG, &files.read(CONFIG, SMALL)?)?;
    super::about(CONFIG, &top, spec, options)?;
    let s = settings(&top)?;
    s.only(READ, SILENT)?;
    let name = top
        .get("name")
        .and_then(Json::text)
        .ok_or_else(|| s.bad("name", "it is missing: its tensors are named by it"))?;
    let listed: Option<Vec<String>> =
        top.get("adapter_names").map(|l| l.items().iter().filter_map(Json::text).map(str::to_owned).collect());
    // A name may have dots, and before the list was saved, only commas told the members apart.
    let members = listed.unwrap_or_else(|| name.split(',').map(str::to_owned).collect());
    if members.len() < 2 {
        return Err(s.bad("adapter_names", "a fusion is of two adapters or more"));
    }
    let tensors = Tensors::open(files, WEIGHTS, backbone_prefix(spec.arch))?;
    let mut r = Reading::new(name, spec, options, tensors);
    r.tensors.ignore_longer(&format!("adapter_fusion_layer.{name}"));
    let mut anywhere = false;
    for layer in 0..spec.layers {
        for attention in [true, false] {
            let path = format!("{}.adapter_fusion_layer.{name}", names::block(spec, layer, attention));
            // It is where its members are, which its own configuration does not say.
            if r.tensors.paths().any(|p| p.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'))) {
                anywhere = true;
                let site = if attention { BlockSite::Attention(layer) } else { BlockSite::Ffn(layer) };
                if let Some(op) = layer_of(&mut r, &s, &path)? {
                    r.patch(Site::Block(site), Op::Fusion(Box::new(op)));
                }
            }
        }
    }
    let nothing = ["query", "key", "value"].iter().all(|k| s.flag(k, true).is_ok_and(|on| !on));
    if !anywhere && !nothing {
        r.tensors.miss(&format!("adapter_fusion_layer.{name}"));
    }
    let mut out = r.finish("fusion", top.get("model_name").and_then(Json::text), Head::default())?;
    out.fuses = Some(members);
    Ok(out)
}

fn settings(top: &Json) -> Result<Settings> {
    let named = |value: bool| {
        let text = format!(
            r#"{{"key": true, "query": true, "value": {value}, "query_before_ln": false, "residual_before": false,
            "temperature": false, "value_before_softmax": true}}"#
        );
        Json::parse(CONFIG, text.as_bytes())
    };
    Ok(Settings::new(
        CONFIG,
        match top.get("config") {
            Some(Json::Text(name)) if name == "static" => named(false)?,
            Some(Json::Text(name)) if name == "dynamic" => named(true)?,
            Some(config @ Json::Object(_)) => config.clone(),
            _ => {
                return Err(
                    Settings::new(CONFIG, Json::Null).bad("config", "neither a dictionary nor static or dynamic")
                );
            }
        },
    ))
}

fn layer_of(r: &mut Reading<'_>, s: &Settings, path: &str) -> Result<Option<Fusion>> {
    let h = r.spec.hidden;
    let flag = |key: &str| s.flag(key, false);
    let (has_query, has_key, has_value) = (flag("query")?, flag("key")?, flag("value")?);
    let mut pair = |name: &str, on: bool| -> Result<Option<(Matrix, Vec<f32>)>> {
        if !on {
            return Ok(None);
        }
        let weight = r.tensors.matrix(&format!("{path}.{name}.weight"), h, h)?;
        Ok(weight.zip(r.tensors.need(&format!("{path}.{name}.bias"), &[h])?))
    };
    let (query, key) = (pair("query", has_query)?, pair("key", has_key)?);
    let value = if has_value { r.tensors.matrix(&format!("{path}.value.weight"), h, h)? } else { None };
    if !(has_query || has_key || has_value) {
        // A layer that the library makes and never runs.
        r.tensors.ignore(&format!("{path}.dense.weight"));
        r.tensors.ignore(&format!("{path}.dense.bias"));
    }
    let whole = query.is_some() == has_query && key.is_some() == has_key && value.is_some() == has_value;
    Ok(whole.then_some(Fusion {
        query,
        key,
        value,
        query_before_norm: flag("query_before_ln")?,
        residual_before: flag("residual_before")?,
        temperature: if flag("temperature")? { TEMPERATURE } else { 1.0 },
    }))
}
