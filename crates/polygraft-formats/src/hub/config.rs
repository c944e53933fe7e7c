//! `config` of an `adapter_config.json`: a dictionary, or one of the names that the library knows, with changes in
//! brackets; and what older releases meant by it.

use super::CONFIG;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use polygraft::model::Activation;
use std::collections::BTreeMap;

pub(super) fn bad(key: &str, why: impl Into<String>) -> FormatError {
    FormatError::AdapterConfig { file: CONFIG.into(), key: shown(key), why: why.into() }
}

/// One method's entries.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    file: &'static str,
    json: Json,
}

impl Settings {
    pub(super) fn new(file: &'static str, json: Json) -> Self {
        Self { file, json }
    }

    /// Its entries but those in `keys`, by name.
    pub(super) fn without(self, keys: &[&str]) -> BTreeMap<String, Json> {
        let Json::Object(entries) = self.json else { return BTreeMap::new() };
        entries.into_iter().filter(|(key, _)| !keys.contains(&key.as_str())).collect()
    }

    pub(super) fn bad(&self, key: &str, why: impl Into<String>) -> FormatError {
        FormatError::AdapterConfig { file: self.file.into(), key: shown(key), why: why.into() }
    }

    /// The entry, if it is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.json.get(key)
    }

    /// Whether the entry is there, be it null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.json.entries().iter().any(|(k, _)| k == key)
    }

    fn read<T>(&self, key: &str, what: &str, read: impl Fn(&Json) -> Option<T>) -> Result<Option<T>> {
        let of = |v: &Json| read(v).ok_or_else(|| self.bad(key, format!("{} is not {what}", v.brief())));
        self.get(key).map(of).transpose()
    }

    /// True or false; `default` when it is absent or null.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.read(key, "true or false", Json::truth)?.unwrap_or(default))
    }

    /// A number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", |v| v.number().filter(|x| x.is_finite()))
    }

    /// A whole number of one or more, far below what memory holds.
    pub(super) fn whole(&self, key: &str, default: usize) -> Result<usize> {
        let read = |v: &Json| v.whole().filter(|n| (1..=1 << 20).contains(n));
        Ok(self.read(key, "a whole number of 1 or more", read)?.unwrap_or(default))
    }

    /// A whole number of zero or more.
    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize> {
        let read = |v: &Json| v.whole().filter(|n| *n <= 1 << 20);
        Ok(self.read(key, "a whole number", read)?.unwrap_or(default))
    }

    /// Text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        let of = |v: &'_ Json| self.bad(key, format!("{} is not text", v.brief()));
        self.get(key).map(|v| v.text().ok_or_else(|| of(v))).transpose()
    }

    /// Layer numbers.
    pub(super) fn layers(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.read(key, "a list of layer numbers", |v| match v {
            Json::List(items) => items.iter().map(Json::whole).collect(),
            _ => None,
        })
    }

    /// A function by its name in transformers, in any case; the identity when it is null.
    pub(super) fn activation(&self, key: &str) -> Result<Activation> {
        let Some(name) = self.text(key)? else { return Ok(Activation::Identity) };
        let lower = name.to_lowercase();
        let known = if lower == "leakyrelu" { "leaky_relu" } else { lower.as_str() };
        Activation::from_name(known).ok_or_else(|| {
            let why = match lower.as_str() {
                "prelu" | "xielu" => format!("{lower} has numbers of its own and is not supported here"),
                _ => format!("{:?} is not a function that is known", shown(name)),
            };
            self.bad(key, why)
        })
    }

    /// Refuses an entry that says something and that nobody reads.
    pub(super) fn only(&self, read: &[&str], silent: &[&str]) -> Result<()> {
        for (key, value) in self.json.entries() {
            if !value.is_empty() && !read.contains(&key.as_str()) && !silent.contains(&key.as_str()) {
                let why = format!(
                    "this entry is not known, and {} may change the result; remove it if it does not",
                    value.brief()
                );
                return Err(self.bad(key, why));
            }
        }
        Ok(())
    }
}

/// The methods that `config` names: one, or the members of a union.
///
/// # Errors
/// [`FormatError::AdapterConfig`].
pub(super) fn methods(top: &Json) -> Result<Vec<Settings>> {
    let version = top.get("version").and_then(Json::text);
    let config = match top.get("config") {
        None => return Err(bad("config", "it is missing: not the configuration of an adapter")),
        Some(Json::Text(name)) => {
            return Ok(super::presets::named(name)?.into_iter().map(|json| Settings::new(CONFIG, json)).collect());
        }
        Some(config @ Json::Object(_)) => config.clone(),
        Some(other) => return Err(bad("config", format!("{} is neither a dictionary nor a name", other.brief()))),
    };
    let is_union = config.get("architecture").and_then(Json::text) == Some("union");
    if !is_union {
        return Ok(vec![Settings::new(CONFIG, older(config, version)?)]);
    }
    let Some(Json::List(members)) = config.get("configs") else {
        return Err(bad("configs", "a union without a list of members"));
    };
    members
        .iter()
        .map(|m| match m {
            Json::Text(_) => Err(bad("configs", "a member is not a dictionary")),
            m if m.get("architecture").and_then(Json::text) == Some("union") => {
                Err(bad("configs", "a union inside a union, which the library refuses as well"))
            }
            m => Ok(Settings::new(CONFIG, m.clone())),
        })
        .collect()
}

/// What older releases wrote differently; the library looks at the outermost configuration only.
fn older(config: Json, version: Option<&str>) -> Result<Json> {
    let Json::Object(mut entries) = config else { return Ok(config) };
    // Without a version, "gelu" was the tanh approximation.
    if version.is_none() {
        for (key, value) in &mut entries {
            match (key.as_str(), value.text()) {
                ("non_linearity", Some("gelu")) => *value = Json::Text("gelu_new".into()),
                ("non_linearity", Some("gelu_orig")) => *value = Json::Text("gelu".into()),
                _ => {}
            }
        }
    }
    // Before 1.1.0, adapters trained LoRA without its scale.
    let find = |key: &str, entries: &[(String, Json)]| entries.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let lora = find("architecture", &entries).and_then(|a| a.text().map(|a| a == "lora")) == Some(true);
    if lora && version.and_then(|v| v.strip_prefix("adapters.")).is_some_and(before_1_1) {
        let r = find("r", &entries).unwrap_or(Json::Int(8));
        entries.retain(|(key, _)| key != "alpha");
        entries.push(("alpha".into(), r));
    }
    // The first release kept the invertible block's settings in a dictionary of their own.
    if let Some(at) = entries.iter().position(|(key, _)| key == "invertible_adapter") {
        let (key, nested) = entries.remove(at);
        if !nested.is_empty() {
            let inside = Settings::new(CONFIG, nested);
            inside.only(&["block_type", "reduction_factor"], &["non_linearity"])?;
            let part = |name: &str| inside.get(name).cloned().ok_or_else(|| bad(&key, format!("it has no {name}")));
            let (block, factor) = (part("block_type")?, part("reduction_factor")?);
            entries.push(("inv_adapter".into(), block));
            entries.push(("inv_adapter_reduction_factor".into(), factor));
        }
    }
    Ok(Json::Object(entries))
}

fn before_1_1(version: &str) -> bool {
    let mut parts = version.split('.');
    let mut number = || {
        let part = parts.next().unwrap_or("0");
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap_or(0)
    };
    let numbers = (number(), number(), number());
    let pre = ["dev", "rc", "a", "b"].iter().any(|p| version.contains(p)) && !version.contains("post");
    numbers < (1, 1, 0) || numbers == (1, 1, 0) && pre
}
