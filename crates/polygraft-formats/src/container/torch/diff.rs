//! The object that composable-sft saves: `{"diffs": {name: {"size", "index_steps", "values"}}, "abs": {name: tensor}}`.

use super::heap::{List, Value};
use super::pickle::Machine;
use super::{View, object, view};
use crate::error::{FormatError, Result, shown};
use std::collections::BTreeSet;
use std::ops::Range;

/// A sparse difference of one parameter.
#[derive(Debug)]
pub(crate) struct Diff<V = View> {
    /// The parameter's name.
    pub(crate) name: String,
    /// Its shape.
    pub(crate) size: Vec<usize>,
    /// Where the values go: numbers of elements, the first dimension fastest, in the order of the values.
    pub(crate) places: Vec<u64>,
    /// The values.
    pub(crate) values: V,
}

/// A file's contents.
#[derive(Debug)]
pub(crate) struct Diffs {
    pub(crate) diffs: Vec<Diff>,
    /// Parameters that stand for the base's.
    pub(crate) abs: Vec<(String, View)>,
}

/// Reads a file of it; `None` for another object, such as a state dictionary.
///
/// # Errors
/// As [`super::tensors`]; [`FormatError::Header`] for an entry that is not as composable-sft writes it.
pub(crate) fn diffs(file: &str, data: &[u8]) -> Result<Option<Diffs>> {
    let (root, machine, places) = object(file, data)?;
    let entries = entries(file, root, &machine)?;
    if entries.is_empty() || !entries.iter().all(|(k, v)| matches!(*k, "diffs" | "abs") && matches!(v, Value::Dict(_)))
    {
        return Ok(None);
    }
    let mut out = Diffs { diffs: Vec::new(), abs: Vec::new() };
    for (key, value) in entries {
        for (name, value) in self::entries(file, value, &machine)? {
            if key == "diffs" {
                out.diffs.push(diff(file, name, value, &machine, &places)?);
                continue;
            }
            let view = view(value, &machine, &places);
            let view = view.ok_or_else(|| wrong(file, name, "is not a tensor".into()))?;
            out.abs.push((name.to_owned(), view));
        }
    }
    Ok(Some(out))
}

fn wrong(file: &str, name: &str, why: String) -> FormatError {
    FormatError::Header { file: file.into(), why: format!("its entry {:?} {why}", shown(name)) }
}

/// The entries of a dictionary by text; none for anything else.
fn entries<'a>(file: &str, value: Value<'a>, machine: &Machine<'a>) -> Result<Vec<(&'a str, Value<'a>)>> {
    let Value::Dict(id) = value else { return Ok(Vec::new()) };
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for (key, value) in machine.heap.dict(id) {
        let Value::Text(name) = *key else {
            return Err(FormatError::Header { file: file.into(), why: "a key of a dictionary is not text".into() });
        };
        if !seen.insert(name) {
            return Err(FormatError::Duplicate { file: file.into(), name: shown(name) });
        }
        out.push((name, *value));
    }
    Ok(out)
}

fn diff<'a>(file: &str, name: &str, value: Value<'a>, machine: &Machine<'a>, places: &[Range<usize>]) -> Result<Diff> {
    let wrong = |why: &str| wrong(file, name, why.into());
    let (mut size, mut steps, mut values) = (None, None, None);
    for (key, value) in entries(file, value, machine)? {
        match key {
            "size" => size = whole(value, machine),
            "index_steps" => steps = whole(value, machine),
            "values" => values = view(value, machine, places),
            _ => return Err(wrong("has more than size, index_steps and values")),
        }
    }
    let (Some(size), Some(steps), Some(values)) = (size, steps, values) else {
        return Err(wrong("has no size, index_steps and values of whole numbers and a tensor"));
    };
    let mut at = 0u64;
    let sum = steps.into_iter().map(|step| {
        at = at.checked_add(step)?;
        Some(at)
    });
    let places: Option<Vec<u64>> = sum.collect();
    let size: Option<Vec<usize>> = size.into_iter().map(|n| usize::try_from(n).ok()).collect();
    match size.zip(places) {
        Some((size, places)) => Ok(Diff { name: name.to_owned(), size, places, values }),
        None => Err(wrong("has indexes beyond 2⁶³")),
    }
}

/// Whole numbers of 0 or more in a list or a tuple.
fn whole(value: Value<'_>, machine: &Machine<'_>) -> Option<Vec<u64>> {
    let each = |values: &[Value<'_>]| -> Option<Vec<u64>> {
        values.iter().map(|v| if let Value::Int(n) = v { u64::try_from(*n).ok() } else { None }).collect()
    };
    match value {
        Value::Tuple(id) => each(machine.heap.tuple(id)),
        Value::List(id) => match machine.heap.lists.get(id as usize)? {
            List::Small(numbers) => Some(numbers.iter().map(|n| u64::from(*n)).collect()),
            List::Any(values) => each(values),
        },
        _ => None,
    }
}
