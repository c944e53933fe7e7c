//! LoRA (Hu et al. 2021, arXiv 2106.09685) as `peft.tuners.lora` saves it: `y += s · (B A x + bias_B)`.

use super::CONFIG;
use super::config::{Biases, LoraConfig};
use super::head;
use crate::adapter::AdapterOptions;
use crate::bag::TensorBag;
use crate::error::{FormatError, Result, shown};
use crate::names::{self, Part};
use polygraft::ir::{AdapterIr, BaseClaim, LinearSite, LowRank, Op, Patch, Site};
use polygraft::model::{Arch, HeadTask, ModelSpec};
use std::collections::{BTreeMap, BTreeSet};

/// The family's name.
pub(crate) const FAMILY: &str = "lora";
const ROOT: &str = "base_model.model.";
const WRAPPED: &str = ".modules_to_save.default.";

pub(crate) fn load(
    config: &LoraConfig,
    mut bag: TensorBag,
    spec: &ModelSpec,
    options: &AdapterOptions,
) -> Result<AdapterIr> {
    let keys = Keys::new(&bag, spec, config);
    keys.twins.iter().for_each(|name| bag.ignore(name));
    let head = head::own(&keys, &bag, spec);
    let mut missing = Vec::new();
    let mut patches = Vec::new();
    let mut updated = Vec::new();
    for (module, site) in modules(config, &keys, spec)? {
        let (rank, scale) = config.scale(&keys.wrapped(&module))?;
        let Some((rows, cols)) = head::shape(site, head.as_ref(), spec) else {
            missing.push(format!("{module} (the base has no such layer)"));
            continue;
        };
        let mut part = |name: &str, shape: &[usize]| {
            let key = format!("{module}.{name}");
            match keys.original(&key) {
                None => {
                    missing.push(format!("{ROOT}{}", keys.wrapped(&key)));
                    Ok(None)
                }
                Some(original) => bag.take(original, shape),
            }
        };
        let a = part("lora_A.weight", &[rank, cols])?;
        let b = part("lora_B.weight", &[rows, rank])?;
        let bias = if config.lora_bias { part("lora_B.bias", &[rows])? } else { None };
        let dense = |rows, cols, v: Vec<f32>| polygraft::tensor::Matrix::dense(rows, cols, v);
        let pair = a.and_then(|a| dense(rank, cols, a)).zip(b.and_then(|b| dense(rows, rank, b)));
        if let Some((a, b)) = pair {
            patches.push(Patch { site: Site::Linear(site), op: Op::LowRank(LowRank { a, b, bias, scale }) });
        }
        updated.push((module, site));
    }
    if updated.is_empty() && keys.plain().next().is_none() {
        let why = format!("it matches no linear layer of this base ({}, {} layers)", spec.arch.name(), spec.layers);
        return Err(FormatError::AdapterConfig { file: CONFIG.into(), key: "target_modules".into(), why });
    }
    head::overrides(config, &keys, head.as_ref(), &mut bag, spec, &mut patches, &mut missing)?;
    promised_biases(config, &updated, spec, &patches, &keys, &mut missing);
    patches.sort_by_key(|p| (p.site, !matches!(p.op, Op::ReplaceLinear(_))));
    let left = bag.finish(options.strict, missing)?;
    Ok(AdapterIr {
        family: FAMILY,
        base: BaseClaim { name: config.base_name.clone(), lineage: None },
        patches,
        head,
        language: None,
        made_under: None,
        fuses: None,
        chains: false,
        rows: polygraft::ir::RowChange::default(),
        unused: left.extra,
        missing: left.missing,
    })
}

/// The linear layers with an update: those that the configuration means and the encoder has, and those outside the
/// encoder (poolers, heads) for which there are tensors.
fn modules(config: &LoraConfig, keys: &Keys, spec: &ModelSpec) -> Result<Vec<(String, LinearSite)>> {
    let mut out = Vec::new();
    let saved = |path: &str| config.modules_to_save.iter().chain(&keys.automatic).any(|entry| inside(path, entry));
    let mut paths: Vec<String> = names::modules(spec).into_iter().map(|(path, _)| path).collect();
    let others = keys.by_module.keys().filter(|m| names::part(spec.arch, m).is_some_and(|p| !p.of_backbone()));
    paths.extend(others.cloned());
    let default = names::lora_targets(spec.arch);
    for path in paths {
        let Some(Part::Linear(site)) = names::part(spec.arch, &path) else { continue };
        let wrapped = keys.wrapped(&path);
        if !saved(&wrapped) && config.targets.contains(&wrapped, default)? {
            out.push((path, site));
        }
    }
    Ok(out)
}

/// `(^|.*\.)ENTRY($|\..*)`: at or below a module that is saved whole.
fn inside(path: &str, entry: &str) -> bool {
    path.match_indices(entry).any(|(at, _)| {
        let (before, after) = (&path[..at], &path[at + entry.len()..]);
        (before.is_empty() || before.ends_with('.')) && (after.is_empty() || after.starts_with('.'))
    })
}

