//! (IA)³ (Liu et al. 2022) in the library's form: a vector that scales a layer's output, its bias included, before the
//! activation; times `alpha`, which is not divided by the rank.

use super::config::Settings;
use super::family::Family;
use super::lora::{READS, SILENT};
use super::reading::{Linears, Reading};
use crate::change::Change;
use crate::error::Result;
use polygraft::ir::{Layer, Meeting};

/// The method's row.
pub(super) const FAMILY: Family = Family {
    name: "ia3",
    paper: "(IA)³ (Liu et al. 2022, arXiv 2205.05638)",
    architecture: Some("lora"),
    mode: Some(("composition_mode", "scale")),
    reads: READS,
    silent: SILENT,
    ops: "change of weights",
    merges: true,
    load,
};

#[allow(clippy::cast_possible_truncation, reason = "scales are f32")]
fn load(r: &mut Reading<'_>, s: &Settings) -> Result<()> {
    if s.whole("r", 8)? != 1 {
        return Err(s.bad("r", "composition_mode \"scale\" is defined for rank 1"));
    }
    if s.flag("use_dora", false)? {
        return Err(s.bad("use_dora", "composition_mode \"scale\" has no DoRA"));
    }
    if s.flag("use_gating", false)? {
        return Err(s.bad("use_gating", "not supported by this version"));
    }
    let alpha = s.number("alpha")?.unwrap_or(8.0) as f32;
    for t in r.linears(s, Linears { attention: &["q", "v"], intermediate: false })? {
        let Some(l) = r.tensors.need(&format!("{}.lora_B", t.path), &[t.rows, 1])? else { continue };
        let held = l.len();
        let apply = move |layer: &mut Layer, _: &Layer| {
            for (row, l) in layer.weight.chunks_exact_mut(layer.cols).zip(&l) {
                row.iter_mut().for_each(|w| *w *= l * alpha);
            }
            if let Some(bias) = &mut layer.bias {
                bias.iter_mut().zip(&l).for_each(|(b, l)| *b *= l * alpha);
            }
            Ok(())
        };
        let (family, shape) = ("ia3", (t.rows, t.cols));
        r.change(&t, Change { family, shape, meeting: Meeting::Follows, changes_weight: true, held, apply });
    }
    Ok(())
}
