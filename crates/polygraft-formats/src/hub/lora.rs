//! LoRA (Hu et al. 2021) in the library's own form, with a gate (UniPELT), as VeRA (Kopiczko et al. 2024) and as DoRA
//! (Liu et al. 2024): `loras.N.{lora_A, lora_B, m, gate, vera_D, vera_B}` at linear layers.

use super::config::Settings;
use super::family::Family;
use super::reading::{Linears, Reading, Target};
use crate::change::Change;
use crate::dense;
use crate::error::Result;
use polygraft::ir::{Gate, Layer, LowRank, Meeting, MixedLowRank, Mixing, Op, Site};
use polygraft::tensor::Matrix;

/// The method's row.
pub(super) const FAMILY: Family = Family {
    name: "lora",
    paper: "LoRA (Hu et al. 2021, arXiv 2106.09685), VeRA (Kopiczko et al. 2024, arXiv 2310.11454), DoRA (Liu et al. 2024, arXiv 2402.09353)",
    architecture: Some("lora"),
    mode: None,
    reads: READS,
    silent: SILENT,
    ops: "low-rank; change of weights with DoRA",
    merges: true,
    load,
};

/// Entries of LoRA that its relatives read as well.
pub(super) const READS: &[&str] = &[
    "alpha",
    "architecture",
    "attn_matrices",
    "composition_mode",
    "intermediate_lora",
    "leave_out",
    "output_lora",
    "r",
    "selfattn_lora",
    "use_dora",
    "use_gating",
    "vera_b",
    "vera_d",
];
/// Entries that decide how training begins or how numbers are stored.
pub(super) const SILENT: &[&str] = &["dropout", "dtype", "init_weights", "init_weights_seed"];

fn load(r: &mut Reading<'_>, s: &Settings) -> Result<()> {
    let mode = s.text("composition_mode")?.unwrap_or("add");
    if mode != "add" {
        return Err(s.bad("composition_mode", format!("{mode:?} is neither add nor scale")));
    }
    let rank = s.whole("r", 8)?;
    let scale = scale(s, rank)?;
    let dora = s.flag("use_dora", false)?;
    let gated = s.flag("use_gating", false)?;
    let targets = r.linears(s, Linears { attention: &["q", "v"], intermediate: false })?;
    // The library takes the one for the other by the type of the number.
    let vera = s.number("vera_d")?.is_some() || s.number("vera_b")?.is_some();
    let shared = if vera { shared(r, rank, &targets)? } else { None };
    for t in &targets {
        let factors = if vera { r.vera(t, rank, shared.as_ref())? } else { r.factors(t, rank)? };
        let magnitude = if dora { r.tensors.need(&format!("{}.m.weight", t.path), &[t.rows, 1])? } else { None };
        let gate = if gated { r.gate(&t.path, t.cols)? } else { None };
        let Some((a, b)) = factors else { continue };
        match (magnitude, gate) {
            (None, None) if !dora && !gated => {
                r.patch(Site::Linear(t.site), Op::LowRank(LowRank { a, b, bias: None, scale }))
            }
            (None, Some(gate)) if !dora => r.gated(t, a, b, gate),
            (Some(m), None) if !gated => r.dora(t, a, b, scale, m),
            (Some(_), Some(_)) => return Err(s.bad("use_gating", "a gate on DoRA is not supported by this version")),
            // Something was missing, which is noted.
            _ => {}
        }
    }
    Ok(())
}

/// `alpha / r`.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "ranks are small; scales are f32")]
pub(super) fn scale(s: &Settings, rank: usize) -> Result<f32> {
    Ok((s.number("alpha")?.unwrap_or(8.0) / rank as f64) as f32)
}

/// `A` and `B` that all layers of a VeRA share, sized by the first of them.
fn shared(r: &mut Reading<'_>, rank: usize, targets: &[Target]) -> Result<Option<(Matrix, Matrix)>> {
    let Some(first) = targets.first() else { return Ok(None) };
    let path = format!("shared_parameters.{}", r.name);
    let a = r.tensors.matrix(&format!("{path}.lora_A"), rank, first.cols)?;
    let b = r.tensors.matrix(&format!("{path}.lora_B"), first.rows, rank)?;
    Ok(a.zip(b))
}

