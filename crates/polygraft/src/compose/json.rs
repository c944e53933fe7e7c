//! JSON to [`Compose`]: text, `null`, an array (a stack), or a tree such as `{"sum": ["a", "b"], "weights": [0.5, 0.5]}`.

use super::{Compose, Share, Weighted};
use crate::error::{Error, Result};
use serde_json::Value;

impl Compose {
    /// Reads a composition from its JSON form.
    ///
    /// # Errors
    /// [`Error::ComposeSyntax`] naming the part that cannot be read.
    pub fn from_json(value: &Value) -> Result<Self> {
        let error =
            |why: &str| Error::ComposeSyntax { text: value.to_string().chars().take(200).collect(), why: why.into() };
        match value {
            Value::Null => Ok(Self::Base),
            Value::String(text) => text.parse(),
            Value::Array(list) if list.is_empty() => Err(error("an empty list; write null or \"base\" for no adapter")),
            Value::Array(list) => Ok(Self::Stack(parts(list)?)),
            Value::Object(map) => {
                let weights = match map.get("weights") {
                    None | Some(Value::Null) => None,
                    Some(v) => Some(numbers(v).ok_or_else(|| error("`weights` must be a list of finite numbers"))?),
                };
                let mut keys = map.keys().filter(|k| !matches!(k.as_str(), "weights" | "scale" | "of"));
                if let (Some(scale), Some(of), None) = (map.get("scale"), map.get("of"), keys.next()) {
                    let scale = number(scale).ok_or_else(|| error("`scale` must be a finite number"))?;
                    return match Self::from_json(of)? {
                        Self::Base => Err(error("`base` has nothing to scale")),
                        of => Ok(Self::Scale(Box::new(of), scale)),
                    };
                }
                if let Some(Value::Array(list)) = map.get("split") {
                    return match map.keys().find(|k| !matches!(k.as_str(), "split" | "tokens")) {
                        None => split(list, map.get("tokens")).map_err(|e| e.unwrap_or_else(|| error(TOKENS))),
                        Some(_) => Err(error("a split has parts and, where it counts them, tokens")),
                    };
                }
                let mut keys = map.iter().filter(|(k, _)| k.as_str() != "weights");
                let (Some((key, Value::Array(list))), None) = (keys.next(), keys.next()) else {
                    return Err(error(
                        "expected one of stack, fuse, average, mix, sum, split with a list, or {scale, of}",
                    ));
                };
                if list.is_empty() {
                    return Err(error("an empty list"));
                }
                match (key.as_str(), weights) {
                    ("stack", None) => Ok(Self::Stack(parts(list)?)),
                    ("fuse", None) => Ok(Self::Fuse(parts(list)?)),
                    ("average", w) => {
                        Ok(Self::Average(weighted(list, w).map_err(|e| e.unwrap_or_else(|| error(COUNT)))?))
                    }
                    ("mix", w) => Ok(Self::Mix(weighted(list, w).map_err(|e| e.unwrap_or_else(|| error(COUNT)))?)),
                    ("sum", w) => Ok(Self::Sum(weighted(list, w).map_err(|e| e.unwrap_or_else(|| error(COUNT)))?)),
                    ("stack" | "fuse", Some(_)) => Err(error("`weights` belongs to average, mix and sum")),
                    _ => Err(error("expected one of stack, fuse, average, mix, sum, split")),
                }
            }
            Value::Bool(_) | Value::Number(_) => Err(error("expected text, null, a list or an object")),
        }
    }
}

const TOKENS: &str = "`tokens` must have a number, or \"*\" for the rest, for each part of the split";
const COUNT: &str = "`weights` and the list must be equally long";

