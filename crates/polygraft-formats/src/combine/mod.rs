//! Several saved adapters made into one that any reader of their library loads: PEFT's `add_weighted_adapter`, and plain
//! averages of either library's. Nothing here needs the base.

mod arithmetic;
mod average;

pub(crate) use arithmetic::Merge;
pub(crate) use average::{open, parsed, pretty};

use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::source::{Files, SMALL};
use crate::{hub, peft};

/// An adapter that goes into a combination.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// What errors call it.
    pub name: &'a str,
    /// Its folder.
    pub files: &'a dyn Files,
    /// Its weight; any finite number.
    pub weight: f64,
}

impl Part<'_> {
    /// A file of this part, as errors name it.
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}: {name}", self.name)
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> Result<Json> {
        Json::parse(&self.file(CONFIG), &self.files.read(CONFIG, SMALL)?)
    }
}

/// The kinds of combination: `combination_type` of PEFT, and the average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The factors' weighted sums: a rough likeness of the sum of updates. Of (IA)³ the weighted sum of its vectors.
    Linear,
    /// The factors one after another: exactly the weighted sum of updates; ranks add up.
    Cat,
    /// The best approximation of the weighted sum of updates, of the largest rank or of [`Recipe::rank`].
    Svd,
    /// TIES on the factors.
    Ties,
    /// TIES on the updates, then as [`Kind::Svd`].
    TiesSvd,
    /// The factors' weighted sums after pruning by magnitude.
    MagnitudePrune,
    /// The updates' weighted sum after pruning by magnitude, then as [`Kind::Svd`].
    MagnitudePruneSvd,
    /// Every tensor's weighted mean, for adapters of one configuration of any method: `average_adapter` of AdapterHub.
    Average,
}

impl Kind {
    /// All of them, by the names that PEFT and the command line give them.
    pub const ALL: [(&'static str, Self); 8] = [
        ("linear", Self::Linear),
        ("cat", Self::Cat),
        ("svd", Self::Svd),
        ("ties", Self::Ties),
        ("ties_svd", Self::TiesSvd),
        ("magnitude_prune", Self::MagnitudePrune),
        ("magnitude_prune_svd", Self::MagnitudePruneSvd),
        ("average", Self::Average),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Whose sign is elected by TIES.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Majority {
    /// That of the sum.
    #[default]
    Total,
    /// That of most.
    Frequency,
}

/// How adapters are combined.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// Which way.
    pub kind: Kind,
    /// The new rank, for the kinds that decompose; else the largest of the parts'.
    pub rank: Option<usize>,
    /// The share of numbers that pruning leaves, 0 to 1, for the kinds that prune.
    pub density: Option<f64>,
    /// The vote, for TIES.
    pub majority: Option<Majority>,
    /// The part whose `modules_to_save` travel with the result, where any part has some.
    pub modules_of: Option<&'a str>,
    /// The result's name, which AdapterHub writes into its files.
    pub name: &'a str,
}

/// The files of the new folder, by name.
pub type Folder = Vec<(String, Vec<u8>)>;

/// The configuration's name, in both libraries.
pub(crate) const CONFIG: &str = "adapter_config.json";

/// Combines adapters of one library and method.
///
/// # Errors
/// [`FormatError::Argument`] for a recipe that does not fit; [`FormatError::Unsupported`] for parts that cannot be
/// combined, with the reason; what a part's files are refused for.
pub fn combine(parts: &[Part<'_>], recipe: &Recipe<'_>) -> Result<Folder> {
    let Some(first) = parts.first() else {
        return Err(argument("adapters", "there are none: name those to combine"));
    };
    if let Some(part) = parts.iter().find(|p| !p.weight.is_finite()) {
        return Err(argument(
            "weight",
            &format!("{:?} has the weight {}: a finite number is needed", part.name, part.weight),
        ));
    }
    recipe.fits(parts)?;
    let configs = parts.iter().map(Part::config).collect::<Result<Vec<_>>>()?;
    let of_hub: Vec<bool> = configs.iter().map(hub::claims).collect();
    if let Some(other) = of_hub.iter().position(|h| *h != of_hub[0]) {
        let why = format!("{} and {} are of different libraries", shown(first.name), shown(parts[other].name));
        return Err(FormatError::Unsupported { file: CONFIG.into(), why });
    }
    match (recipe.kind, of_hub[0]) {
        (Kind::Average, _) => average::average(parts, &configs, recipe),
        (_, false) => peft::combine(parts, &configs, recipe),
        (kind, true) => {
            Err(argument("type", &format!("{} is PEFT's; AdapterHub's adapters are combined by average", kind.name())))
        }
    }
}

impl Recipe<'_> {
    /// Whether what was given is what the kind takes.
    fn fits(&self, parts: &[Part<'_>]) -> Result<()> {
        let kind = self.kind;
        let ties = matches!(kind, Kind::Ties | Kind::TiesSvd);
        let prunes = ties || matches!(kind, Kind::MagnitudePrune | Kind::MagnitudePruneSvd);
        let decomposes = matches!(kind, Kind::Svd | Kind::TiesSvd | Kind::MagnitudePruneSvd);
        let unused =
            |what: &str, takers: &str| Err(argument(what, &format!("{} takes none; {takers} do", kind.name())));
        match (self.density, prunes) {
            (Some(_), false) => return unused("density", "ties and magnitude_prune"),
            (None, true) => {
                return Err(argument("density", &format!("{} needs the share to keep, 0 to 1", kind.name())));
            }
            (Some(d), true) if !(0.0..=1.0).contains(&d) => {
                return Err(argument("density", &format!("{d} is not 0 to 1")));
            }
            _ => {}
        }
        if self.majority.is_some() && !ties {
            return unused("majority sign", "ties and ties_svd");
        }
        match self.rank {
            Some(_) if !decomposes => return unused("rank", "svd, ties_svd and magnitude_prune_svd"),
            Some(n) if !(1..=1 << 16).contains(&n) => return Err(argument("rank", &format!("{n} is not 1 to 65536"))),
            _ => {}
        }
        match self.modules_of {
            Some(name) if !parts.iter().any(|p| p.name == name) => {
                Err(argument("modules of", &format!("{:?} is not one of the adapters", shown(name))))
            }
            Some(_) if kind == Kind::Average => unused("modules of", "PEFT's combinations"),
            _ => Ok(()),
        }
    }
}

pub(crate) fn argument(what: &str, why: &str) -> FormatError {
    FormatError::Argument { what: what.into(), why: why.into() }
}
