//! The biases that a configuration promises beside the family's tensors (`bias`).

use super::config::{Biases, Config};
use super::keys::{Keys, ROOT};
use super::reading::Target;
use crate::json::Json;
use crate::names::{self, Part};
use polygraft::ir::{LinearSite, NormSite, Op, Patch, Site};
use polygraft::model::ModelSpec;
use std::collections::BTreeSet;

/// Promised biases that the file does not have.
#[derive(Default)]
pub(super) struct Promised {
    /// What the file should have had.
    pub(super) required: Vec<String>,
    /// What its version of PEFT never saved: the library, too, runs such a file with the base's.
    pub(super) lost: Vec<String>,
}

/// Whether the base's layer has a bias; a head that the adapter brings has one.
pub(super) fn of_linear(spec: &ModelSpec, site: LinearSite) -> bool {
    spec.linears.get(&site).is_none_or(|l| l.bias.is_some())
}

/// Whether the base's norm has a shift; in a head it depends on the base's heads.
pub(super) fn of_norm(spec: &ModelSpec, site: NormSite) -> bool {
    spec.norms.get(&site).map_or(spec.head_biases, |n| n.beta.is_some())
}

/// The biases that `config` promises and `patches` lack, with the layers that the family `changed`.
pub(super) fn promised(
    config: &Config<'_>,
    keys: &Keys,
    changed: &[Target],
    spec: &ModelSpec,
    patches: &[Patch],
) -> Promised {
    let wanted: Vec<(String, Site)> = match config.bias {
        Biases::None => Vec::new(),
        Biases::OfTargets => {
            let biased = changed.iter().filter(|t| of_linear(spec, t.site));
            biased.map(|t| (t.path.clone(), Site::Linear(t.site))).collect()
        }
        Biases::All => names::modules(spec)
            .into_iter()
            .filter_map(|(path, part)| match part {
                Part::Linear(site) if of_linear(spec, site) => Some((path, Site::Linear(site))),
                Part::Norm(site) if of_norm(spec, site) => Some((path, Site::Norm(site))),
                Part::Linear(_) | Part::Norm(_) | Part::Word | Part::Position | Part::TokenType | Part::Relative => {
                    None
                }
            })
            .collect(),
    };
    let has_bias = |p: &Patch| match &p.op {
        Op::ReplaceLinear(d) => d.bias.is_some(),
        Op::ReplaceNorm(n) => n.beta.is_some(),
        _ => false,
    };
    let replaced: BTreeSet<Site> = patches.iter().filter(|p| has_bias(p)).map(|p| p.site).collect();
    // A saved head has its biases in every version.
    let of_encoder = |site: &Site| !site.is_head();
    let none = !wanted.iter().any(|(_, site)| of_encoder(site) && replaced.contains(site));
    let lacking = wanted.into_iter().filter(|(_, site)| !replaced.contains(site));
    let lacking = lacking.map(|(path, _)| format!("{ROOT}{}.bias", keys.wrapped(&path))).collect();
    if config.bias == Biases::OfTargets && none && forgets(config) {
        Promised { lost: lacking, ..Promised::default() }
    } else {
        Promised { required: lacking, ..Promised::default() }
    }
}

/// Whether it was saved by a PEFT before 0.21, which looks for the biases of the targets under names that they no longer
/// have (0.7 put `base_layer` into them), and so saves none.
fn forgets(config: &Config<'_>) -> bool {
    let Some(version) = config.get("peft_version").and_then(Json::text) else { return true };
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().ok());
    let numbers = numbers.next().flatten().zip(numbers.next().flatten());
    numbers.is_some_and(|numbers| numbers < (0, 21))
}
