//! The `forward` request: JSON with paths relative to it.

use super::pixels::{self, Pixels};
use crate::error::{Error, Result};
use crate::files;
use polygraft::Compose;
use polygraft::batch::Row;
use polygraft::model::ModelSpec;
use polygraft::session::Batch;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A request as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    base: PathBuf,
    #[serde(default)]
    adapters: Option<BTreeMap<String, AdapterEntry>>,
    #[serde(default)]
    fusion: Value,
    #[serde(default)]
    compose: Value,
    #[serde(default)]
    row_compose: Option<Vec<Value>>,
    #[serde(default)]
    rows: Option<Vec<Vec<u32>>>,
    #[serde(default)]
    token_types: Option<Vec<Vec<u32>>>,
    #[serde(default)]
    pixels: Value,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum AdapterEntry {
    Path(PathBuf),
    Options(Map<String, Value>),
}

/// A request with its paths resolved.
pub(crate) struct Request {
    pub(crate) base: PathBuf,
    /// Name, path, options.
    pub(crate) adapters: Vec<(String, PathBuf, Map<String, Value>)>,
    /// Images in place of the batch's rows.
    pixels: Option<Pixels>,
    batch: Batch,
}

pub(crate) fn read(path: &Path) -> Result<Request> {
    let bad = |why: String| Error::Content { path: path.into(), why };
    let written: Written = serde_json::from_str(&files::text(path)?).map_err(|e| bad(e.to_string()))?;
    let root = path.parent().unwrap_or(Path::new(""));
    let pixels = match &written.pixels {
        Value::Null => None,
        Value::String(_) if written.rows.is_some() || written.token_types.is_some() => {
            return Err(bad("`pixels` stand in for `rows` and `token_types`: give one or the other".into()));
        }
        Value::String(path) => Some(pixels::read(&root.join(path))?),
        _ => return Err(bad("`pixels` is not a path: give a safetensors file with `pixel_values`".into())),
    };
    let ids = match (written.rows, &pixels) {
        (Some(ids), _) => ids,
        (None, Some(pixels)) => vec![Vec::new(); pixels.images.len()],
        (None, None) => {
            return Err(
                bad("`rows` is missing: give a list of rows of token ids, or `pixels` on a vision base".into()),
            );
        }
    };
    if ids.is_empty() {
        return Err(bad("`rows` is empty: give at least one row of token ids".into()));
    }
    let types = written.token_types.unwrap_or_default();
    if !types.is_empty() && types.len() != ids.len() {
        return Err(bad(format!("`token_types` has {} rows, `rows` has {}", types.len(), ids.len())));
    }
    let mut types = types.into_iter();
    let rows: Vec<Row> = ids
        .into_iter()
        .map(|ids| Row { ids, token_types: types.next().unwrap_or_default(), pixels: Vec::new() })
        .collect();
    let whole = Compose::from_json(&written.compose)?;
    let composes = match written.row_compose {
        None => vec![whole; rows.len()],
        Some(list) if list.len() == rows.len() => list
            .iter()
            // A row without an entry of its own takes the whole's.
            .map(|v| if v.is_null() { Ok(whole.clone()) } else { Compose::from_json(v) })
            .collect::<polygraft::Result<_>>()?,
        Some(list) => {
            return Err(bad(format!(
                "`row_compose` has {} entries, `rows` has {}: give one a row",
                list.len(),
                rows.len()
            )));
        }
    };
    let mut adapters = Vec::new();
    for (name, entry) in written.adapters.unwrap_or_default() {
        let (path, options) = match entry {
            AdapterEntry::Path(path) => (path, Map::new()),
            AdapterEntry::Options(mut options) => match options.remove("path") {
                Some(Value::String(path)) => (path.into(), options),
                _ => {
                    return Err(bad(format!(
                        "adapter {name:?}: `path` is missing: give a path, or an object with one"
                    )));
                }
            },
        };
        adapters.push((name, root.join(path), options));
    }
    for path in fusions(&written.fusion).ok_or_else(|| bad("`fusion` is neither a path nor a list of paths".into()))? {
        // No composition names a fusion: any name will do that nobody has.
        let taken = |name: &String| adapters.iter().any(|(n, _, _): &(String, _, _)| n == name);
        let name = (0..).map(|i| format!("fusion.{i}")).find(|n| !taken(n)).unwrap_or_default();
        adapters.push((name, root.join(path), Map::new()));
    }
    Ok(Request { base: root.join(written.base), adapters, pixels, batch: Batch::by_row(rows, composes) })
}

impl Request {
    /// Its rows and compositions, for a base that is `spec`.
    pub(crate) fn into_batch(self, spec: &ModelSpec) -> Result<Batch> {
        let mut batch = self.batch;
        if let Some(pixels) = self.pixels {
            pixels.check(spec)?;
            batch.rows = pixels.images.into_iter().map(|image| Row::image(image, spec)).collect();
        }
        Ok(batch)
    }
}

fn fusions(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(path) => Some(vec![path]),
        Value::Array(paths) => paths.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
