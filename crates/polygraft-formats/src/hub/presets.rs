//! Configurations by name, as older files have them: `pfeiffer`, `seq_bn[reduction_factor=4]`, `par_bn|lora[r=2]`.

use super::config::bad;
use crate::error::{Result, shown};
use crate::json::Json;

const SEQ_BN: &str = r#"{"mh_adapter": false, "output_adapter": true, "reduction_factor": 16, "non_linearity": "relu",
    "original_ln_before": true, "original_ln_after": true}"#;
const DOUBLE_SEQ_BN: &str = r#"{"mh_adapter": true, "output_adapter": true, "reduction_factor": 16,
    "non_linearity": "swish", "original_ln_before": false, "original_ln_after": true}"#;
const PAR_BN: &str = r#"{"mh_adapter": false, "output_adapter": true, "reduction_factor": 2, "non_linearity": "relu",
    "is_parallel": true, "scaling": 4.0}"#;
const NICE: &str = r#"{"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}"#;
const COMPACTER: &str = r#"{"phm_layer": true, "reduction_factor": 32, "non_linearity": "gelu"}"#;
const PREFIX: &str = r#"{"architecture": "prefix_tuning"}"#;
const LORA: &str = r#"{"architecture": "lora"}"#;
const VERA: &str = r#"{"vera_d": 0.1, "vera_b": 0.0}"#;
const IA3: &str = r#"{"r": 1, "alpha": 1, "attn_matrices": ["k", "v"], "intermediate_lora": true,
    "composition_mode": "scale"}"#;
const REFT: &str = r#"{"architecture": "reft", "layers": "all", "prefix_positions": 3, "suffix_positions": 0, "r": 1,
    "orthogonality": false}"#;
const GATED: &str = r#"{"use_gating": true}"#;

