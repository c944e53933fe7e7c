//! Base tensors that an adapter's file replaces: `modules_to_save`, heads, biases.

use super::config::Config;
use super::keys::Keys;
use crate::bag::TensorBag;
use crate::change::OwnTable;
use crate::error::Result;
use crate::names::{self, Param, Part};
use polygraft::ir::{Dense, LinearSite, Norm, NormSite, Op, Patch, Rewording, Site};
use polygraft::model::{HeadInput, HeadSpec, ModelSpec};
use polygraft::tensor::Matrix;
use std::collections::BTreeMap;

/// The head whose output layer the file brings.
pub(super) fn own(keys: &Keys, bag: &TensorBag, spec: &ModelSpec) -> Option<HeadSpec> {
    let hint = keys.hint.or(spec.head.as_ref().map(|h| h.task));
    let task = names::head_task(spec.arch, keys.plain().map(|(bare, _)| bare), hint)?;
    let labels = keys.plain().find_map(|(bare, original)| {
        let (part, param) = names::tensor(spec.arch, bare)?;
        let output = part == Part::Linear(LinearSite::HeadOutput) && param == Param::Weight;
        if output { bag.shape(original).and_then(|s| s.first().copied()) } else { None }
    })?;
    Some(HeadSpec {
        kind: *spec.head_kinds.get(&task)?,
        task,
        labels: u32::try_from(labels).unwrap_or_default(),
        uncouples: false,
        label_names: Vec::new(),
        score_activation: None,
    })
}

/// Drops the updates of a pooler that neither the base nor the file has, and says which they are. PEFT trains them with the
/// model of a sentence encoder, whose vectors do not come from there, and saves them as they began.
pub(super) fn unread_pooler(
    keys: &mut Keys,
    bag: &mut TensorBag,
    head: Option<&HeadSpec>,
    spec: &ModelSpec,
) -> Vec<String> {
    let path = names::path(spec.arch, None, Part::Linear(LinearSite::Pooler));
    let read = spec.linears.contains_key(&LinearSite::Pooler)
        || head.is_some_and(|h| matches!(h.kind.input, HeadInput::Pooled(_)))
        || keys.original(&format!("{path}.{}", Param::Weight.name())).is_some();
    if read || path.is_empty() {
        return Vec::new();
    }
    let unread = keys.forget(&path);
    unread.iter().for_each(|name| bag.ignore(name));
    unread
}

/// `[outputs, inputs]` of a linear layer under the adapter: of its own head, or else of the base.
pub(super) fn shape(site: LinearSite, head: Option<&HeadSpec>, spec: &ModelSpec) -> Option<(usize, usize)> {
    let own = head.and_then(|h| h.kind.shape(site, h.labels as usize, spec.hidden));
    own.or_else(|| spec.linear_shape(site))
}

/// The width of a norm under the adapter.
pub(super) fn width(site: NormSite, head: Option<&HeadSpec>, spec: &ModelSpec) -> usize {
    match site {
        NormSite::HeadDense(_) => head.or(spec.head.as_ref()).map_or(0, |h| h.kind.width as usize),
        _ => spec.norms.get(&site).map_or(spec.hidden, |n| spec.weight(n.gamma).cols),
    }
}