impl Reading<'_> {
    /// `lora_A` `[rank, inputs]`, `lora_B` `[outputs, rank]`.
    fn factors(&mut self, t: &Target, rank: usize) -> Result<Option<(Matrix, Matrix)>> {
        let a = self.tensors.matrix(&format!("{}.lora_A", t.path), rank, t.cols)?;
        let b = self.tensors.matrix(&format!("{}.lora_B", t.path), t.rows, rank)?;
        Ok(a.zip(b))
    }

    /// `vera_B · B · vera_D · A`: the "vectors" are stored as whole matrices, and trained as such.
    fn vera(&mut self, t: &Target, rank: usize, shared: Option<&(Matrix, Matrix)>) -> Result<Option<(Matrix, Matrix)>> {
        let d = self.tensors.matrix(&format!("{}.vera_D", t.path), rank, rank)?;
        let b = self.tensors.matrix(&format!("{}.vera_B", t.path), t.rows, t.rows)?;
        let Some(((d, b), (shared_a, shared_b))) = d.zip(b).zip(shared) else { return Ok(None) };
        if (shared_a.cols(), shared_b.rows()) != (t.cols, t.rows) {
            let why = format!(
                "VeRA shares matrices for layers of {} × {}, and {} is of {} × {}",
                shared_b.rows(),
                shared_a.cols(),
                t.path,
                t.rows,
                t.cols
            );
            return Err(super::config::bad("vera_d", why));
        }
        Ok(Some((product(&d, shared_a), product(&b, shared_b))))
    }

    /// `y += g · B A x`: with a gate, `alpha / r` is dropped.
    pub(super) fn gated(&mut self, t: &Target, a: Matrix, b: Matrix, gate: Gate) {
        let lora = LowRank { a, b, bias: None, scale: 1.0 };
        self.patch(Site::Linear(t.site), Op::MixedLowRank(MixedLowRank { lora, mixing: Mixing::Gate(gate) }));
    }

    /// `(m / ‖W + B A‖) ⊙ (W x + b + s · B A x)`: the norm is of the update without its scale, and the bias is scaled too.
    fn dora(&mut self, t: &Target, a: Matrix, b: Matrix, scale: f32, m: Vec<f32>) {
        let held = m.len() + a.rows() * a.cols() + b.rows() * b.cols();
        let delta = product(&b, &a);
        let apply = move |layer: &mut Layer, _: &Layer| {
            let delta = delta.to_f32();
            let mut rows = layer.weight.chunks_exact_mut(layer.cols).zip(delta.chunks_exact(layer.cols));
            for (row, m) in m.iter().enumerate() {
                let Some((w, d)) = rows.next() else { break };
                let square = |(w, d): (&f32, &f32)| (f64::from(*w) + f64::from(*d)).powi(2);
                let norm = w.iter().zip(d).map(square).sum::<f64>().sqrt();
                let factor = f64::from(*m) / norm;
                let change = |w: f32, d: f32| (factor * (f64::from(w) + f64::from(scale) * f64::from(d))) as f32;
                w.iter_mut().zip(d).for_each(|(w, d)| *w = change(*w, *d));
                if let Some(b) = layer.bias.as_mut().and_then(|b| b.get_mut(row)) {
                    *b = (factor * f64::from(*b)) as f32;
                }
            }
            Ok(())
        };
        let (family, shape) = ("dora", (t.rows, t.cols));
        self.change(t, Change { family, shape, meeting: Meeting::Follows, changes_weight: true, held, apply });
    }
}

/// `left · right`, summed in f64.
fn product(left: &Matrix, right: &Matrix) -> Matrix {
    let out = dense::product(&left.to_f32(), &right.to_f32(), left.cols(), right.cols());
    Matrix::dense(left.rows(), right.cols(), out).unwrap_or_else(|| right.clone())
}
