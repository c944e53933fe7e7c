//! Prefix tuning and cartridges: keys and values in front of each layer's own. What made them was applied when they
//! were saved.

use super::config::bad;
use super::family::{Family, Reader};
use super::keys::MODEL;
use super::reading::Reading;
use crate::error::{FormatError, Result};
use polygraft::ir::{Op, Positions, Prefix, RowChange, Site};
use polygraft::model::{Arch, HeadTask};
use polygraft::tensor::Matrix;

/// What the configurations of all prompts and prefixes say about their shape.
pub(super) const SHAPE: &[&str] =
    &["num_attention_heads", "num_layers", "num_transformer_submodules", "num_virtual_tokens", "token_dim"];

/// Prefix tuning's row.
pub(super) const FAMILY: Family = Family {
    reads: SHAPE,
    silent: &["encoder_hidden_size", "init_weights", "prefix_projection"],
    root: MODEL,
    targets: Some(&[]),
    ops: "prefix",
    merges: false,
    base: false,
    reader: Reader::Load(load),
    ..Family::new("PREFIX_TUNING", "prefix tuning", "Prefix tuning (Li and Liang 2021, arXiv 2101.00190)")
};

/// The row of cartridges, prefixes of which some slots were not trained.
pub(super) const CARTRIDGE: Family = Family {
    silent: &["num_frozen_tokens"],
    peft_type: "CARTRIDGE",
    name: "cartridge",
    paper: "Cartridges (Eyuboglu et al. 2025, arXiv 2506.06266)",
    ..FAMILY
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    takes_cache(r)?;
    let (hidden, heads, layers) = (r.spec.hidden, r.spec.heads, usize::from(r.spec.layers));
    let slots = r.virtual_tokens(&[("token_dim", hidden), ("num_attention_heads", heads), ("num_layers", layers)])?;
    let width = 2 * layers * hidden;
    let Some(numbers) = r.own("prompt_embeddings", &[slots, width])? else { return Ok(()) };
    for layer in 0..r.spec.layers {
        // Slot by slot: the keys and the values of each layer in turn.
        let part = |which: usize| {
            let at = (2 * usize::from(layer) + which) * hidden;
            let rows = numbers.chunks_exact(width).flat_map(|slot| &slot[at..at + hidden]).copied().collect();
            Matrix::dense(slots, hidden, rows)
        };
        if let Some((keys, values)) = part(0).zip(part(1)) {
            r.patch(Site::Keys(layer), Op::Prefix(Box::new(Prefix { keys, values, gates: None })));
        }
    }
    let positions = Positions::Shifted(u32::try_from(slots).unwrap_or(u32::MAX));
    r.rows = RowChange { positions, drops_types: r.drops_types(), ..RowChange::default() };
    Ok(())
}

/// PEFT hands the prefix over as the cache of a decoder, which not every encoder takes, nor every head's class.
fn takes_cache(r: &Reading<'_>) -> Result<()> {
    let arch = r.spec.arch;
    let why = match (arch, r.head_task()) {
        (Arch::Bert, _)
        | (Arch::Roberta | Arch::XlmRoberta | Arch::Electra, None | Some(HeadTask::Token | HeadTask::Question)) => {
            return Ok(());
        }
        (Arch::Roberta | Arch::XlmRoberta | Arch::Electra, _) => format!(
            "PEFT cannot run a prefix under the sequence classification of {}: it takes the cache for the pooled output, and fails",
            arch.name()
        ),
        _ => format!(
            "{} takes no keys and values from outside in transformers, so that PEFT cannot run a prefix on it",
            arch.name()
        ),
    };
    Err(FormatError::Unsupported { file: format!("{}: task_type", super::CONFIG), why })
}

impl Reading<'_> {
    /// The number of virtual tokens, if the rest of the configuration's shape is `shape`.
    pub(super) fn virtual_tokens(&self, shape: &[(&str, usize)]) -> Result<usize> {
        for (key, wanted) in [("num_transformer_submodules", 1)].iter().chain(shape) {
            let found = self.config.count(key, *wanted)?;
            if found != *wanted {
                return Err(bad(key, format!("{found} is not this base's {wanted}")));
            }
        }
        if self.config.get("num_virtual_tokens").is_none() {
            return Err(bad("num_virtual_tokens", "it is missing"));
        }
        self.config.count("num_virtual_tokens", 1)
    }

    /// Whether PEFT's wrapper for the task leaves token types out.
    pub(super) fn drops_types(&self) -> bool {
        self.head_task().is_none()
    }
}