/// What a name stands for: the members of a union, each as dictionaries of which later ones win. What they do not say
/// is the default of the method.
fn preset(name: &str) -> Option<Vec<Vec<&'static str>>> {
    Some(match name {
        "pfeiffer" | "seq_bn" => vec![vec![SEQ_BN]],
        "pfeiffer+inv" | "seq_bn_inv" => vec![vec![SEQ_BN, NICE]],
        "houlsby" | "double_seq_bn" => vec![vec![DOUBLE_SEQ_BN]],
        "houlsby+inv" | "double_seq_bn_inv" => vec![vec![DOUBLE_SEQ_BN, NICE]],
        "parallel" | "par_bn" => vec![vec![PAR_BN]],
        "scaled_parallel" | "scaled_par_bn" => vec![vec![PAR_BN, r#"{"scaling": "learned"}"#]],
        "compacter" => vec![vec![DOUBLE_SEQ_BN, COMPACTER]],
        "compacter++" => vec![vec![SEQ_BN, COMPACTER]],
        "prefix_tuning" => vec![vec![PREFIX]],
        "prefix_tuning_flat" => vec![vec![PREFIX, r#"{"flat": true}"#]],
        "prompt_tuning" => vec![vec![r#"{"architecture": "prompt_tuning"}"#]],
        "lora" => vec![vec![LORA]],
        "ia3" => vec![vec![LORA, IA3]],
        "vera" => vec![vec![LORA, VERA]],
        "dora" => vec![vec![LORA, r#"{"use_dora": true}"#]],
        "dvora" => vec![vec![LORA, VERA, r#"{"use_dora": true}"#]],
        "mtl_lora" => vec![vec![r#"{"architecture": "mtl_lora"}"#]],
        "loreft" => vec![vec![REFT, r#"{"orthogonality": true}"#]],
        "noreft" => vec![vec![REFT]],
        // By its name alone the library knows it for what it is; a dictionary does not say so.
        "direft" => vec![vec![REFT, r#"{"subtract_projection": false}"#]],
        "mam" => vec![vec![PREFIX, r#"{"bottleneck_size": 800}"#], vec![PAR_BN]],
        "unipelt" => vec![
            vec![PREFIX, r#"{"prefix_length": 10}"#, GATED],
            vec![SEQ_BN, GATED],
            vec![LORA, r#"{"r": 8, "alpha": 2}"#, GATED],
        ],
        _ => return None,
    })
}

/// The methods that `text` names.
///
/// # Errors
/// [`FormatError::AdapterConfig`](crate::FormatError::AdapterConfig).
pub(super) fn named(text: &str) -> Result<Vec<Json>> {
    let mut out = Vec::new();
    for part in text.split('|').map(str::trim) {
        let (name, changes) = match part.split_once('[') {
            None => (part, ""),
            Some((name, rest)) => match rest.strip_suffix(']') {
                Some(changes) => (name, changes),
                None => return Err(bad("config", format!("{:?}: its bracket does not end", shown(part)))),
            },
        };
        let Some(members) = preset(name) else {
            return Err(bad("config", format!("{:?} is not a configuration that the library knows", shown(name))));
        };
        let changes = changed(changes)?;
        if members.len() > 1 && (!changes.is_empty() || text.contains('|')) {
            return Err(bad("config", format!("{name} is a union, and cannot be changed or joined by name")));
        }
        for member in members {
            let mut entries: Vec<(String, Json)> = Vec::new();
            for dictionary in member {
                let parsed = Json::parse("preset", dictionary.as_bytes())?;
                parsed.entries().iter().for_each(|(key, value)| set(&mut entries, key, value));
            }
            changes.iter().for_each(|(key, value)| set(&mut entries, key, value));
            out.push(Json::Object(entries));
        }
    }
    Ok(out)
}

fn set(entries: &mut Vec<(String, Json)>, key: &str, value: &Json) {
    match entries.iter_mut().find(|(k, _)| k == key) {
        Some((_, old)) => *old = value.clone(),
        None => entries.push((key.into(), value.clone())),
    }
}

/// `key=value, …`, the values as Python writes them.
fn changed(text: &str) -> Result<Vec<(String, Json)>> {
    let mut python = Python { text, at: 0 };
    let mut out = Vec::new();
    while !python.rest().is_empty() {
        let key = python.word();
        if key.is_empty() || !python.eat('=') {
            return Err(python.wrong());
        }
        out.push((key.to_owned(), python.value(0)?));
        if !python.eat(',') && !python.rest().is_empty() {
            return Err(python.wrong());
        }
    }
    Ok(out)
}

/// A reader of Python's literals.
struct Python<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Python<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default().trim_start()
    }

    fn skip(&mut self, rest: &str) {
        self.at = self.text.len() - rest.len();
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.rest().strip_prefix(c);
        found.inspect(|rest| self.skip(rest)).is_some()
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end =
            rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+'))).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.skip(rest);
        word
    }

    fn wrong(&self) -> crate::FormatError {
        bad("config", format!("{:?} is not key=value, …, as Python writes values", shown(self.text)))
    }

    fn value(&mut self, depth: u8) -> Result<Json> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            let (inside, rest) = rest.get(1..).and_then(|r| r.split_once(quote)).ok_or_else(|| self.wrong())?;
            self.skip(rest);
            return if inside.contains('\\') { Err(self.wrong()) } else { Ok(Json::Text(inside.into())) };
        }
        for (open, close) in [('[', ']'), ('(', ')'), ('{', '}')] {
            if depth < 8 && self.eat(open) {
                return self.inside(open, close, depth);
            }
        }
        let word = self.word();
        Ok(match word {
            "None" => Json::Null,
            "True" => Json::Bool(true),
            "False" => Json::Bool(false),
            _ => match (word.parse::<i64>(), word.parse::<f64>()) {
                (Ok(n), _) => Json::Int(n),
                (_, Ok(x)) if x.is_finite() => Json::Float(x),
                _ => return Err(self.wrong()),
            },
        })
    }

    /// A list, or a dictionary, up to its closing bracket.
    fn inside(&mut self, open: char, close: char, depth: u8) -> Result<Json> {
        let (mut list, mut entries) = (Vec::new(), Vec::new());
        while !self.eat(close) {
            let value = self.value(depth + 1)?;
            if open == '{' {
                let key = match &value {
                    Json::Text(key) => key.clone(),
                    Json::Int(n) => n.to_string(),
                    _ => return Err(self.wrong()),
                };
                if !self.eat(':') {
                    return Err(self.wrong());
                }
                entries.push((key, self.value(depth + 1)?));
            } else {
                list.push(value);
            }
            if !self.eat(',') && !self.rest().starts_with(close) {
                return Err(self.wrong());
            }
        }
        Ok(if open == '{' { Json::Object(entries) } else { Json::List(list) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_changes() {
        let json = |t: &str| Json::parse("t", t.as_bytes()).unwrap();
        let one = named("lora[r=2, alpha=1e1,attn_matrices=['q',\"k\"], leave_out=[0, 1], dtype=None]").unwrap();
        let want = r#"{"architecture": "lora", "r": 2, "alpha": 10.0, "attn_matrices": ["q", "k"], "leave_out": [0, 1], "dtype": null}"#;
        assert_eq!(one, [json(want)]);
        let map = named("seq_bn[reduction_factor={'0': 8, 'default': 16}]").unwrap();
        assert_eq!(map[0].get("reduction_factor"), Some(&json(r#"{"0": 8, "default": 16}"#)));
        assert_eq!(named("par_bn|lora[r=2]").unwrap().len(), 2);
        assert_eq!(named("unipelt").unwrap().len(), 3);
        for wrong in ["pfeifer", "lora[", "lora[r]", "lora[r=]", "lora[r=2 alpha=3]", "lora[r='x]", "mam|lora", ""] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
        assert!(named(&format!("lora[r={}", "[".repeat(100_000))).is_err());
    }
}
