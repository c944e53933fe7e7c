//! Super-Tuning: values at the places of a layer's largest (or smallest) weights, with a LoRA beside them if it says so.

use super::config::bad;
use super::family::{Family, Reader};
use super::lora::scale;
use super::reading::{Reading, Target};
use crate::error::Result;
use crate::maths::top_k::top_k;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["lora_alpha", "r", "save_precomputed_indices", "select_top", "sparsity"],
    silent: &["init_weights", "lora_dropout"],
    markers: &[".supertuning_"],
    ops: "change of weights, low-rank",
    reader: Reader::Load(load),
    ..Family::new("SUPERTUNING", "super-tuning", "Super-Tuning (arXiv 2607.09287)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let sparsity = r.config.number("sparsity", 0.99)?;
    let top = r.config.flag("select_top", true)?;
    let stored = r.config.flag("save_precomputed_indices", true)?;
    let rank = r.config.get("r").map(|_| r.config.count("r", 0)).transpose()?;
    if !(0.0..1.0).contains(&sparsity) {
        return Err(bad("sparsity", format!("{sparsity} is not a part of 1")));
    }
    for t in r.targets()? {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "as Python's int()"
        )]
        let count = ((t.rows * t.cols) as f64 * (1.0 - sparsity)) as usize;
        if let Some(rank) = rank {
            #[allow(clippy::cast_precision_loss, reason = "ranks are small")]
            let alpha = r.config.number("lora_alpha", 2.0 * rank as f64)?;
            let a = r.take(&t, "supertuning_lora_A.weight", &[rank, t.cols])?;
            let b = r.take(&t, "supertuning_lora_B.weight", &[t.rows, rank])?;
            if let Some((a, b)) = a.zip(b) {
                r.low_rank(&t, a, b, None, scale(alpha, rank, false));
            }
        }
        let Some(values) = r.take(&t, "supertuning_values", &[count])? else { continue };
        let places = if stored { places(r, &t, count)? } else { None };
        if stored && places.is_none() {
            continue;
        }
        r.adds(&t, 2 * count, move |layer| {
            let chosen;
            let places = match &places {
                Some(places) => places,
                None => {
                    let scores: Vec<f32> = layer.weight.iter().map(|w| w.abs()).collect();
                    chosen = top_k(&scores, count, top);
                    &chosen
                }
            };
            places.iter().zip(&values).for_each(|(at, v)| layer.weight[*at] += v);
            Ok(())
        });
    }
    Ok(())
}

fn places(r: &mut Reading<'_>, t: &Target, count: usize) -> Result<Option<Vec<usize>>> {
    let Some(places) = r.places(t, "supertuning_indices", &[count])? else { return Ok(None) };
    match places.iter().find(|p| **p >= t.rows * t.cols) {
        None => Ok(Some(places)),
        Some(beyond) => Err(r.wrong(t, "supertuning_indices", "places in the layer", &beyond.to_string())),
    }
}
