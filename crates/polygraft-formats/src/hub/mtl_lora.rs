//! MTL-LoRA (Yang et al. 2024): several up-projections, mixed by trained weights, of one down-projection whose rank-wise
//! strength is a task's own. For one task it is a LoRA: `B = Σ pᵢ Bᵢ`, `A = diag(values) A`, `p = softmax(w / τ)`.

use super::config::Settings;
use super::family::Family;
use super::lora::{self, SILENT};
use super::reading::{Linears, Reading};
use crate::error::Result;
use polygraft::ir::{LowRank, Op, Site};
use polygraft::tensor::Matrix;

/// The method's row.
pub(super) const FAMILY: Family = Family {
    name: "mtl-lora",
    paper: "MTL-LoRA (Yang et al. 2024, arXiv 2410.09437)",
    architecture: Some("mtl_lora"),
    mode: None,
    reads: &[
        "alpha",
        "architecture",
        "attn_matrices",
        "composition_mode",
        "intermediate_lora",
        "leave_out",
        "n_up_projection",
        "output_lora",
        "r",
        "selfattn_lora",
        "task_specific_matrix_type",
        "use_dora",
        "use_gating",
        "weights_sharpness",
    ],
    silent: SILENT,
    ops: "low-rank",
    hooks: true,
    merges: true,
    load,
};

fn load(r: &mut Reading<'_>, s: &Settings) -> Result<()> {
    if let Some(kind) = s.text("task_specific_matrix_type")?.filter(|k| *k != "singular_values") {
        let why = format!("{kind:?} cannot be made by adapters 1.3.0, which fails on it; singular_values can");
        return Err(s.bad("task_specific_matrix_type", why));
    }
    let gated = s.flag("use_gating", false)?;
    if s.flag("use_dora", false)? {
        return Err(s.bad("use_dora", "MTL-LoRA with DoRA is not supported by this version"));
    }
    let (rank, experts) = (s.whole("r", 8)?, s.whole("n_up_projection", 1)?);
    let scale = lora::scale(s, rank)?;
    let sharpness = s.number("weights_sharpness")?.unwrap_or(0.05);
    for t in r.linears(s, Linears { attention: &["q", "v"], intermediate: false })? {
        if t.joint() {
            let why = "the library cannot run MTL-LoRA where query, key and value are one layer: leave it out";
            return Err(s.bad("selfattn_lora", why));
        }
        let a = r.tensors.need(&format!("{}.lora_A", t.path), &[rank, t.cols])?;
        let b = r.tensors.need(&format!("{}.lora_B", t.path), &[experts, t.rows, rank])?;
        let values = r.tensors.need(&format!("{}.task_specific.values", t.path), &[rank])?;
        let weights = r.tensors.need(&format!("{}.weights", t.path), &[experts])?;
        let gate = if gated { r.gate(&t.path, t.cols)? } else { None };
        let (Some(mut a), Some(b), Some(values), Some(weights)) = (a, b, values, weights) else { continue };
        for (row, value) in a.chunks_exact_mut(t.cols).zip(&values) {
            row.iter_mut().for_each(|x| *x *= value);
        }
        let mixed = mix(&b, t.rows * rank, &weights, sharpness);
        if let Some((a, b)) = Matrix::dense(rank, t.cols, a).zip(Matrix::dense(t.rows, rank, mixed)) {
            match gate {
                Some(gate) => r.gated(&t, a, b, gate),
                None if gated => {}
                None => r.patch(Site::Linear(t.site), Op::LowRank(LowRank { a, b, bias: None, scale })),
            }
        }
    }
    Ok(())
}

/// `Σ softmax(w / τ)ᵢ Bᵢ`, each of `size` numbers.
#[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
fn mix(b: &[f32], size: usize, weights: &[f32], sharpness: f64) -> Vec<f32> {
    let powers: Vec<f64> = weights.iter().map(|w| f64::from(*w) / sharpness).collect();
    let most = powers.iter().copied().fold(f64::MIN, f64::max);
    let shares: Vec<f64> = powers.iter().map(|p| (p - most).exp()).collect();
    let sum: f64 = shares.iter().sum();
    let mut out = vec![0.0f64; size];
    for (b, share) in b.chunks_exact(size).zip(shares) {
        out.iter_mut().zip(b).for_each(|(o, b)| *o += share / sum * f64::from(*b));
    }
    out.into_iter().map(|x| x as f32).collect()
}
