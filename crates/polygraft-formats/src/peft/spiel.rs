//! SpIEL, the `SFT` of a fork of PEFT: values added to stored places of a layer's weight, the places as one number each,
//! row by row.

use super::config::bad;
use super::family::{Family, Packing, Reader};
use super::reading::Reading;
use super::targets::{Matcher, Targets};
use crate::error::Result;
use crate::json::Json;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["num_deltas"],
    // How places were chosen, and how many in all: they are stored, and `num_deltas` counts them.
    silent: &[
        "candidate_reselection_proportion",
        "candidate_reselection_steps",
        "density",
        "dtype",
        "initial_reselection_rate",
        "num_tunable_weights",
        "reselection_rate_policy",
        "reselection_steps",
        "selection_accumulation_steps",
        "selection_algorithm",
    ],
    markers: &[".sft_delta"],
    packing: Packing { places: &["sft_delta.indices"], vectors: &["sft_delta.values"], mask: None },
    reader: Reader::Load(load),
    ..Family::new("SFT", "spiel", "SpIEL (Ansell et al. 2024, arXiv 2401.16405)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    // By the whole path of each module, and so whatever target_modules says.
    let counts = r.config.get("num_deltas").map(Json::entries).unwrap_or_default();
    if counts.is_empty() {
        return Err(bad("num_deltas", "it is missing: it says which layers change, and how many numbers of each"));
    }
    let names = counts.iter().map(|(name, _)| name.clone()).collect();
    let include = Some(Matcher::Names(names));
    r.config.targets = Targets { include, exclude: None, layers: None, layer_patterns: Vec::new() };
    let mut there = 0;
    for t in r.targets()? {
        let Some((_, count)) = counts.iter().find(|(name, _)| *name == t.module) else { continue };
        let whole = count.whole().filter(|n| *n <= t.rows * t.cols);
        let count = whole.ok_or_else(|| bad("num_deltas", format!("{} of {}", count.brief(), t.module)))?;
        there += 1;
        let Some(values) = r.take(&t, "sft_delta.values", &[count])? else { continue };
        let Some(places) = r.places(&t, "sft_delta.indices", &[count])? else { continue };
        if let Some(beyond) = places.iter().find(|p| **p >= t.rows * t.cols) {
            return Err(r.wrong(&t, "sft_delta.indices", "places in the layer", &beyond.to_string()));
        }
        r.adds(&t, 2 * count, move |layer| {
            places.iter().zip(&values).for_each(|(at, v)| layer.weight[*at] += v);
            Ok(())
        });
    }
    if there != counts.len() {
        let why = format!("{} of its {} layers are none of this base's", counts.len() - there, counts.len());
        return Err(bad("num_deltas", why));
    }
    Ok(())
}