fn promised_biases(
    config: &LoraConfig,
    updated: &[(String, LinearSite)],
    spec: &ModelSpec,
    patches: &[Patch],
    keys: &Keys,
    missing: &mut Vec<String>,
) {
    let wanted: Vec<(String, Site)> = match config.bias {
        Biases::None => Vec::new(),
        Biases::OfTargets => updated.iter().map(|(path, site)| (path.clone(), Site::Linear(*site))).collect(),
        Biases::All => names::modules(spec)
            .into_iter()
            .filter_map(|(path, part)| match part {
                Part::Linear(site) => Some((path, Site::Linear(site))),
                Part::Norm(site) => Some((path, Site::Norm(site))),
                Part::Word | Part::Position | Part::TokenType => None,
            })
            .collect(),
    };
    let replaced: BTreeSet<Site> = patches
        .iter()
        .filter(|p| match &p.op {
            Op::ReplaceLinear(d) => d.bias.is_some(),
            Op::ReplaceNorm(n) => n.beta.is_some(),
            _ => false,
        })
        .map(|p| p.site)
        .collect();
    for (path, site) in wanted {
        if !replaced.contains(&site) {
            missing.push(format!("{ROOT}{}.bias", keys.wrapped(&path)));
        }
    }
}

/// The file's keys without `base_model.model.`, the backbone's prefix, `.default` and `.base_layer`.
pub(super) struct Keys {
    /// Bare name → name in the file.
    names: BTreeMap<String, String>,
    /// Modules that have an update in the file, with how many tensors of it.
    by_module: BTreeMap<String, usize>,
    /// Copies that PEFT writes by accident.
    twins: Vec<String>,
    /// What the model was, when it had a head.
    pub(super) task: Option<HeadTask>,
    /// Modules that PEFT saves for the task without being asked.
    pub(super) automatic: Vec<String>,
    prefix: &'static str,
    arch: Arch,
}

impl Keys {
    fn new(bag: &TensorBag, spec: &ModelSpec, config: &LoraConfig) -> Self {
        let prefix = names::backbone_prefix(spec.arch);
        let task = config.task.as_deref().and_then(names::task_of_peft);
        let mut out = BTreeMap::new();
        let mut by_module = BTreeMap::new();
        let mut twins = Vec::new();
        let mut prefixed = task.is_some();
        for name in bag.names() {
            let Some(path) = name.strip_prefix(ROOT) else { continue };
            prefixed |= path.starts_with(prefix);
            let bare = path.strip_prefix(prefix).unwrap_or(path).replace(".base_layer.", ".");
            let bare =
                ["lora_A", "lora_B"].iter().fold(bare, |b, l| b.replace(&format!(".{l}.default."), &format!(".{l}.")));
            // With bias="all", PEFT also writes the biases inside its own wrapper of a saved module; older files have
            // the module there alone.
            let bare = if bare.contains(WRAPPED) {
                let inner = bare.replace(WRAPPED, ".");
                let twin = [format!("{ROOT}{inner}"), format!("{ROOT}{prefix}{inner}")];
                if twin.iter().any(|t| bag.shape(t).is_some()) { bare } else { inner }
            } else {
                bare
            };
            if bare.contains(".original_module.") || bare.contains(".modules_to_save.") {
                twins.push(name.to_owned());
                continue;
            }
            if let Some((module, _)) = bare.split_once(".lora_") {
                *by_module.entry(module.to_owned()).or_insert(0) += 1;
            }
            out.insert(bare, name.to_owned());
        }
        let automatic: &[&str] = match task {
            Some(HeadTask::Sequence | HeadTask::Token) => &["classifier", "score"],
            Some(HeadTask::Question) => &["qa_outputs"],
            Some(HeadTask::MaskedLm) | None => &[],
        };
        let automatic = automatic.iter().map(|s| (*s).to_owned()).collect();
        Self {
            names: out,
            by_module,
            twins,
            task,
            automatic,
            prefix: if prefixed { prefix } else { "" },
            arch: spec.arch,
        }
    }

    /// The path in the model that was wrapped.
    pub(super) fn wrapped(&self, path: &str) -> String {
        if names::in_backbone(self.arch, path) { format!("{}{path}", self.prefix) } else { path.to_owned() }
    }

    fn original(&self, bare: &str) -> Option<&str> {
        self.names.get(bare).map(String::as_str)
    }

    /// Everything that is not part of an update: bare name and name in the file.
    pub(super) fn plain(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter().filter(|(bare, _)| !bare.contains(".lora_")).map(|(b, o)| (b.as_str(), o.as_str()))
    }
}

/// A tensor for which the base has no place that can be replaced.
pub(super) fn unplaceable(name: &str) -> FormatError {
    FormatError::Unsupported {
        file: shown(name),
        why: "replacing embeddings is not supported by this version; train without the embeddings in modules_to_save"
            .into(),
    }
}
