//! Which family an adapter's files are of, and their reader: the one table of families.

use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::source::{ADAPTER, Files, SMALL, Subfolder};
use crate::{hub, language, packed, peft, sparse};
use polygraft::Session;
use polygraft::backend::Backend;
use polygraft::ir::{AdapterIr, Graft, LoadReport};
use polygraft::model::ModelSpec;
use serde::Deserialize;

/// PEFT's and AdapterHub's configurations have the same name.
const CONFIG: &str = "adapter_config.json";

/// How an adapter is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdapterOptions {
    /// Refuse files with tensors that nothing uses or without ones that their configuration promises.
    pub strict: bool,
    /// Graft onto a base that the adapter does not name.
    pub allow_base_mismatch: bool,
    /// Which of an adapter's tasks runs, for families that hold several (Poly, multitask prompts).
    pub task: Option<u32>,
    /// Whether an invertible adapter's block of the embeddings runs; only for adapters that have one.
    pub invertible: Option<bool>,
    /// Which ReFT it is, for folders that do not say.
    pub reft: Option<ReftForm>,
    /// What a sparse fine-tuning's head is for, where its file does not show it: BERT's classifiers of sequences and of
    /// tokens have the same names. The base's own head says it too; else it is the one of sequences.
    pub head: Option<HeadForm>,
    /// Whose tokenizer numbers an adapter's own words, where one was saved beside them.
    pub tokenizer: Option<TokenizerForm>,
}

/// Whose tokenizer numbers an adapter's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerForm {
    /// The base's: the one that was saved with them is the same.
    Base,
}

/// What a head is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadForm {
    /// Sequences.
    Sequence,
    /// Tokens.
    Token,
}

/// The forms of ReFT that AdapterHub saves alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReftForm {
    /// `x + (f(W x + b) − R x) R`: what the library computes from the folder.
    Noreft,
    /// `x + f(W x + b) R`: what it computed in training, if that was a DiReFT.
    Direft,
}

impl ReftForm {
    /// The option's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Noreft => "noreft",
            Self::Direft => "direft",
        }
    }
}

impl Default for AdapterOptions {
    fn default() -> Self {
        Self {
            strict: true,
            allow_base_mismatch: false,
            task: None,
            invertible: None,
            reft: None,
            head: None,
            tokenizer: None,
        }
    }
}

/// What a folder or file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Loaded {
    /// An adapter, or a fusion.
    Adapter(Box<AdapterIr>),
    /// Several, and their composition.
    Setup(hub::Setup),
}

impl Loaded {
    /// Loads it under `name`.
    ///
    /// # Errors
    /// As [`Session::graft`] and [`Session::graft_setup`].
    pub fn graft<B: Backend>(self, session: &mut Session<B>, name: &str, how: Graft) -> polygraft::Result<LoadReport> {
        match self {
            Self::Adapter(adapter) => session.graft(name, *adapter, how),
            Self::Setup(setup) => session.graft_setup(name, setup.parts, &setup.compose, how),
        }
    }
}

/// Reads an adapter's folder or single file, or a folder of several adapters that were saved with their composition,
/// for the base `spec`.
///
/// # Errors
/// As [`load_adapter`].
pub fn load(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<Loaded> {
    if files.has(hub::SETUP_CONFIG) {
        return hub::load_setup(files, spec, options).map(Loaded::Setup);
    }
    load_adapter(files, spec, options).map(|adapter| Loaded::Adapter(Box::new(adapter)))
}

/// Reads one adapter's folder or single file for the base `spec`.
///
/// # Errors
/// [`FormatError::NotAModel`] when nothing is recognised; [`FormatError::Unsupported`] for a family of another
/// library or version; whatever the family's reader finds.
pub fn load_adapter(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<AdapterIr> {
    if files.has(hub::SETUP_CONFIG) {
        let why = "this is a set-up of several adapters, and one is needed here: name the folder of one".into();
        return Err(FormatError::Unsupported { file: hub::SETUP_CONFIG.into(), why });
    }
    let folder = folder(files)?;
    if options.head.is_some() && !names_a_diff(files) {
        let why = "this is for sparse fine-tunings: leave it out".into();
        return Err(FormatError::Argument { what: "head".into(), why });
    }
    let inner = folder.as_deref().map(|name| Subfolder::new(files, name));
    let files: &dyn Files = inner.as_ref().map_or(files, |f| f);
    let names = files.names();
    if names.iter().any(|n| n == CONFIG) {
        let config = Json::parse(CONFIG, &files.read(CONFIG, SMALL)?)?;
        if hub::claims(&config) {
            return hub::load(files, spec, options);
        }
        if options.invertible.is_some() || options.reft.is_some() || options.tokenizer.is_some() {
            let why = "these are for adapters of AdapterHub: leave them out".into();
            return Err(FormatError::Argument { what: "invertible, reft, tokenizer".into(), why });
        }
        return peft::load(files, spec, options);
    }
    if names.iter().any(|n| n == hub::FUSION_CONFIG) {
        return hub::load_fusion(files, spec, options);
    }
    if names.iter().any(|n| n == hub::WORDS) {
        return hub::load_words(files, spec, options);
    }
    let diff = names.iter().find(|n| *n == sparse::FILE);
    if let Some(name) = diff.or(if let [name] = names.as_slice() { Some(name) } else { None }) {
        let data = files.read(name, ADAPTER)?;
        if diff.is_none() && !crate::container::torch::is_torch(&data) {
            if let Some(adapter) = packed::load(name, &data, spec, options)? {
                return Ok(adapter);
            }
            return language::load(name, data);
        }
        return sparse::load(name, data, spec, options)?.ok_or_else(|| FormatError::NotAModel {
            why: format!("{} is a file of torch.save and no sparse fine-tuning: name its folder", shown(name)),
        });
    }
    if names.iter().any(|n| n == "config.json") {
        let why =
            "this folder is a base model (config.json); an adapter has an adapter_config.json, or is a single file"
                .into();
        return Err(FormatError::NotAModel { why });
    }
    Err(crate::source::missing("adapter_config.json", &names))
}

/// Whether this may be a sparse fine-tuning: its own file, or a single one under any name.
fn names_a_diff(files: &dyn Files) -> bool {
    let names = files.names();
    names.iter().any(|n| n == sparse::FILE) || names.len() == 1
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
