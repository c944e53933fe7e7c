//! The container of torch before 1.6: four pickles, a fifth with the keys of the storages, then their numbers.

use super::heap::{List, Value};
use super::pickle::{MAX_PICKLE, Machine};
use crate::error::{FormatError, Result, shown};
use std::collections::BTreeMap;
use std::ops::Range;

/// The first pickle: torch's magic number.
pub(super) const MAGIC: [u8; 15] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The version of the container, in the second.
const VERSION: i64 = 1001;

/// As `super::object`.
pub(super) fn object<'a>(file: &'a str, data: &'a [u8]) -> Result<(Value<'a>, Machine<'a>, Vec<Range<usize>>)> {
    let bad = |why: String| FormatError::Header { file: file.into(), why };
    if !data.starts_with(&MAGIC) {
        return Err(bad("it is a pickle, and not one that torch.save wrote".into()));
    }
    let mut at = MAGIC.len();
    let mut next = || -> Result<(Value<'a>, Machine<'a>)> {
        let rest = data.get(at..).unwrap_or_default();
        let mut machine = Machine::new(file, rest.get(..MAX_PICKLE).unwrap_or(rest), at);
        let value = machine.run()?;
        at += machine.position();
        Ok((value, machine))
    };
    let (version, _) = next()?;
    if version != Value::Int(VERSION) {
        return Err(bad(format!("its container is not of version {VERSION}, the only one there is")));
    }
    let (system, machine) = next()?;
    let system = if let Value::Dict(id) = system { machine.heap.dict(id) } else { &[] };
    if !system.contains(&(Value::Text("little_endian"), Value::Bool(true))) {
        return Err(bad("its numbers are not little-endian".into()));
    }
    let (value, machine) = next()?;
    let (keys, key_machine) = next()?;
    let keys: &[Value<'_>] = match keys {
        Value::List(id) => match key_machine.heap.lists.get(id as usize) {
            Some(List::Any(items)) => items,
            Some(List::Small(numbers)) if numbers.is_empty() => &[],
            _ => return Err(bad("the keys of its storages are not text".into())),
        },
        _ => return Err(bad("it has no list of the keys of its storages".into())),
    };
    let mut left: BTreeMap<&str, usize> = machine.heap.storages.iter().enumerate().map(|(i, s)| (s.key, i)).collect();
    let mut places = vec![0..0; machine.heap.storages.len()];
    let cut = |why: String| FormatError::Range { file: file.into(), why };
    for key in keys {
        let Value::Text(key) = *key else { return Err(bad("the keys of its storages are not text".into())) };
        let found = left.remove(key).and_then(|i| Some((machine.heap.storages.get(i)?, places.get_mut(i)?)));
        let Some((storage, place)) = found else {
            return Err(bad(format!("storage {:?} is listed twice, or used by nothing", shown(key))));
        };
        let count = data.get(at..).and_then(<[u8]>::first_chunk::<8>).map(|b| u64::from_le_bytes(*b));
        let bytes = storage.numel.checked_mul(storage.dtype.size()).and_then(|n| usize::try_from(n).ok());
        let end = bytes.and_then(|n| n.checked_add(at + 8)).filter(|e| *e <= data.len());
        let (Some(end), true) = (end, count == Some(storage.numel)) else {
            return Err(cut(format!(
                "storage {:?} should hold {} elements of {}, and the file does not",
                shown(key),
                storage.numel,
                storage.dtype.name()
            )));
        };
        *place = at + 8..end;
        at = end;
    }
    if let Some(key) = left.keys().next() {
        return Err(bad(format!("storage {:?} has no numbers in the file", shown(key))));
    }
    if at != data.len() {
        return Err(cut(format!("{} bytes follow the last storage", data.len() - at)));
    }
    Ok((value, machine, places))
}