/// Takes every plain base key from the file.
pub(super) fn overrides(
    config: &Config<'_>,
    keys: &Keys,
    head: Option<&HeadSpec>,
    bag: &mut TensorBag,
    spec: &ModelSpec,
    patches: &mut Vec<Patch>,
    missing: &mut Vec<String>,
) -> Result<()> {
    let mut linears: BTreeMap<LinearSite, Dense> = BTreeMap::new();
    let mut norms = BTreeMap::new();
    let mut modules = Vec::new();
    for (bare, original) in keys.plain() {
        if names::does_nothing(spec.arch, bare) {
            bag.ignore(original);
            continue;
        }
        let Some((part, param)) = names::tensor(spec.arch, bare) else { continue };
        let shape = match part {
            Part::Word | Part::Position | Part::TokenType | Part::Relative => {
                let Some(site) = part.table().filter(|_| param == Param::Weight) else { continue };
                let Some(base) = spec.table(site).map(|id| spec.weight(id)) else { continue };
                // Words may have been added.
                let own = bag.shape(original).and_then(|s| s.first().copied()).filter(|n| *n > base.rows);
                let rows = own.filter(|_| site == Site::Word).unwrap_or(base.rows);
                modules.push(keys.wrapped(bare.rsplit_once('.').map_or(bare, |(path, _)| path)));
                if let Some(table) = bag.matrix(original, rows, base.cols)? {
                    patches.push(Patch { site, op: Op::Rewording(Rewording::new(OwnTable(table))) });
                }
                continue;
            }
            Part::Norm(site) => (width(site, head, spec), 0),
            Part::Linear(site) => match shape(site, head, spec) {
                Some(shape) => shape,
                None => continue,
            },
        };
        modules.push(keys.wrapped(bare.rsplit_once('.').map_or(bare, |(path, _)| path)));
        match (part, param) {
            (Part::Norm(site), _) => {
                let values = bag.take(original, &[shape.0])?;
                let norm = norms.entry(site).or_insert(Norm { gamma: None, beta: None });
                *(if param == Param::Weight { &mut norm.gamma } else { &mut norm.beta }) = values;
            }
            (Part::Linear(site), Param::Weight) => {
                let values = bag.take(original, &[shape.0, shape.1])?;
                let entry = linears.entry(site).or_insert(Dense { weight: None, bias: None });
                entry.weight = values.and_then(|v| Matrix::dense(shape.0, shape.1, v));
            }
            (Part::Linear(site), Param::Bias) => {
                let values = bag.take(original, &[shape.0])?;
                linears.entry(site).or_insert(Dense { weight: None, bias: None }).bias = values;
            }
            (Part::Word | Part::Position | Part::TokenType | Part::Relative, _) => {}
        }
    }
    promised(config, keys, spec, &modules, missing);
    if head.is_some() || !keys.automatic.is_empty() {
        // transformers' heads have a weight and, with few exceptions, a bias in every linear layer.
        for (site, dense) in linears.iter().filter(|(site, _)| Site::Linear(**site).is_head()) {
            let path = names::path(spec.arch, head.map(|h| h.task).or(keys.task), Part::Linear(*site));
            let biased = spec.head_biases || *site == LinearSite::HeadOutput;
            let gone = [(dense.weight.is_none(), Param::Weight), (biased && dense.bias.is_none(), Param::Bias)];
            missing.extend(gone.into_iter().filter(|(gone, _)| *gone).map(|(_, p)| format!("{path}.{}", p.name())));
        }
    }
    patches.extend(linears.into_iter().map(|(site, op)| Patch { site: Site::Linear(site), op: Op::ReplaceLinear(op) }));
    patches.extend(norms.into_iter().map(|(site, op)| Patch { site: Site::Norm(site), op: Op::ReplaceNorm(op) }));
    Ok(())
}

/// An entry of `modules_to_save` takes every module whose path ends in it, with no regard to dots.
fn promised(config: &Config<'_>, keys: &Keys, spec: &ModelSpec, modules: &[String], missing: &mut Vec<String>) {
    let among = |modules: &[String], entry: &str| {
        modules.iter().any(|m| m.ends_with(entry) || m.contains(&format!("{entry}.")))
    };
    let there = |entry: &str| among(modules, entry);
    // An entry that means no module of the model has nothing in the file.
    let all: Vec<String> = names::paths(spec).map(|path| keys.wrapped(&path)).collect();
    for entry in config.modules_to_save.iter().filter(|e| !keys.automatic.contains(e) && among(&all, e)) {
        if !there(entry) {
            missing.push(format!("{entry} (modules_to_save)"));
        }
    }
    // Some bases' heads have other names than PEFT thinks.
    let output = keys.task.map(|task| names::path(spec.arch, Some(task), Part::Linear(LinearSite::HeadOutput)));
    if !keys.automatic.is_empty() && !keys.automatic.iter().chain(&output).any(|e| there(e)) {
        missing.push(format!("{} (the head of its task)", keys.automatic[0]));
    }
}
