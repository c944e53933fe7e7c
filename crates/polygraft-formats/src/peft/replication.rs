//! Layer replication (`layer_replication`, an option of LoRA): the model runs copies of its layers, ranges of them one after
//! the other, each copy with an update of its own and the weights of the layer that it is a copy of.

use super::config::{Config, bad};
use crate::error::Result;
use crate::json::Json;
use polygraft::model::{Arch, ModelSpec};

/// LoRA's option.
pub(super) const OPTION: &str = "layer_replication";

/// More copies than any adapter makes: they cost time in every call and no byte of a file.
const MOST: usize = 512;

/// Which layer each copy is of, in the order in which they run.
pub(super) fn copies(config: &Config<'_>, spec: &ModelSpec) -> Result<Option<Vec<u16>>> {
    let Some(ranges) = config.get(OPTION).filter(|v| !v.is_empty()) else { return Ok(None) };
    match spec.arch {
        Arch::DistilBert | Arch::Albert { .. } => {
            let why = format!("PEFT replicates no layers of a {}: it looks for them elsewhere", spec.arch.name());
            return Err(bad(OPTION, why));
        }
        Arch::Bert
        | Arch::Roberta
        | Arch::XlmRoberta
        | Arch::Electra
        | Arch::MpNet
        | Arch::DebertaV2 { .. }
        | Arch::ModernBert
        | Arch::Vit => {}
    }
    let mut out = Vec::new();
    for range in ranges.items() {
        let [Json::Int(first), Json::Int(end)] = range.items() else {
            return Err(bad(OPTION, format!("{} is not a first layer and the one after the last", range.brief())));
        };
        let layers = i64::from(spec.layers);
        // Python counts layers below 0 from the last one.
        if *first < -layers || *end > layers {
            let why = format!("{first} to {end} are not layers of the base, which has {layers}");
            return Err(bad(OPTION, why));
        }
        out.extend((*first..*end).filter_map(|l| u16::try_from(l.rem_euclid(layers.max(1))).ok()));
        if out.len() > MOST {
            return Err(bad(OPTION, format!("it asks for more than {MOST} layers")));
        }
    }
    if out.is_empty() {
        return Err(bad(OPTION, "it leaves no layer"));
    }
    Ok(Some(out))
}
