//! Adapters saved by Hugging Face PEFT (0.5 to 0.21): `adapter_config.json` and `adapter_model.safetensors`, or
//! `adapter_model.bin`.

mod config;
mod head;
mod lora;
mod targets;

use crate::adapter::AdapterOptions;
use crate::bag::TensorBag;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::source::{ADAPTER, Files, SMALL};
use polygraft::ir::AdapterIr;
use polygraft::model::ModelSpec;

/// The configuration's name.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// The weights' names, the first that is there.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// Reads a PEFT folder.
///
/// # Errors
/// [`FormatError::AdapterConfig`], [`FormatError::AdapterKeys`], [`FormatError::AdapterShape`],
/// [`FormatError::NotFinite`], and what its files are refused for.
pub fn load(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<AdapterIr> {
    let config = Json::parse(CONFIG, &files.read(CONFIG, SMALL)?)?;
    let Some(kind) = config.get("peft_type").and_then(Json::text) else {
        if config.get("config").is_some() || config.get("model_class").is_some() {
            let why = "this is an adapter of AdapterHub; this version loads PEFT LoRA and language vectors".into();
            return Err(FormatError::Unsupported { file: CONFIG.into(), why });
        }
        let why = "it has no peft_type: not the configuration of a PEFT adapter".into();
        return Err(FormatError::AdapterConfig { file: CONFIG.into(), key: "peft_type".into(), why });
    };
    if kind != "LORA" {
        let why = format!("{:?} is not supported; this version loads LORA", shown(kind));
        return Err(FormatError::Unsupported { file: format!("{CONFIG}: peft_type"), why });
    }
    let names = files.names();
    let Some(weights) = WEIGHTS.into_iter().find(|w| names.iter().any(|n| n == w)) else {
        return Err(crate::source::missing(WEIGHTS[0], &names));
    };
    let bag = TensorBag::open(weights, files.read(weights, ADAPTER)?)?;
    lora::load(&config::LoraConfig::parse(&config)?, bag, spec, options)
}
