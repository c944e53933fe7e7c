//! LoRA (Hu et al. 2021) in the library's own form, with a gate (UniPELT), as VeRA (Kopiczko et al. 2024) and as DoRA
//! (Liu et al. 2024): `loras.N.{lora_A, lora_B, m, gate, vera_D, vera_B}` at linear layers.

use super::config::Settings;
use super::family::Family;
use super::reading::{Linears, Reading, Target};
use crate::change::Factors;
use crate::dense;
use crate::error::Result;
use polygraft::ir::{Gate, Layer, LowRank, Meeting, MixedLowRank, Mixing, Op, Site};
use polygraft::tensor::Matrix;
use std::ops::Range;

/// The method's row.
pub(super) const FAMILY: Family = Family {
    name: "lora",
    paper: "LoRA (Hu et al. 2021, arXiv 2106.09685), VeRA (Kopiczko et al. 2024, arXiv 2310.11454), DoRA (Liu et al. 2024, arXiv 2402.09353)",
    architecture: Some("lora"),
    mode: None,
    reads: READS,
    silent: SILENT,
    ops: "low-rank; change of weights with DoRA",
    hooks: true,
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
        if t.joint() && vera {
            let why = "the library cannot run VeRA where query, key and value are one layer: leave selfattn_lora out";
            return Err(s.bad("vera_d", why));
        }
        let factors = if vera { r.vera(t, rank, shared.as_ref())?.map(|f| vec![f]) } else { r.factors_of(t, rank)? };
        let magnitude = if dora { r.tensors.need(&format!("{}.m.weight", t.path), &[t.rows, 1])? } else { None };
        let gates = if gated { r.gates(&format!("{}.gate", t.path), t.cols, t.parts.len())? } else { None };
        let (Some(factors), true, true) = (factors, magnitude.is_some() == dora, gates.is_some() == gated) else {
            // Something was missing, which is noted.
            continue;
        };
        // A layer that is query, key and value has the magnitudes, and the library does not use them.
        let magnitude = magnitude.filter(|_| !t.joint());
        let close = magnitude.zip(factors.first().cloned());
        match gates {
            Some(gates) => factors.into_iter().zip(gates).for_each(|((a, b), gate)| r.gated(t, a, b, gate)),
            None => {
                if let Some((a, b)) = joined(factors) {
                    r.patch(Site::Linear(t.site), Op::LowRank(LowRank { a, b, bias: None, scale }));
                }
            }
        }
        if let Some((m, (a, b))) = close {
            r.closed(t, a, b, m);
        }
    }
    Ok(())
}

/// One pair of factors for several: the down-projections one after the other, the up-projections side by side.
fn joined(mut pairs: Vec<(Matrix, Matrix)>) -> Option<(Matrix, Matrix)> {
    if pairs.len() == 1 {
        return pairs.pop();
    }
    let (rows, cols) = (pairs.first()?.1.rows(), pairs.first()?.0.cols());
    let rank: usize = pairs.iter().map(|(a, _)| a.rows()).sum();
    let a = pairs.iter().flat_map(|(a, _)| a.to_f32()).collect();
    let wide: Vec<(Vec<f32>, usize)> = pairs.iter().map(|(_, b)| (b.to_f32(), b.cols())).collect();
    let row = |row: usize| wide.iter().flat_map(move |(b, n)| b[row * n..(row + 1) * n].iter().copied());
    Matrix::dense(rank, cols, a).zip(Matrix::dense(rows, rank, (0..rows).flat_map(row).collect()))
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
    /// `lora_A` `[parts · rank, inputs]`, `lora_B` `[outputs that change, rank]`: a pair for each part, whose `B` has zeros
    /// for the outputs of the others.
    fn factors_of(&mut self, t: &Target, rank: usize) -> Result<Option<Vec<(Matrix, Matrix)>>> {
        let a = self.tensors.need(&format!("{}.lora_A", t.path), &[t.parts.len() * rank, t.cols])?;
        let b = self.tensors.need(&format!("{}.lora_B", t.path), &[t.changed(), rank])?;
        let Some((a, b)) = a.zip(b) else { return Ok(None) };
        let mut b = b.as_slice();
        let pair = |(a, part): (&[f32], &Range<usize>)| {
            let (own, rest) = b.split_at(part.len() * rank);
            b = rest;
            let mut wide = vec![0.0; t.rows * rank];
            wide[part.start * rank..part.end * rank].copy_from_slice(own);
            Matrix::dense(rank, t.cols, a.to_vec()).zip(Matrix::dense(t.rows, rank, wide))
        };
        Ok(a.chunks_exact(rank * t.cols).zip(&t.parts).map(pair).collect())
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
        let mixed = MixedLowRank { lora, mixing: Mixing::Gate(vec![gate]) };
        self.patch(Site::Linear(t.site), Op::MixedLowRank(Box::new(mixed)));
    }

    /// `(m / ‖W + B A‖) ⊙ (W x + b + …)`: the norm is of the update without its scale, and the bias is scaled too.
    fn closed(&mut self, t: &Target, a: Matrix, b: Matrix, m: Vec<f32>) {
        let held = m.len() + a.rows() * a.cols() + b.rows() * b.cols();
        let factors = move |base: &Layer| {
            let delta = product(&b, &a).to_f32();
            let rows = base.weight.chunks_exact(base.cols).zip(delta.chunks_exact(base.cols));
            let factor = |((w, d), m): ((&[f32], &[f32]), &f32)| {
                let square = |(w, d): (&f32, &f32)| (f64::from(*w) + f64::from(*d)).powi(2);
                (f64::from(*m) / w.iter().zip(d).map(square).sum::<f64>().sqrt()) as f32
            };
            rows.zip(&m).map(factor).collect()
        };
        let (family, shape) = ("dora", (t.rows, t.cols));
        self.factors(t, Factors { family, shape, meeting: Meeting::Closes, gate: None, held, factors });
    }
}

/// `left · right`, summed in f64.
fn product(left: &Matrix, right: &Matrix) -> Matrix {
    let out = dense::product(&left.to_f32(), &right.to_f32(), left.cols(), right.cols());
    Matrix::dense(left.rows(), right.cols(), out).unwrap_or_else(|| right.clone())
}
