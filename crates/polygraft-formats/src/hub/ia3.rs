//! (IA)³ (Liu et al. 2022) in the library's form: a vector that scales a layer's output, its bias included, before the
//! activation; times `alpha`, which is not divided by the rank.

use super::config::Settings;
use super::family::Family;
use super::lora::{READS, SILENT};
use super::reading::{Linears, Reading};
use crate::change::Factors;
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
    hooks: true,
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
    let gated = s.flag("use_gating", false)?;
    let alpha = s.number("alpha")?.unwrap_or(8.0) as f32;
    for t in r.linears(s, Linears { attention: &["q", "v"], intermediate: false })? {
        let l = r.tensors.need(&format!("{}.lora_B", t.path), &[t.changed(), 1])?;
        let gates = if gated { r.gates(&format!("{}.gate", t.path), t.cols, t.parts.len())? } else { Some(Vec::new()) };
        let (Some(l), Some(gates)) = (l, gates) else { continue };
        let (family, shape, held) = ("ia3", (t.rows, t.cols), t.rows);
        let mut push = |gate, factors: Vec<f32>| {
            let factors = move |_: &Layer| factors.clone();
            r.factors(&t, Factors { family, shape, meeting: Meeting::Scales, gate, held, factors });
        };
        if !gated {
            // Outputs that it leaves out are times alpha all the same.
            let mut factors = vec![alpha; t.rows];
            t.parts.iter().cloned().flatten().zip(&l).for_each(|(row, l)| factors[row] = l * alpha);
            push(None, factors);
            continue;
        }
        // With a gate, alpha is dropped, and each part has a gate of its own; what they give is summed.
        let mut rest = vec![1.0; t.rows];
        let mut l = l.iter();
        for (part, gate) in t.parts.iter().zip(gates) {
            rest[part.clone()].fill(0.0);
            let mut factors = vec![0.0; t.rows];
            factors[part.clone()].iter_mut().zip(&mut l).for_each(|(f, l)| *f = *l);
            push(Some(gate), factors);
        }
        if rest.iter().any(|f| *f != 0.0) {
            push(None, rest);
        }
    }
    Ok(())
}