/// Parts with their tokens, or the two sides of the first separator when nothing is counted.
fn split(list: &[Value], tokens: Option<&Value>) -> Result<Compose, Option<Error>> {
    let parts = list.iter().map(Compose::from_json).collect::<Result<Vec<_>>>().map_err(Some)?;
    let shares: Vec<Share> = match tokens {
        None | Some(Value::Null) => vec![Share::Segment; parts.len()],
        Some(Value::Array(list)) if list.len() == parts.len() => {
            let share = |v: &Value| match v {
                Value::String(rest) if rest == "*" => Some(Share::Rest),
                v => v.as_u64().and_then(|n| u32::try_from(n).ok()).map(Share::Tokens),
            };
            list.iter().map(share).collect::<Option<_>>().ok_or(None)?
        }
        Some(_) => return Err(None),
    };
    // As text a number behind a part would be its count.
    if shares.contains(&Share::Segment)
        && let Some(scaled) = parts.iter().find(|part| matches!(part, Compose::Scale(..)))
    {
        let why =
            "a part of a split at the separator has no number: give `tokens` for all parts, or scale what is in it";
        return Err(Some(Error::ComposeSyntax { text: scaled.to_string(), why: why.into() }));
    }
    // What the grammar refuses of a split is refused here too.
    Compose::Split(parts.into_iter().zip(shares).collect()).to_string().parse().map_err(Some)
}

fn parts(list: &[Value]) -> Result<Vec<Compose>> {
    list.iter().map(inner).collect()
}

fn inner(value: &Value) -> Result<Compose> {
    match Compose::from_json(value)? {
        Compose::Base => Err(Error::ComposeSyntax {
            text: value.to_string(),
            why: "`base` stands only for a whole composition".into(),
        }),
        other => Ok(other),
    }
}

fn weighted(list: &[Value], weights: Option<Vec<f32>>) -> Result<Vec<Weighted>, Option<Error>> {
    let parts = parts(list).map_err(Some)?;
    match weights {
        Some(w) if w.len() != parts.len() => Err(None),
        Some(w) => Ok(parts.into_iter().zip(w).map(|(of, w)| Weighted { of, weight: Some(w) }).collect()),
        // "a:0.5" inside a list is a weight here, as it is in text.
        None => Ok(parts
            .into_iter()
            .map(|of| match of {
                Compose::Scale(of, w) => Weighted { of: *of, weight: Some(w) },
                of => Weighted { of, weight: None },
            })
            .collect()),
    }
}

fn number(v: &Value) -> Option<f32> {
    v.as_f64().map(|x| x as f32).filter(|x| x.is_finite())
}

fn numbers(v: &Value) -> Option<Vec<f32>> {
    v.as_array()?.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn trees_equal_texts() {
        for (tree, text) in [
            (json!(null), "base"),
            (json!("stack(a, b)"), "stack(a, b)"),
            (json!(["a", "b"]), "stack(a, b)"),
            (json!({"sum": ["a", "b"], "weights": [0.5, 2]}), "sum(a:0.5, b:2)"),
            (json!({"split": ["a", "b"], "tokens": [3, "*"]}), "split(a:3, b:*)"),
            (json!({"split": ["a", ["b", "c"]]}), "split(a, stack(b, c))"),
            (json!({"mix": ["a:0.5", "b"]}), "mix(a:0.5, b)"),
            (json!({"mix": ["a:0.5", "b"], "weights": [0.3, 0.7]}), "mix(a:0.5:0.3, b:0.7)"),
            (json!({"split": ["a:0.5", "b"], "tokens": [3, "*"]}), "split(a:0.5:3, b:*)"),
            (json!({"stack": [{"scale": 0.5, "of": "a"}, "b"]}), "stack(a:0.5, b)"),
        ] {
            assert_eq!(Compose::from_json(&tree).unwrap(), text.parse().unwrap());
        }
        for bad in [
            json!(3),
            json!([]),
            json!({"sum": ["a"], "weights": [1, 2]}),
            json!({"x": ["a"]}),
            json!({"split": ["a:2", "b"]}),
            json!([null]),
            json!({}),
        ] {
            assert!(Compose::from_json(&bad).is_err(), "{bad}");
        }
    }
}
