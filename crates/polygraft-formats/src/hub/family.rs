//! What a method is: a row of [`super::FAMILIES`], from which reading, errors, `inspect` and the documents derive.

use super::FAMILIES;
use super::config::Settings;
use super::reading::Reading;
use crate::error::{Result, shown};

/// A method of the library.
pub struct Family {
    /// The method's name in reports.
    pub name: &'static str,
    /// Method and paper.
    pub paper: &'static str,
    /// The configuration's `architecture`; bottlenecks have none.
    pub architecture: Option<&'static str>,
    /// A further entry that tells it from others of its architecture, with its value.
    pub mode: Option<(&'static str, &'static str)>,
    /// Entries that change the result and are read.
    pub reads: &'static [&'static str],
    /// Entries that do not change the result: training, initialisation, what other entries switch off.
    pub silent: &'static [&'static str],
    /// The patches that it becomes, for the documents.
    pub ops: &'static str,
    /// Whether the library has it where it hooks adapters into a model ([`names::hooked`](super::names::hooked)).
    pub hooks: bool,
    /// Whether it can be folded into the base's weights.
    pub merges: bool,
    /// Collects its patches.
    pub(super) load: fn(&mut Reading<'_>, &Settings) -> Result<()>,
}

/// The row that reads `settings`.
pub(super) fn of(settings: &Settings) -> Result<&'static Family> {
    let architecture = settings.text("architecture")?.filter(|a| *a != "bottleneck");
    let mut rows = FAMILIES.iter().filter(|f| f.architecture == architecture);
    let chosen =
        |f: &&Family| f.mode.is_none_or(|(key, value)| settings.get(key).is_some_and(|v| v.text() == Some(value)));
    // A row with a mode comes before the one that stands for the rest.
    let Some(row) = rows.clone().find(|f| f.mode.is_some() && chosen(f)).or_else(|| rows.find(|f| f.mode.is_none()))
    else {
        let mut known: Vec<&str> = FAMILIES.iter().filter_map(|f| f.architecture).collect();
        known.dedup();
        let name = shown(architecture.unwrap_or("bottleneck"));
        return Err(settings.bad("architecture", format!("{name:?} is not one of {}", known.join(", "))));
    };
    Ok(row)
}
