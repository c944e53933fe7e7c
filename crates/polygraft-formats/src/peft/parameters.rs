//! LoRA on bare parameters (`target_parameters`): on a matrix, the update of its module by another choice of modules.

use super::config::{bad, names};
use super::reading::{Module, Reading, Target};
use crate::error::Result;
use crate::names::Part;
use polygraft::ir::LinearSite;

/// LoRA's option.
pub(super) const OPTION: &str = "target_parameters";

/// What PEFT takes a parameter's rank and scale by, after the module's path.
const WEIGHT: &str = ".weight";

/// The modules whose weights are named, under the paths of their weights.
pub(super) struct Parameters {
    pub(super) linears: Vec<Target>,
    pub(super) tables: Vec<Module>,
}

/// The path of the module's weight, which patterns of ranks and scales are about.
pub(super) fn weight_of(module: &str) -> String {
    format!("{module}{WEIGHT}")
}

/// What the configuration means. `taken`: the modules that it targets as such.
pub(super) fn targets(r: &Reading<'_>, taken: &[String]) -> Result<Parameters> {
    let mut out = Parameters { linears: Vec::new(), tables: Vec::new() };
    let listed = names(OPTION, r.config.get(OPTION))?;
    let means = |name: &str| {
        listed.iter().any(|n| name.strip_suffix(n.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    };
    for (path, part) in r.modules() {
        let module = r.wrapped(&path);
        let vector = match part {
            Part::Norm(_) => means(&weight_of(&module)) || means(&format!("{module}.bias")),
            _ => means(&format!("{module}.bias")),
        };
        if vector {
            return Err(bad(OPTION, format!("{module} has a vector of that name, and PEFT adapts matrices only")));
        }
        if !means(&weight_of(&module)) {
            continue;
        }
        if taken.contains(&module) {
            return Err(bad(OPTION, format!("{module} is in target_modules as well, which PEFT refuses")));
        }
        if let Some(table) = r.table(path.clone(), part) {
            out.tables.push(table);
            continue;
        }
        match part {
            Part::Linear(LinearSite::Convolution | LinearSite::Patches) | Part::Relative => {
                return Err(bad(OPTION, format!("{module} is no matrix that its module runs by itself")));
            }
            Part::Linear(site) => {
                if let Some((rows, cols)) = r.linear_shape(site) {
                    out.linears.push(Target { path, module, site, rows, cols });
                }
            }
            Part::Norm(_) | Part::Word | Part::Position | Part::TokenType => {}
        }
    }
    Ok(out)
}
