//! LoKr: a Kronecker product, either factor of which may be low-rank, `ΔW = s · W₁ ⊗ W₂`.

use super::family::{Family, Reader};
use super::lora::Scales;
use super::reading::{Reading, Target};
use super::tucker;
use crate::dense::product;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["alpha", "alpha_pattern", "r", "rank_pattern"],
    // How the factors were cut is in their shapes.
    silent: &[
        "decompose_both",
        "decompose_factor",
        "init_weights",
        "module_dropout",
        "rank_dropout",
        "rank_dropout_scale",
        "use_effective_conv2d",
    ],
    markers: &[".lokr_"],
    base: false,
    reader: Reader::Load(load),
    ..Family::new("LOKR", "lokr", "LoKr (Yeh et al. 2024, arXiv 2309.14859)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let scales = Scales::of(&r.config, "alpha", false)?;
    for t in r.targets()? {
        // Divided by the rank even where no factor is low-rank.
        let (rank, s) = scales.at(&t.module)?;
        let Some((rows, cols)) = first_shape(r, &t) else {
            r.missing(&t, "lokr_w1");
            continue;
        };
        let w1 = factor(r, &t, "lokr_w1", rank, rows, cols)?;
        let (inner_rows, inner_cols) = (t.rows / rows, t.cols / cols);
        let w2 = factor(r, &t, "lokr_w2", rank, inner_rows, inner_cols)?;
        let Some((w1, w2)) = w1.zip(w2) else { continue };
        r.adds(&t, w1.len() + w2.len(), move |layer| {
            let width = layer.cols;
            for (row, out) in layer.weight.chunks_exact_mut(width).enumerate() {
                let outer = &w1[row / inner_rows * cols..][..cols];
                let inner = &w2[row % inner_rows * inner_cols..][..inner_cols];
                for (block, a) in out.chunks_exact_mut(inner_cols).zip(outer) {
                    block.iter_mut().zip(inner).for_each(|(w, b)| *w += s * a * b);
                }
            }
            Ok(())
        });
    }
    Ok(())
}

/// The shape of the outer factor, if it divides the layer's.
fn first_shape(r: &Reading<'_>, t: &Target) -> Option<(usize, usize)> {
    let (rows, cols) = match r.shape(t, "lokr_w1").as_deref() {
        Some(&[rows, cols]) => (rows, cols),
        _ => (*r.shape(t, "lokr_w1_a")?.first()?, *r.shape(t, "lokr_w1_b")?.get(1)?),
    };
    let divides = |n: usize, by: usize| by > 0 && n.is_multiple_of(by);
    (divides(t.rows, rows) && divides(t.cols, cols)).then_some((rows, cols))
}

fn factor(
    r: &mut Reading<'_>,
    t: &Target,
    name: &str,
    rank: usize,
    rows: usize,
    cols: usize,
) -> Result<Option<Vec<f32>>> {
    if r.shape(t, name).is_some() {
        return r.take(t, name, &[rows, cols]);
    }
    if name == "lokr_w2" && r.shape(t, "lokr_t2").is_some() {
        return tucker::weight(r, t, ["lokr_t2", "lokr_w2_a", "lokr_w2_b"], (rank, rows, cols));
    }
    let a = r.take(t, &format!("{name}_a"), &[rows, rank])?;
    let b = r.take(t, &format!("{name}_b"), &[rank, cols])?;
    Ok(a.zip(b).map(|(a, b)| product(&a, &b, rank, cols)))
}
