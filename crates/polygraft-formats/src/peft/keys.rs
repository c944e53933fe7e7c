//! The names of a PEFT file, in the terms of the base.

use super::config::Config;
use super::family::Family;
use crate::bag::TensorBag;
use crate::names;
use polygraft::model::{Arch, HeadTask, ModelSpec};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const ROOT: &str = "base_model.model.";
/// [`ROOT`] of prompts and prefixes.
pub(super) const MODEL: &str = "base_model.";
/// What all of the model shares, such as VeRA's projections.
pub(super) const SHARED: &str = "base_model.";
const WRAPPED: &str = ".modules_to_save.default.";

/// The file's names without [`ROOT`], the backbone's prefix, `.default` and `.base_layer`.
pub(super) struct Keys {
    /// Bare name → name in the file.
    names: BTreeMap<String, String>,
    /// Names that are of no module, in the file.
    own: BTreeSet<String>,
    /// Modules that have a tensor of the family.
    modules: BTreeSet<String>,
    /// Copies that PEFT writes by accident.
    pub(super) twins: Vec<String>,
    /// What the model was made for, when the task says that it had a head.
    pub(super) task: Option<HeadTask>,
    /// As `task`, or by the class of the model where the file has no task.
    pub(super) hint: Option<HeadTask>,
    /// Modules that PEFT saves for the task without being asked.
    pub(super) automatic: Vec<String>,
    markers: &'static [&'static str],
    root: &'static str,
    prefix: &'static str,
    arch: Arch,
}

impl Keys {
    pub(super) fn new(bag: &TensorBag, spec: &ModelSpec, config: &Config<'_>, family: &Family) -> Self {
        let task = config.task.and_then(names::task_of_peft);
        let prefix = names::backbone_prefix(spec.arch);
        let automatic: &[&str] = match task.filter(|_| family.heads) {
            Some(HeadTask::Sequence | HeadTask::Token) => &["classifier", "score"],
            Some(HeadTask::Question) => &["qa_outputs"],
            Some(HeadTask::MaskedLm) | None => &[],
        };
        let automatic = automatic.iter().map(|s| (*s).to_owned()).collect();
        let mut out = Self {
            names: BTreeMap::new(),
            own: BTreeSet::new(),
            modules: BTreeSet::new(),
            twins: Vec::new(),
            task,
            hint: task.or_else(|| names::task_of_architecture(config.class()?)),
            automatic,
            markers: family.markers,
            root: family.root,
            prefix: "",
            arch: spec.arch,
        };
        let mut prefixed = task.is_some() || config.wraps_a_head();
        for name in bag.names() {
            let Some(path) = name.strip_prefix(out.root) else {
                if let Some(shared) = name.strip_prefix(SHARED) {
                    let bare = format!("{SHARED}{}", shared.strip_suffix(".default").unwrap_or(shared));
                    out.names.insert(bare, name.to_owned());
                } else {
                    out.own.insert(name.to_owned());
                }
                continue;
            };
            prefixed |= path.starts_with(prefix);
            // A decoder that is tied to words which are trained is wrapped in theirs.
            let bare = path.strip_prefix(prefix).unwrap_or(path).replace(".token_adapter.base_layer.", ".");
            let bare = bare.replace(".base_layer.", ".");
            // With bias="all", PEFT also writes the biases inside its own wrapper of a saved module; older files have
            // the module there alone.
            let bare = if bare.contains(WRAPPED) {
                let inner = bare.replace(WRAPPED, ".");
                let twin = [format!("{}{inner}", out.root), format!("{}{prefix}{inner}", out.root)];
                if twin.iter().any(|t| bag.shape(t).is_some()) { bare } else { inner }
            } else {
                bare
            };
            if bare.contains(".original_module.") || bare.contains(".modules_to_save.") {
                out.twins.push(name.to_owned());
                continue;
            }
            let bare = match out.split(&bare) {
                Some((module, own)) => {
                    // Older and foreign files hold the adapter's name.
                    let own: Vec<&str> = own.split('.').filter(|part| *part != "default").collect();
                    let bare = format!("{module}.{}", own.join("."));
                    out.modules.insert(module.to_owned());
                    bare
                }
                None => bare,
            };
            out.names.insert(bare, name.to_owned());
        }
        out.prefix = if prefixed { prefix } else { "" };
        out
    }

    /// A name of the family's own as module and rest.
    fn split<'a>(&self, bare: &'a str) -> Option<(&'a str, &'a str)> {
        let at = self.markers.iter().filter_map(|m| bare.find(m)).min()?;
        Some((&bare[..at], &bare[at + 1..]))
    }

    /// The path in the model that was wrapped.
    pub(super) fn wrapped(&self, path: &str) -> String {
        if names::in_backbone(self.arch, path) { format!("{}{path}", self.prefix) } else { path.to_owned() }
    }

    /// Whether the module at `path` has a tensor of the family.
    pub(super) fn has_module(&self, path: &str) -> bool {
        self.modules.contains(path)
    }

    /// Forgets the module at `path`; the names in the file that it had.
    pub(super) fn forget(&mut self, path: &str) -> Vec<String> {
        let start = format!("{path}.");
        self.modules.remove(path);
        let mut gone = Vec::new();
        self.names.retain(|bare, original| {
            let keep = !bare.starts_with(&start);
            if !keep {
                gone.push(std::mem::take(original));
            }
            keep
        });
        gone
    }

    /// Whether the file has a tensor of this name, which is of no module.
    pub(super) fn has_own(&self, name: &str) -> bool {
        self.own.contains(name)
    }

    /// The name in the file of `name` of the module at `path`, a path without the backbone's prefix.
    pub(super) fn at(&self, path: &str, name: &str) -> Option<&str> {
        self.original(&format!("{path}.{name}"))
    }

    /// The name in the file.
    pub(super) fn original(&self, bare: &str) -> Option<&str> {
        self.names.get(bare).map(String::as_str)
    }

    /// Modules that have a tensor of the family, sorted.
    pub(super) fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(String::as_str)
    }

    /// All names as they are looked up, with names in the file.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter().map(|(b, o)| (b.as_str(), o.as_str()))
    }

    /// Everything that belongs to the base rather than to the family: bare name and name in the file.
    pub(super) fn plain(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all().filter(|(bare, _)| !bare.starts_with(SHARED) && self.split(bare).is_none())
    }
}
