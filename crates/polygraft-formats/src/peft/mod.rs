//! Adapters saved by Hugging Face PEFT (0.5 to 0.21): `adapter_config.json` and `adapter_model.safetensors`, or
//! `adapter_model.bin`.
//!
//! A family is one file here and one row of [`FAMILIES`].

mod biases;
mod change;
mod changing;
mod combined;
mod config;
mod family;
mod head;
mod keys;
mod projections;
mod reading;
mod rotation;
mod split;
mod targets;

mod adalora;
mod bdlora;
mod beft;
mod boft;
mod c3a;
mod deft;
mod delora;
mod dora;
mod fourierft;
mod frod;
mod glora;
mod gralora;
mod hira;
mod hra;
mod ia3;
mod lily;
mod ln_tuning;
mod loha;
mod lokr;
mod lora;
mod mask;
mod miss;
mod oft;
mod osf;
mod parameters;
mod peanut;
mod poly;
mod prefix;
mod prompts;
mod pvera;
mod randlora;
mod refused;
mod replication;
mod road;
mod rows;
mod shira;
mod spiel;
mod supertuning;
mod tinylora;
mod tokens;
mod tucker;
mod unilora;
mod vblora;
mod vera;
mod waveft;

pub(crate) use combined::{alike, combine};
pub(crate) use family::Packing;
pub use family::{Defaults, Family, READ, SILENT};

use crate::adapter::AdapterOptions;
use crate::bag::TensorBag;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::source::{ADAPTER, Files, SMALL};
use polygraft::ir::AdapterIr;
use polygraft::model::ModelSpec;

/// The methods of PEFT 0.21.
pub static FAMILIES: &[Family] = &[
    lora::FAMILY,
    ia3::FAMILY,
    adalora::FAMILY,
    loha::FAMILY,
    lokr::FAMILY,
    oft::FAMILY,
    boft::FAMILY,
    hra::FAMILY,
    vera::FAMILY,
    pvera::FAMILY,
    randlora::FAMILY,
    tinylora::FAMILY,
    unilora::FAMILY,
    fourierft::FAMILY,
    waveft::FAMILY,
    vblora::FAMILY,
    c3a::FAMILY,
    miss::FAMILY,
    miss::BONE,
    shira::FAMILY,
    spiel::FAMILY,
    mask::FAMILY,
    road::FAMILY,
    ln_tuning::FAMILY,
    delora::FAMILY,
    hira::FAMILY,
    glora::FAMILY,
    beft::FAMILY,
    supertuning::FAMILY,
    gralora::FAMILY,
    deft::FAMILY,
    osf::FAMILY,
    frod::FAMILY,
    peanut::FAMILY,
    poly::FAMILY,
    lily::FAMILY,
    tokens::FAMILY,
    prompts::FAMILY,
    prompts::P_TUNING,
    prompts::MULTITASK,
    prefix::FAMILY,
    prefix::CARTRIDGE,
    refused::ADAMSS,
    refused::ADAPTION_PROMPT,
    refused::CPT,
    refused::PSOFT,
    refused::SHADOW,
    refused::XLORA,
];

/// The configuration's name.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// The weights' names, the first that is there.
pub(crate) const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// The row of a `peft_type`.
#[must_use]
pub fn family(peft_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.peft_type == peft_type)
}

/// Reads a PEFT folder.
///
/// # Errors
/// [`FormatError::AdapterConfig`], [`FormatError::AdapterKeys`], [`FormatError::AdapterShape`],
/// [`FormatError::NotFinite`], [`FormatError::Unsupported`] with the reason for a method that cannot be read, and what
/// its files are refused for.
pub fn load(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<AdapterIr> {
    let config = Json::parse(CONFIG, &files.read(CONFIG, SMALL)?)?;
    let Some(kind) = config.get("peft_type").and_then(Json::text) else {
        if config.get("config").is_some() || config.get("model_class").is_some() {
            let why = "this is an adapter of AdapterHub; this version loads PEFT's and language vectors".into();
            return Err(FormatError::Unsupported { file: CONFIG.into(), why });
        }
        let why = "it has no peft_type: not the configuration of a PEFT adapter".into();
        return Err(FormatError::AdapterConfig { file: CONFIG.into(), key: "peft_type".into(), why });
    };
    let Some(family) = family(kind) else {
        let known: Vec<&str> = FAMILIES.iter().filter(|f| f.refusal().is_none()).map(|f| f.peft_type).collect();
        let why = format!("{:?} is not supported; this version loads {}", shown(kind), known.join(", "));
        return Err(FormatError::Unsupported { file: format!("{CONFIG}: peft_type"), why });
    };
    if options.task.is_some() && !family.task {
        let why = format!("an adapter of {} has no tasks to choose from; leave it out", family.name);
        return Err(FormatError::Argument { what: "task".into(), why });
    }
    let names = files.names();
    let Some(weights) = WEIGHTS.into_iter().find(|w| names.iter().any(|n| n == w)) else {
        return Err(crate::source::missing(WEIGHTS[0], &names));
    };
    let bag = TensorBag::open(weights, files.read(weights, ADAPTER)?)?;
    reading::read(family, &config, bag, spec, options)
}
