//! `torch.save`d files (`.bin`, `.pt`): a zip archive or, before torch 1.6, a row of pickles, read without Python.

mod calls;
mod diff;
mod global;
mod heap;
mod legacy;
mod pickle;
mod save;
mod zip;

pub(crate) use diff::{Diff, Diffs, diffs};
pub(crate) use save::Saved;

use super::Dtype;
use crate::error::{FormatError, Result, shown};
use heap::Value;
use pickle::{MAX_PICKLE, Machine};
use std::collections::BTreeSet;
use std::ops::Range;

/// A tensor of a file: where its first element lies and how far apart the others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Shape; empty for a scalar.
    pub(crate) shape: Vec<usize>,
    /// Steps between neighbours along each dimension, in elements.
    pub(crate) strides: Vec<usize>,
    /// Where the first element starts, in bytes from the start of the file.
    pub(crate) offset: usize,
}

/// Whether `data` is one of torch's containers.
pub(crate) fn is_torch(data: &[u8]) -> bool {
    // Two bytes less would also begin a safetensors file whose header has 0x4B50 bytes.
    data.starts_with(b"PK\x03\x04") || data.starts_with(&legacy::MAGIC[..4])
}

/// The tensors of a saved state dictionary, in its order.
///
/// # Errors
/// By kind: [`FormatError::Zip`], [`FormatError::PickleGlobal`], [`FormatError::PickleOp`], [`FormatError::Range`],
/// [`FormatError::Header`] for something that is not a dictionary of tensors, [`FormatError::Duplicate`].
pub(crate) fn tensors(file: &str, data: &[u8]) -> Result<Vec<(String, View)>> {
    let (root, machine, places) = object(file, data)?;
    let wrong = |why: String| FormatError::Header { file: file.into(), why };
    let Value::Dict(id) = root else {
        return Err(wrong("it was saved by torch, and is not a dictionary of tensors (a state_dict)".into()));
    };
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for (key, value) in machine.heap.dict(id) {
        let Value::Text(name) = *key else {
            return Err(wrong("a key of its dictionary is not text: not a state_dict".into()));
        };
        let Some(view) = view(*value, &machine, &places) else {
            return Err(wrong(format!("its entry {:?} is not a tensor: not a state_dict", shown(name))));
        };
        if !seen.insert(name) {
            return Err(FormatError::Duplicate { file: file.into(), name: shown(name) });
        }
        out.push((name.to_owned(), view));
    }
    Ok(out)
}

/// The tensor that was saved by itself.
///
/// # Errors
/// As [`tensors`].
pub(crate) fn tensor(file: &str, data: &[u8]) -> Result<View> {
    if !is_torch(data) {
        return Err(FormatError::Header { file: file.into(), why: "it is no file of torch.save".into() });
    }
    let (root, machine, places) = object(file, data)?;
    view(root, &machine, &places).ok_or_else(|| FormatError::Header {
        file: file.into(),
        why: "it was saved by torch, and is not one tensor".into(),
    })
}

/// A tensor with its place in the file; `None` for anything else.
fn view(value: Value<'_>, machine: &Machine<'_>, places: &[Range<usize>]) -> Option<View> {
    let Value::Tensor(id) = value else { return None };
    // The machine has checked that the view stays inside its storage, and `object` that the storage is there.
    let tensor = machine.heap.tensors.get(id as usize)?;
    let place = places.get(tensor.storage as usize)?;
    let offset = usize::try_from(tensor.offset * tensor.dtype.size()).unwrap_or(0) + place.start;
    Some(View { dtype: tensor.dtype, shape: tensor.shape.clone(), strides: tensor.strides.clone(), offset })
}

/// The object that was saved, the machine that holds its parts, and where each storage's bytes are.
fn object<'a>(file: &'a str, data: &'a [u8]) -> Result<(Value<'a>, Machine<'a>, Vec<Range<usize>>)> {
    if data.starts_with(&legacy::MAGIC[..4]) { legacy::object(file, data) } else { zipped(file, data) }
}

fn zipped<'a>(file: &'a str, data: &'a [u8]) -> Result<(Value<'a>, Machine<'a>, Vec<Range<usize>>)> {
    let members = zip::members(file, data)?;
    let bad = |why: String| FormatError::Zip { file: file.into(), why };
    let pickles: Vec<&str> = members.keys().filter_map(|n| n.strip_suffix("/data.pkl")).collect();
    let root = match pickles.as_slice() {
        [root] if !root.contains('/') => *root,
        [] => return Err(bad("it has no data.pkl: a zip archive, not a file of torch.save".into())),
        _ => return Err(bad("its data.pkl is not where torch puts it".into())),
    };
    let inside = |name: &str| members.get(&format!("{root}/{name}")).and_then(|r| data.get(r.clone()));
    if let Some(order) = inside("byteorder").filter(|o| *o != b"little") {
        return Err(bad(format!(
            "its numbers are {}-endian; little-endian ones are read",
            shown(&String::from_utf8_lossy(order))
        )));
    }
    let pickle = inside("data.pkl").unwrap_or_default();
    if pickle.len() > MAX_PICKLE {
        let why = format!("its pickle has {} bytes; at most {MAX_PICKLE} are read", pickle.len());
        return Err(FormatError::Limit { file: file.into(), why });
    }
    let mut machine = Machine::new(file, pickle, 0);
    let value = machine.run()?;
    if machine.position() != pickle.len() {
        return Err(bad(format!("{} bytes follow the end of its pickle", pickle.len() - machine.position())));
    }
    let mut known: BTreeSet<String> =
        ["data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"]
            .map(|n| format!("{root}/{n}"))
            .into();
    let mut places = Vec::with_capacity(machine.heap.storages.len());
    for storage in &machine.heap.storages {
        let name = format!("{root}/data/{}", storage.key);
        let place = members.get(&name).ok_or_else(|| bad(format!("member {:?} is missing", shown(&name))))?;
        let want = storage.numel.checked_mul(storage.dtype.size());
        if want != Some(place.len() as u64) {
            let why = format!(
                "storage {:?} should hold {} elements of {} and has {} bytes",
                shown(storage.key),
                storage.numel,
                storage.dtype.name(),
                place.len()
            );
            return Err(FormatError::Range { file: file.into(), why });
        }
        places.push(place.clone());
        known.insert(name);
    }
    if let Some(stray) = members.keys().find(|n| !known.contains(*n)) {
        let why =
            format!("its member {:?} is nothing that torch.save writes for these tensors (TorchScript?)", shown(stray));
        return Err(bad(why));
    }
    Ok((value, machine, places))
}
