//! LN tuning: layer norms, or whatever else is targeted, trained whole.

use super::family::{Family, Reader};
use super::head;
use super::reading::{Reading, Target};
use crate::error::Result;
use crate::names::Part;
use polygraft::ir::{Dense, LinearSite, Norm, Op, Site};
use polygraft::tensor::Matrix;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    markers: &[".ln_tuning_layers"],
    // PEFT has a default for decoders only.
    targets: Some(&[]),
    ops: "replace norm, replace linear",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("LN_TUNING", "ln tuning", "LN tuning (Zhao et al. 2023, arXiv 2312.11420)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    for (path, part) in r.parts()? {
        let module = r.wrapped(&path);
        let at = |site, rows, cols| Target { path: path.clone(), module: module.clone(), site, rows, cols };
        let (weight, bias) = ("ln_tuning_layers.weight", "ln_tuning_layers.bias");
        match part {
            Part::Norm(site) => {
                let width = head::width(site, r.head(), r.spec);
                // A norm's tensors are taken as a layer's are; its site is not used.
                let t = at(LinearSite::Pooler, width, width);
                let (gamma, beta) = (r.take(&t, weight, &[width])?, r.take(&t, bias, &[width])?);
                r.patch(Site::Norm(site), Op::ReplaceNorm(Norm { gamma, beta }));
            }
            Part::Linear(site) => {
                let Some((rows, cols)) = head::shape(site, r.head(), r.spec) else { continue };
                let t = at(site, rows, cols);
                let bias = if r.has_bias(&t) { r.take(&t, bias, &[rows])? } else { None };
                let weight = r.take(&t, weight, &[rows, cols])?.and_then(|w| Matrix::dense(rows, cols, w));
                r.patch(Site::Linear(site), Op::ReplaceLinear(Dense { weight, bias }));
            }
            Part::Word | Part::Position | Part::TokenType | Part::Relative => {}
        }
    }
    Ok(())
}
