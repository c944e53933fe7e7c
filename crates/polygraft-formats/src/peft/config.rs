//! `adapter_config.json`: what all families share, typed access to the rest, and a refusal of what is not known.

use super::CONFIG;
use super::family::{Defaults, Family, READ, SILENT};
use super::targets::{Form, Matcher, Pattern, Targets};
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use polygraft::model::Arch;

/// Which biases travel with the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Biases {
    None,
    OfTargets,
    All,
}

/// What the configurations of all families have in common, and the file itself.
#[derive(Debug)]
pub(super) struct Config<'a> {
    json: &'a Json,
    pub(super) bias: Biases,
    pub(super) targets: Targets,
    pub(super) modules_to_save: Vec<String>,
    pub(super) task: Option<&'a str>,
    pub(super) base_name: Option<&'a str>,
}

pub(super) fn bad(key: &str, why: impl Into<String>) -> FormatError {
    FormatError::AdapterConfig { file: CONFIG.into(), key: shown(key), why: why.into() }
}

impl<'a> Config<'a> {
    pub(super) fn parse(json: &'a Json, family: &Family, arch: Arch) -> Result<Self> {
        for (key, value) in json.entries() {
            let known = [READ, SILENT, family.reads, family.silent].iter().any(|list| list.contains(&key.as_str()));
            if value.is_empty() || known {
                continue;
            }
            if let Some((_, what)) = family.refuses.iter().find(|(name, _)| name == key) {
                return Err(bad(key, format!("{what}; this version of the reader of {} does without", family.name)));
            }
            return Err(bad(
                key,
                format!(
                    "this version does not know this entry of {}, and {} may change the result; remove it if it does not",
                    family.name,
                    value.brief()
                ),
            ));
        }
        let bias = match json.get("bias").map(|b| b.text().unwrap_or_default()) {
            None | Some("none") => Biases::None,
            Some("all") => Biases::All,
            Some(text) if text.ends_with("_only") => Biases::OfTargets,
            Some(other) => return Err(bad("bias", format!("{:?} is not none, all or ..._only", shown(other)))),
        };
        Ok(Self {
            json,
            bias,
            targets: targets(json, family.targets, arch)?,
            modules_to_save: names("modules_to_save", json.get("modules_to_save"))?,
            task: json.get("task_type").and_then(Json::text),
            base_name: json.get("base_model_name_or_path").and_then(Json::text),
        })
    }

    /// Whether the class of the model that was wrapped, which a file without a task names, has a head: the backbone's modules
    /// then have a prefix, and names of targets are compared with it.
    pub(super) fn wraps_a_head(&self) -> bool {
        self.class().is_some_and(|class| class.contains("For"))
    }

    /// The class of the model that was wrapped, which PEFT writes where there is no task.
    pub(super) fn class(&self) -> Option<&'a str> {
        self.get("auto_mapping").and_then(|m| m.get("base_model_class")).and_then(Json::text)
    }

    /// The entry `key`, absent when it is null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Json> {
        self.json.get(key)
    }

    /// A finite number.
    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |v| finite(key, v))
    }

    /// A rank, a size or a count: 1 to 65 536.
    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |v| count(key, v))
    }

    /// A whole number of 0 to 65 536.
    pub(super) fn whole(&self, key: &str, default: usize) -> Result<usize> {
        let none = |v: &&Json| v.whole() != Some(0);
        self.get(key).map_or(Ok(default), |v| Some(v).filter(none).map_or(Ok(0), |v| count(key, v)))
    }

    /// A seed as torch's generator takes it: negative ones count from 2⁶⁴ down.
    pub(super) fn seed(&self, key: &str, default: u64) -> Result<u64> {
        match self.get(key) {
            None => Ok(default),
            Some(Json::Int(n)) => Ok(n.cast_unsigned()),
            Some(v) => Err(bad(key, format!("{} is not a whole number", v.brief()))),
        }
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let truth = |v: &Json| v.truth().ok_or_else(|| bad(key, format!("{} is not true or false", v.brief())));
        self.get(key).map_or(Ok(default), truth)
    }

    /// A text.
    pub(super) fn text(&self, key: &str, default: &'a str) -> Result<&'a str> {
        let text = |v: &'a Json| v.text().ok_or_else(|| bad(key, format!("{} is not a text", v.brief())));
        self.get(key).map_or(Ok(default), text)
    }

    /// Numbers by pattern of module.
    pub(super) fn numbers_by_pattern(&self, key: &str) -> Result<Patterns<f64>> {
        self.patterns(key, finite)
    }

    /// Counts by pattern of module.
    pub(super) fn counts_by_pattern(&self, key: &str) -> Result<Patterns<usize>> {
        self.patterns(key, count)
    }

    fn patterns<T>(&self, key: &str, read: fn(&str, &Json) -> Result<T>) -> Result<Patterns<T>> {
        let entries = self.get(key).map(Json::entries).unwrap_or_default();
        let one = |(k, v): &(String, Json)| Ok((Pattern::new(key, k, Form::End, entries.len())?, read(key, v)?));
        entries.iter().map(one).collect::<Result<_>>().map(Patterns)
    }
}

