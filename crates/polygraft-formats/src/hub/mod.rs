//! Adapters saved by AdapterHub's `adapters` (1.3) and by its predecessor `adapter-transformers` (1 to 3):
//! `adapter_config.json` with `adapter.safetensors` or `pytorch_adapter.bin`, and the head beside it.
//!
//! A method is one file here and one row of [`FAMILIES`]. Where the library and its documents differ, the library is right.

mod config;
mod family;
mod heads;
mod names;
mod presets;
mod reading;
mod tensors;

mod bottleneck;
mod embeddings;
mod fusion;
mod ia3;
mod invertible;
mod lora;
mod mtl_lora;
mod phm;
mod prefix;
mod prompt;
mod reft;
mod setup;

pub(crate) use embeddings::FILE as WORDS;
pub use family::Family;
pub(crate) use fusion::{CONFIG as FUSION_CONFIG, load as load_fusion};
pub use setup::Setup;
pub(crate) use setup::{CONFIG as SETUP_CONFIG, load as load_setup};

use crate::adapter::AdapterOptions;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::names::backbone_prefix;
use crate::source::{Files, SMALL};
use polygraft::ir::AdapterIr;
use polygraft::model::ModelSpec;
use reading::{Head, Reading};
use tensors::Tensors;

/// The configuration's name.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// The weights' names; the library takes the first unless it is told otherwise.
pub(crate) const WEIGHTS: [&str; 2] = ["pytorch_adapter.bin", "adapter.safetensors"];

/// The library's methods.
pub static FAMILIES: &[Family] =
    &[bottleneck::FAMILY, lora::FAMILY, ia3::FAMILY, mtl_lora::FAMILY, prefix::FAMILY, prompt::FAMILY, reft::FAMILY];

/// Whether an `adapter_config.json` is this library's.
#[must_use]
pub(crate) fn claims(config: &Json) -> bool {
    config.get("peft_type").is_none() && (config.get("config").is_some() || config.get("model_class").is_some())
}

/// The methods that an `adapter_config.json` names, without reading any tensor.
///
/// # Errors
/// [`FormatError::Json`], [`FormatError::AdapterConfig`].
pub fn methods(config: &[u8]) -> Result<Vec<&'static Family>> {
    config::methods(&Json::parse(CONFIG, config)?)?.iter().map(family::of).collect()
}

/// What two configurations differ in, besides training; `None` when they are of one method with the same settings.
///
/// # Errors
/// [`FormatError::AdapterConfig`].
pub(crate) fn alike(a: &Json, b: &Json) -> Result<Option<String>> {
    let of = |top| {
        Ok(config::methods(top)?.into_iter().map(|m| m.without(&["dropout", "init_weights", "init_weights_seed"])))
    };
    Ok(if of(a)?.eq(of(b)?) { None } else { Some("config".into()) })
}

/// Reads a folder that `save_adapter` wrote.
///
/// # Errors
/// [`FormatError::AdapterConfig`], [`FormatError::AdapterKeys`], [`FormatError::AdapterShape`],
/// [`FormatError::NotFinite`], [`FormatError::Unsupported`] for what the library itself cannot run, and what its files
/// are refused for.
pub fn load(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<AdapterIr> {
    read(files, spec, options, true)
}

/// As [`load`]; `alone` is false for a part of a set-up, whose options are for whichever part they fit.
fn read(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions, alone: bool) -> Result<AdapterIr> {
    let top = Json::parse(CONFIG, &files.read(CONFIG, SMALL)?)?;
    about(CONFIG, &top, spec, options)?;
    let Some(name) = top.get("name").and_then(Json::text) else {
        return Err(config::bad("name", "the adapter's name is missing: its tensors are named by it"));
    };
    let methods = config::methods(&top)?;
    let prefix = backbone_prefix(spec.arch);
    let mut reading = Reading::new(name, spec, options, Tensors::open(files, WEIGHTS, prefix)?);
    reading.old_task = top.get("type").and_then(Json::text) == Some("text_task");
    let mut family = "union";
    for method in &methods {
        let row = family::of(method)?;
        method.only(row.reads, row.silent)?;
        if !row.hooks && names::hooked(spec) {
            let why = format!("the library has no {} for {:?}", row.name, spec.arch.name());
            return Err(method.bad("architecture", why));
        }
        (row.load)(&mut reading, method)?;
        if methods.len() == 1 {
            family = row.name;
        }
    }
    embeddings::read(&mut reading, files, options)?;
    if alone {
        invertible::option_fits(&reading)?;
        reft::option_fits(&reading)?;
    }
    reading.finish(family, top.get("model_name").and_then(Json::text), heads::load(files, spec, options)?)
}

/// Reads a folder that `save_embeddings` wrote: words alone.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_words(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<AdapterIr> {
    let mut reading = Reading::new("", spec, options, Tensors::none());
    embeddings::read(&mut reading, files, options)?;
    invertible::option_fits(&reading)?;
    reft::option_fits(&reading)?;
    reading.finish("embeddings", None, Head::default())
}

/// What every configuration of the library says about itself and the model.
fn about(file: &str, top: &Json, spec: &ModelSpec, options: &AdapterOptions) -> Result<()> {
    let bad = |key: &str, why: String| FormatError::AdapterConfig { file: file.into(), key: key.into(), why };
    if let Some(hidden) = top.get("hidden_size").filter(|h| h.whole() != Some(spec.hidden)) {
        let why = format!("the adapter is for hidden states of {}, the base has {}", hidden.brief(), spec.hidden);
        return Err(bad("hidden_size", why));
    }
    let Some(kind) = top.get("model_type").and_then(Json::text) else { return Ok(()) };
    // RoBERTa's descendants have its names and mathematics; whose weights they are is not in the file.
    let family =
        |name: &str| if matches!(name, "xlm-roberta" | "camembert") { "roberta".to_owned() } else { name.to_owned() };
    if family(kind) != family(spec.arch.name()) && !options.allow_base_mismatch {
        let why = format!("the adapter is for {:?}, the base is {:?}", shown(kind), spec.arch.name());
        return Err(bad("model_type", why));
    }
    Ok(())
}
