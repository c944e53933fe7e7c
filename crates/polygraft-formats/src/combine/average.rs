//! The weighted mean of every tensor: `average_adapter(…, combine_strategy="linear")` of AdapterHub, and the same for any
//! method of PEFT.

use super::{CONFIG, Folder, Merge, Part, Recipe, argument};
use crate::bag::TensorBag;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::output::TensorFile;
use crate::source::{ADAPTER, SMALL};
use crate::{hub, peft};

/// The mean of adapters of one configuration, with weights that are made to sum to 1.
pub(super) fn average(parts: &[Part<'_>], configs: &[Json], recipe: &Recipe<'_>) -> Result<Folder> {
    let of_hub = configs.first().is_some_and(hub::claims);
    let total: f64 = parts.iter().map(|p| p.weight).sum();
    #[allow(clippy::cast_possible_truncation, reason = "adapters are f32")]
    let weights: Vec<f32> = parts.iter().map(|p| (p.weight / total) as f32).collect();
    if weights.iter().any(|w| !w.is_finite()) {
        return Err(argument("weight", "the weights sum to 0: an average divides by their sum"));
    }
    for (part, config) in parts.iter().zip(configs).skip(1) {
        let same = if of_hub { hub::alike(&configs[0], config)? } else { peft::alike(&configs[0], config)? };
        if let Some(key) = same {
            let why = format!(
                "{} and {} differ in {}, and an average is of adapters of one configuration",
                shown(parts[0].name),
                shown(part.name),
                shown(&key)
            );
            return Err(FormatError::Unsupported { file: part.file(CONFIG), why });
        }
    }
    let (candidates, written) =
        if of_hub { (hub::WEIGHTS, hub::WEIGHTS[1]) } else { (peft::WEIGHTS, peft::WEIGHTS[0]) };
    let names =
        configs.iter().map(|c| if of_hub { own_name(c) } else { Ok(String::new()) }).collect::<Result<Vec<_>>>()?;
    let mut bags = Vec::with_capacity(parts.len());
    for (part, name) in parts.iter().zip(&names) {
        let mut bag = open(part, candidates)?;
        // AdapterHub writes an adapter's name into its tensors' names.
        bag.rename(|tensor| renamed(tensor, name, recipe.name))?;
        bags.push(bag);
    }
    let mut out = TensorFile::new();
    let tensors: Vec<String> = bags.first().into_iter().flat_map(TensorBag::names).map(str::to_owned).collect();
    for tensor in &tensors {
        mean(&mut bags, parts, &weights, tensor, &mut out)?;
    }
    for bag in bags {
        bag.finish(true, Vec::new())?;
    }
    let mut config = parsed(&parts[0])?;
    if of_hub {
        config["name"] = recipe.name.into();
    }
    Ok(vec![(CONFIG.into(), pretty(&config)), (written.into(), out.bytes()?)])
}

/// The configuration as it stands, to be written with changes.
pub(crate) fn parsed(part: &Part<'_>) -> Result<serde_json::Value> {
    let bytes = part.files.read(CONFIG, SMALL)?;
    serde_json::from_slice(&bytes).map_err(|e| crate::json::problem(&part.file(CONFIG), &bytes, &e))
}

/// The configuration's text, as Python writes it.
pub(crate) fn pretty(config: &serde_json::Value) -> Vec<u8> {
    format!("{config:#}\n").into_bytes()
}

/// A part's weights.
pub(crate) fn open(part: &Part<'_>, candidates: [&str; 2]) -> Result<TensorBag> {
    let there = part.files.names();
    if there.iter().any(|n| n == hub::WORDS) {
        let why = "an adapter with words of its own cannot be averaged: their numbers are its own tokenizer's".into();
        return Err(FormatError::Unsupported { file: part.file(hub::WORDS), why });
    }
    let Some(file) = candidates.into_iter().find(|c| there.iter().any(|n| n == c)) else {
        return Err(crate::source::missing(&part.file(candidates[0]), &there));
    };
    TensorBag::open(&part.file(file), part.files.read(file, ADAPTER)?)
}

/// Writes the mean of one tensor; whole numbers must be the same in all, such as the places of a sparse update.
fn mean(bags: &mut [TensorBag], parts: &[Part<'_>], weights: &[f32], tensor: &str, out: &mut TensorFile) -> Result<()> {
    let shape = bags.first().and_then(|b| b.shape(tensor)).unwrap_or_default().to_vec();
    let floats = bags.first().is_some_and(|b| b.is_float(tensor));
    let missing = |bag: &TensorBag| FormatError::AdapterKeys {
        file: bag.file().into(),
        missing: vec![tensor.into()],
        extra: Vec::new(),
    };
    if floats {
        let mut values = Vec::with_capacity(bags.len());
        for bag in bags.iter_mut() {
            let Some(of) = bag.take(tensor, &shape)? else { return Err(missing(bag)) };
            values.push(of);
        }
        out.add_f32(tensor, &shape, Merge::Sum.of(values, weights));
        return Ok(());
    }
    let mut first: Option<Vec<i64>> = None;
    for (bag, part) in bags.iter_mut().zip(parts) {
        let Some(of) = bag.take_ints(tensor, &shape)? else { return Err(missing(bag)) };
        if first.get_or_insert_with(|| of.clone()) != &of {
            let why = format!(
                "tensor {:?} holds whole numbers that are others in {}: they say where updates go, and have no mean",
                shown(tensor),
                shown(part.name)
            );
            return Err(FormatError::Unsupported { file: bag.file().into(), why });
        }
    }
    out.add_i64(tensor, &shape, &first.unwrap_or_default());
    Ok(())
}

fn own_name(config: &Json) -> Result<String> {
    let name = config.get("name").and_then(Json::text).map(str::to_owned);
    name.ok_or_else(|| FormatError::AdapterConfig {
        file: CONFIG.into(),
        key: "name".into(),
        why: "the adapter's name is missing: its tensors are named by it".into(),
    })
}

/// The modules of AdapterHub that hold adapters by their names; in older releases more that end in `_adapters`.
const HOLDERS: [&str; 7] =
    ["adapters", "loras", "refts", "prompt_tunings", "prefix_tunings", "prefix_gates", "shared_parameters"];

/// A tensor's name with the adapter's own in it changed.
fn renamed(tensor: &str, from: &str, to: &str) -> String {
    let mut parts: Vec<&str> = tensor.split('.').collect();
    let at = parts.windows(2).position(|p| p[1] == from && (HOLDERS.contains(&p[0]) || p[0].ends_with("_adapters")));
    if let Some(at) = at {
        parts[at + 1] = to;
    }
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_adapters_own_name_changes() {
        for (tensor, from, want) in [
            (
                "bert.encoder.layer.0.attention.self.query.loras.query.lora_A",
                "query",
                "bert.encoder.layer.0.attention.self.query.loras.new.lora_A",
            ),
            ("bert.invertible_adapters.a.F.0.weight", "a", "bert.invertible_adapters.new.F.0.weight"),
            (
                "bert.encoder.layer.0.output.adapters.a.adapter_up.bias",
                "b",
                "bert.encoder.layer.0.output.adapters.a.adapter_up.bias",
            ),
            ("base_model.model.query.lora_A.weight", "", "base_model.model.query.lora_A.weight"),
        ] {
            assert_eq!(renamed(tensor, from, "new"), want);
        }
    }
}
