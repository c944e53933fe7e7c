//! Trainable tokens: rows of an embedding table that were trained whole, by themselves or beside a LoRA. Where the
//! table serves as a language model's output layer too, its rows are replaced there as well.

use super::change::OwnRows;
use super::config::bad;
use super::family::{Family, Reader};
use super::reading::{Module, Reading};
use crate::error::Result;
use crate::json::Json;
use crate::names::{self, Part};
use polygraft::ir::{LinearSite, Op, Rewording, Site};
use polygraft::model::HeadTask;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["token_indices"],
    silent: &["init_weights"],
    markers: &[".trainable_tokens_"],
    targets: Some(&[]),
    heads: false,
    ops: "change of embeddings",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("TRAINABLE_TOKENS", "trainable tokens", "Trainable tokens (PEFT)")
};

/// LoRA's option.
pub(super) const OPTION: &str = "trainable_token_indices";

fn load(r: &mut Reading<'_>) -> Result<()> {
    let ids = ids("token_indices", r.config.get("token_indices"))?;
    for table in r.tables()? {
        rows(r, &table, &ids, "trainable_tokens_delta")?;
    }
    Ok(())
}

/// Takes the rows that `trainable_token_indices` names, for the word table or for tables by name.
pub(super) fn option(r: &mut Reading<'_>) -> Result<()> {
    let Some(value) = r.config.get(OPTION) else { return Ok(()) };
    let name = "token_adapter.trainable_tokens_delta";
    let mut by_name: Vec<(Option<&str>, Vec<u32>)> = Vec::new();
    if let Json::Object(entries) = value {
        for (module, list) in entries {
            by_name.push((Some(module), ids(OPTION, Some(list))?));
        }
    } else {
        by_name.push((None, ids(OPTION, Some(value))?));
    }
    for part in [Part::Word, Part::Position, Part::TokenType, Part::Relative] {
        let path = names::path(r.spec.arch, None, part);
        let Some(table) = r.table(path, part) else { continue };
        let ends =
            |name: &str| table.module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let meant = by_name.iter().find(|(name, _)| name.map_or(part == Part::Word, ends));
        if let Some((_, ids)) = meant {
            rows(r, &table, ids, name)?;
        }
    }
    Ok(())
}

fn ids(key: &str, value: Option<&Json>) -> Result<Vec<u32>> {
    let list: Option<Vec<u32>> =
        value.map(Json::items).unwrap_or_default().iter().map(|v| v.whole()?.try_into().ok()).collect();
    match (list, value) {
        (Some(list), Some(Json::List(_)) | None) => Ok(list),
        _ => Err(bad(key, "it is not a list of token ids")),
    }
}

fn rows(r: &mut Reading<'_>, table: &Module, ids: &[u32], name: &str) -> Result<()> {
    if let Some(beyond) = ids.iter().find(|id| **id as usize >= table.rows) {
        let why = format!("{beyond} is not one of the {} rows of {}", table.rows, table.path);
        return Err(bad("token_indices", why));
    }
    let Some(rows) = r.take(table, name, &[ids.len(), table.cols])? else { return Ok(()) };
    let tied = r.spec.linears.get(&LinearSite::HeadOutput).is_some_and(|l| l.weight == r.spec.embeddings.word);
    if table.site == Site::Word {
        let path = names::path(r.spec.arch, Some(HeadTask::MaskedLm), Part::Linear(LinearSite::HeadOutput));
        let output = r.output(path, (table.rows, table.cols));
        // The table by another name.
        r.ignore(&output, name);
        if tied {
            let (ids, rows) = (ids.to_vec(), rows.clone());
            r.follows(&output, ids.len() + rows.len(), move |layer| {
                for (id, row) in ids.iter().zip(rows.chunks_exact(layer.cols)) {
                    layer.weight[*id as usize * layer.cols..][..layer.cols].copy_from_slice(row);
                }
                // PEFT's layer has no bias.
                layer.bias_mut().fill(0.0);
                Ok(())
            });
        }
    }
    let own = OwnRows { table: (table.rows, table.cols), ids: ids.to_vec(), rows };
    r.patch(table.site, Op::Rewording(Rewording::new(own)));
    Ok(())
}
