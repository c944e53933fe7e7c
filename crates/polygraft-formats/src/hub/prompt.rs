//! Prompt tuning (Lester et al. 2021) in the library's form: vectors among the finished embeddings, before the row or
//! after its first token; they are positions of the output like any other.

use super::config::Settings;
use super::family::Family;
use super::reading::Reading;
use crate::error::Result;
use polygraft::ir::{Op, Prompt, RowChange, Site};

/// The method's row.
pub(super) const FAMILY: Family = Family {
    name: "prompt-tuning",
    paper: "Prompt tuning (Lester et al. 2021, arXiv 2104.08691)",
    architecture: Some("prompt_tuning"),
    mode: None,
    reads: &["architecture", "combine", "prompt_length"],
    silent: &["init_weights_seed", "prompt_init", "prompt_init_text", "random_uniform_scale"],
    ops: "prompt",
    hooks: false,
    merges: false,
    load,
};

fn load(r: &mut Reading<'_>, s: &Settings) -> Result<()> {
    let tokens = s.whole("prompt_length", 10)?;
    let after_first = match s.text("combine")?.unwrap_or("prefix") {
        "prefix" => false,
        "prefix_after_bos" => true,
        other => return Err(s.bad("combine", format!("{other:?} is neither prefix nor prefix_after_bos"))),
    };
    let path = format!("prompt_tuning.prompt_tunings.{}.prompt_embedding.weight", r.name);
    if let Some(vectors) = r.tensors.matrix(&path, tokens, r.spec.embedding)? {
        let virtual_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        r.rows = RowChange { virtual_tokens, after_first, ..RowChange::default() };
        r.patch(Site::Embeddings, Op::Prompt(Prompt { vectors }));
    }
    Ok(())
}
