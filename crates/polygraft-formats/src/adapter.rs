//! Which family an adapter's files are of, and their reader: the one table of families.

use crate::error::{FormatError, Result};
use crate::source::{ADAPTER, Files, Subfolder};
use crate::{language, peft};
use polygraft::ir::AdapterIr;
use polygraft::model::ModelSpec;
use serde::Deserialize;

/// How an adapter is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdapterOptions {
    /// Refuse files with tensors that nothing uses or without ones that their configuration promises.
    pub strict: bool,
    /// Graft onto a base that the adapter does not name.
    pub allow_base_mismatch: bool,
}

impl Default for AdapterOptions {
    fn default() -> Self {
        Self { strict: true, allow_base_mismatch: false }
    }
}

/// Reads an adapter's folder or single file for the base `spec`.
///
/// # Errors
/// [`FormatError::NotAModel`] when nothing is recognised; [`FormatError::Unsupported`] for a family of another
/// library or version; whatever the family's reader finds.
pub fn load_adapter(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<AdapterIr> {
    let folder = folder(files)?;
    let inner = folder.as_deref().map(|name| Subfolder::new(files, name));
    let files: &dyn Files = inner.as_ref().map_or(files, |f| f);
    let names = files.names();
    if names.iter().any(|n| n == "adapter_config.json") {
        return peft::load(files, spec, options);
    }
    if names.iter().any(|n| n == "pytorch_adapter.bin" || n == "head_config.json") {
        let why = "this is an adapter of AdapterHub; this version loads PEFT LoRA and language vectors".into();
        return Err(FormatError::Unsupported { file: "adapter_config.json".into(), why });
    }
    if let [name] = names.as_slice() {
        return language::load(name, files.read(name, ADAPTER)?);
    }
    if names.iter().any(|n| n == "config.json") {
        let why =
            "this folder is a base model (config.json); an adapter has an adapter_config.json, or is a single file"
                .into();
        return Err(FormatError::NotAModel { why });
    }
    Err(crate::source::missing("adapter_config.json", &names))
}

/// PEFT saves an adapter that is not called `default` into a folder of its name: the name of the only such folder.
fn folder(files: &dyn Files) -> Result<Option<String>> {
    let names = files.names();
    if names.iter().any(|n| n == "adapter_config.json") {
        return Ok(None);
    }
    let folders: Vec<&str> =
        names.iter().filter_map(|n| n.strip_suffix("/adapter_config.json")).filter(|f| !f.contains('/')).collect();
    match folders.as_slice() {
        [] => Ok(None),
        [folder] => Ok(Some((*folder).to_owned())),
        several => {
            let why = format!("there are several adapters here ({}): name one of their folders", several.join(", "));
            Err(FormatError::NotAModel { why })
        }
    }
}
