//! Set-ups: `adapter_setup.json`, the composition, with each adapter, fusion and head in a folder of its own.

use super::heads;
use crate::adapter::AdapterOptions;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::source::{Files, SMALL, Subfolder};
use polygraft::compose::{Compose, Share, Weighted};
use polygraft::ir::{AdapterIr, BaseClaim, RowChange};
use polygraft::model::ModelSpec;

/// The composition's name.
pub(crate) const CONFIG: &str = "adapter_setup.json";
/// The part that a head outside of all adapters becomes.
const HEAD: &str = "head";
/// Deepest nesting; the library allows two.
const MAX_DEPTH: usize = 8;

/// Several adapters and the composition that they were saved in.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// In the names of `parts`.
    pub compose: Compose,
    /// Adapters, fusions, heads.
    pub parts: Vec<(String, AdapterIr)>,
}

/// Reads a folder that `save_adapter_setup` wrote.
///
/// # Errors
/// As [`super::load`] for each part; [`FormatError::AdapterConfig`] for a composition that has no counterpart here.
pub(crate) fn load(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<Setup> {
    let top = Json::parse(CONFIG, &files.read(CONFIG, SMALL)?)?;
    let tree = top.get("adapter_setup").ok_or_else(|| bad("adapter_setup", "it is missing"))?;
    let mut parts: Vec<(String, AdapterIr)> = Vec::new();
    let mut compose = read(tree, 0)?;
    for name in compose.names() {
        if !parts.iter().any(|(n, _)| n == name) {
            parts.push((name.to_owned(), super::read(&Subfolder::new(files, name), spec, options, false)?));
        }
    }
    for members in fused(&compose) {
        let name = members.join(",");
        if !parts.iter().any(|(n, _)| *n == name) {
            parts.push((name.clone(), super::load_fusion(&Subfolder::new(files, &name), spec, options)?));
        }
    }
    for (folder, head) in heads(&top)? {
        // The head of an adapter comes with its folder.
        if parts.iter().any(|(n, adapter)| Some(n) == folder.as_ref() && adapter.head.is_some()) {
            continue;
        }
        let inner = folder.as_ref().map(|name| Subfolder::new(files, name));
        let head_files: &dyn Files = inner.as_ref().map_or(files, |f| f);
        parts.push((head.clone(), only_head(head_files, spec, options)?));
        compose = Compose::Stack(vec![compose, Compose::Use(head)]);
    }
    Ok(Setup { compose, parts })
}

fn bad(key: &str, why: impl Into<String>) -> FormatError {
    FormatError::AdapterConfig { file: CONFIG.into(), key: key.into(), why: why.into() }
}

fn read(node: &Json, depth: usize) -> Result<Compose> {
    let kind = node.get("type").and_then(Json::text).unwrap_or_default();
    let children = node.get("children").map(Json::items).unwrap_or_default();
    if depth > MAX_DEPTH || children.is_empty() {
        return Err(bad("adapter_setup", format!("a {:?} of no children, or nested too deeply", shown(kind))));
    }
    if kind == "single" {
        let name = children.first().and_then(Json::text);
        // It is the name of a folder as well.
        let name = name.filter(|n| !n.is_empty() && !n.contains(['/', '\\']) && !matches!(*n, "." | ".."));
        return name.map(|n| Compose::Use(n.into())).ok_or_else(|| bad("children", "a child without a usable name"));
    }
    let inside = children.iter().map(|c| read(c, depth + 1)).collect::<Result<Vec<_>>>()?;
    let numbers = |key: &str| node.get("kwargs").and_then(|k| k.get(key)).map(Json::items);
    match kind {
        "Stack" => Ok(Compose::Stack(inside)),
        "Fuse" => Ok(Compose::Fuse(inside)),
        "Average" => {
            let weights = numbers("weights").map(|w| w.iter().map(Json::number).collect::<Vec<_>>());
            let weights = weights.unwrap_or_else(|| vec![Some(1.0); inside.len()]);
            if weights.len() != inside.len() || weights.contains(&None) {
                return Err(bad("weights", "they are not a number for each child"));
            }
            #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
            let weighted = |(of, weight): (Compose, Option<f64>)| Weighted { of, weight: weight.map(|w| w as f32) };
            Ok(Compose::Average(inside.into_iter().zip(weights).map(weighted).collect()))
        }
        "Split" => {
            let splits = numbers("splits").map(|s| s.iter().map(Json::whole).collect::<Vec<_>>()).unwrap_or_default();
            let shares: Option<Vec<Share>> =
                splits.iter().map(|n| n.and_then(|n| u32::try_from(n).ok()).map(Share::Tokens)).collect();
            match shares.filter(|s| s.len() == inside.len()) {
                Some(shares) => Ok(Compose::Split(inside.into_iter().zip(shares).collect())),
                None => Err(bad("splits", "they are not a number of tokens for each child")),
            }
        }
        "Parallel" | "BatchSplit" | "MultiTask" => {
            let why = format!("{kind} sends rows to different adapters; here each row names its own composition");
            Err(bad("adapter_setup", why))
        }
        other => Err(bad("adapter_setup", format!("{:?} is not a composition that is known", shown(other)))),
    }
}

/// The members of each fusion, as they stand in its name: the last adapter of a stack for the stack.
fn fused(compose: &Compose) -> Vec<Vec<String>> {
    let last = |c: &Compose| c.names().last().map(|n| (*n).to_owned()).unwrap_or_default();
    match compose {
        Compose::Base | Compose::Use(_) => Vec::new(),
        Compose::Scale(of, _) => fused(of),
        Compose::Fuse(list) => vec![list.iter().map(last).collect()],
        Compose::Stack(list) => list.iter().flat_map(fused).collect(),
        Compose::Average(list) | Compose::Mix(list) | Compose::Sum(list) => {
            list.iter().flat_map(|w| fused(&w.of)).collect()
        }
        Compose::Split(list) => list.iter().flat_map(|(c, _)| fused(c)).collect(),
    }
}

/// The heads of a set-up: the folder (none for one of transformers' classes, which lies beside the composition), and the
/// name of the part.
fn heads(top: &Json) -> Result<Vec<(Option<String>, String)>> {
    let named = |json: &Json| {
        let name = json.text().filter(|n| !n.is_empty() && !n.contains(['/', '\\']) && !matches!(*n, "." | ".."));
        name.map(|n| (Some(n.to_owned()), n.to_owned()))
            .ok_or_else(|| bad("head_setup", "a head without a usable name"))
    };
    match top.get("head_setup") {
        None | Some(Json::Bool(false)) => Ok(Vec::new()),
        Some(Json::Bool(true)) => Ok(vec![(None, HEAD.into())]),
        Some(text @ Json::Text(_)) => Ok(vec![named(text)?]),
        Some(Json::List(list)) => list.iter().map(named).collect(),
        Some(_) => Err(bad("head_setup", "several heads at once have no counterpart here; name one")),
    }
}

fn only_head(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<AdapterIr> {
    let head = heads::load(files, spec, options)?;
    if head.spec.is_none() {
        return Err(crate::source::missing("head_config.json", &files.names()));
    }
    Ok(AdapterIr {
        family: HEAD,
        base: BaseClaim::default(),
        patches: head.patches,
        head: head.spec,
        chains: false,
        rows: RowChange::default(),
        copies: None,
        fuses: None,
        language: None,
        made_under: None,
        unused: head.unused,
        missing: head.missing,
    })
}
