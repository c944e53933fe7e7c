//! LN tuning: layer norms, or whatever else is targeted, trained whole.

use super::family::{Family, Reader};
use super::head;
use super::reading::{Module, Reading, Target};
use crate::change::OwnTable;
use crate::error::Result;
use crate::names::Part;
use polygraft::ir::{Dense, Norm, Op, Rewording, Site};
use polygraft::tensor::Matrix;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    markers: &[".ln_tuning_layers"],
    // PEFT has a default for decoders only.
    targets: Some(&[]),
    ops: "replace norm, replace linear, change of embeddings",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("LN_TUNING", "ln tuning", "LN tuning (Zhao et al. 2023, arXiv 2312.11420)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    for (path, part) in r.parts()? {
        let module = r.wrapped(&path);
        let (weight, bias) = ("ln_tuning_layers.weight", "ln_tuning_layers.bias");
        if let Some(table) = r.table(path.clone(), part) {
            if let Some(own) = r.take(&table, weight, &[table.rows, table.cols])? {
                let own = Matrix::dense(table.rows, table.cols, own).map(OwnTable);
                own.into_iter().for_each(|own| r.patch(table.site, Op::Rewording(Rewording::new(own))));
            }
            continue;
        }
        match part {
            Part::Norm(site) => {
                let width = head::width(site, r.head(), r.spec);
                let t = Module { path, module, site: Site::Norm(site), rows: 1, cols: width };
                let gamma = r.take(&t, weight, &[width])?;
                let beta = if r.norm_has_bias(site) { r.take(&t, bias, &[width])? } else { None };
                r.patch(Site::Norm(site), Op::ReplaceNorm(Norm { gamma, beta }));
            }
            Part::Linear(site) => {
                let Some((rows, cols)) = head::shape(site, r.head(), r.spec) else { continue };
                let t = Target { path, module, site, rows, cols };
                let bias = if r.has_bias(&t) { r.take(&t, bias, &[rows])? } else { None };
                let weight = r.take(&t, weight, &[rows, cols])?.and_then(|w| Matrix::dense(rows, cols, w));
                r.patch(Site::Linear(site), Op::ReplaceLinear(Dense { weight, bias }));
            }
            Part::Word | Part::Position | Part::TokenType | Part::Relative => {}
        }
    }
    Ok(())
}