/// Values by pattern of module, tried in the order of the file, as PEFT does.
#[derive(Debug)]
pub(super) struct Patterns<T>(Vec<(Pattern, T)>);

impl<T: Copy> Patterns<T> {
    /// The values of all patterns.
    pub(super) fn values(&self) -> impl Iterator<Item = T> + '_ {
        self.0.iter().map(|(_, value)| *value)
    }

    pub(super) fn at(&self, module: &str) -> Result<Option<T>> {
        for (pattern, value) in &self.0 {
            if pattern.matches(module)? {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }
}

fn count(key: &str, v: &Json) -> Result<usize> {
    match v.whole() {
        Some(n) if (1..=1 << 16).contains(&n) => Ok(n),
        _ => Err(bad(key, format!("{} is not a whole number of 1 or more", v.brief()))),
    }
}

fn finite(key: &str, v: &Json) -> Result<f64> {
    v.number().filter(|x| x.is_finite()).ok_or_else(|| bad(key, format!("{} is not a number", v.brief())))
}

fn targets(json: &Json, defaults: Option<Defaults>, arch: Arch) -> Result<Targets> {
    let matcher = |key: &str| match json.get(key) {
        None => Ok(None),
        Some(Json::Text(t)) if key == "target_modules" && t.eq_ignore_ascii_case("all-linear") => {
            Ok(Some(Matcher::AllLinear))
        }
        Some(Json::Text(t)) => Pattern::new(key, t, Form::Whole, 1).map(|p| Some(Matcher::Regex(Box::new(p)))),
        // An empty list is none, not what there is without one.
        Some(list @ Json::List(_)) => names(key, Some(list)).map(|n| Some(Matcher::Names(n))),
        Some(other) => Err(bad(key, format!("{} is neither a list of names nor a pattern", other.brief()))),
    };
    let layers = match json.get("layers_to_transform") {
        None => None,
        Some(v) => {
            let list = if let Json::List(items) = v { items.clone() } else { vec![v.clone()] };
            let list: Option<Vec<usize>> = list.iter().map(Json::whole).collect();
            let list = list.ok_or_else(|| bad("layers_to_transform", format!("{} is not layer numbers", v.brief())))?;
            if list.is_empty() { None } else { Some(list) }
        }
    };
    let pattern = match json.get("layers_pattern") {
        Some(Json::Text(t)) => vec![t.clone()],
        other => names("layers_pattern", other)?,
    };
    let layer_patterns = pattern
        .iter()
        .map(|p| Pattern::new("layers_pattern", &format!(r"(?:^|.*?\.){p}\.(\d+)\."), Form::Start, pattern.len()))
        .collect::<Result<_>>()?;
    let default = match defaults {
        None => crate::names::lora_targets(arch),
        Some(table) => table.iter().find(|(name, _)| *name == arch.name()).map_or(&[][..], |(_, names)| names),
    };
    let default = Matcher::Names(default.iter().map(|n| (*n).to_owned()).collect());
    let include = matcher("target_modules")?.or(Some(default));
    Ok(Targets { include, exclude: matcher("exclude_modules")?, layers, layer_patterns })
}

/// A list of names; none when it is absent.
pub(super) fn names(key: &str, value: Option<&Json>) -> Result<Vec<String>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let list: Option<Vec<String>> = value.items().iter().map(|v| v.text().map(str::to_owned)).collect();
    match (value, list) {
        (Json::List(_), Some(list)) => Ok(list),
        _ => Err(bad(key, format!("{} is not a list of names", value.brief()))),
    }
}
