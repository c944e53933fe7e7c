//! Where the tokenizer's crate (`kitoken` 0.11) normalizes otherwise than `tokenizers`, made to do as it does.

use kitoken::convert::ConversionError;
use kitoken::{Configuration, Definition, Normalization, NormalizationReplacePattern, Regex};
use serde_json::{Value, json};

/// A normalizer as the crate reads it: one list, since it takes the parts of lists in lists last, with `Strip` under the
/// crate's name for it. `None` when it is so already.
pub(super) fn rewritten(normalizer: &Value) -> Option<Value> {
    let mut steps = Vec::new();
    let changed = flatten(normalizer, 0, &mut steps);
    changed.then(|| json!({"type": "Sequence", "normalizers": steps}))
}

fn flatten(step: &Value, depth: usize, out: &mut Vec<Value>) -> bool {
    match (step["type"].as_str(), step["normalizers"].as_array()) {
        (Some("Sequence"), Some(parts)) => {
            parts.iter().fold(depth > 0, |changed, part| flatten(part, depth + 1, out) | changed)
        }
        (Some("Strip"), _) => {
            let mut renamed = step.clone();
            renamed["type"] = "StripNormalizer".into();
            out.push(renamed);
            true
        }
        _ => {
            out.push(step.clone());
            false
        }
    }
}

/// The steps of a normalizer alone, without those of a pre-tokenizer that the crate puts behind them.
pub(super) fn alone(normalizer: &Value) -> Result<Configuration, ConversionError> {
    let smallest = json!({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "normalizer": normalizer});
    let mut out = Definition::from_tokenizers_slice(smallest.to_string().as_bytes())?.config;
    lower_each(&mut out.normalization);
    Ok(out)
}

/// `tokenizers` lower-cases character by character, where Σ is σ; `str::to_lowercase` has ς for one that ends a word.
pub(super) fn lower_each(steps: &mut Vec<Normalization>) {
    let sigma =
        Normalization::Replace { pattern: NormalizationReplacePattern::Character('Σ'), replacement: "σ".into() };
    let mut at = 0;
    while at < steps.len() {
        if steps[at] == (Normalization::CaseFold { upper: false }) && (at == 0 || steps[at - 1] != sigma) {
            steps.insert(at, sigma.clone());
            at += 1;
        }
        at += 1;
    }
}

/// Where a normalizer strips, a text may be nothing before a pre-tokenizer's prefix: it stays nothing, where the crate's
/// step would make a prefix of it.
pub(super) fn leave_nothing(steps: &mut [Normalization]) -> Result<(), String> {
    let strips = |step: &Normalization| match step {
        Normalization::Replace { pattern: NormalizationReplacePattern::Regex(pattern), .. } => {
            matches!(pattern.as_ref(), r"^\s+" | r"\s+$")
        }
        _ => false,
    };
    if steps.iter().any(strips) {
        steps.iter_mut().try_for_each(prefix_of_something)?;
    }
    Ok(())
}

fn prefix_of_something(step: &mut Normalization) -> Result<(), String> {
    match step {
        Normalization::Conditional { normalization, .. } => prefix_of_something(normalization)?,
        Normalization::Extend { character, left: 1, right: 0, pad: true } => {
            let character = character.to_string();
            let pattern = Regex::new(&format!("^[^{}]", fancy_regex::escape(&character))).map_err(|e| e.to_string())?;
            *step = Normalization::Replace {
                pattern: pattern.into(),
                replacement: format!("{}$0", character.replace('$', "$$")),
            };
        }
        _ => {}
    }
    Ok(())
}
