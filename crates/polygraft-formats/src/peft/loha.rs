//! LoHa: the Hadamard product of two low-rank matrices, `ΔW = s · (A₁ B₁) ∘ (A₂ B₂)`.

use super::family::{Family, Reader};
use super::lora::Scales;
use super::reading::Reading;
use crate::dense::product;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["alpha", "alpha_pattern", "r", "rank_pattern"],
    silent: &["init_weights", "module_dropout", "rank_dropout", "use_effective_conv2d"],
    markers: &[".hada_"],
    base: false,
    reader: Reader::Load(load),
    ..Family::new("LOHA", "loha", "LoHa (Hyeon-Woo et al. 2022, arXiv 2108.06098)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let scales = Scales::of(r, "alpha", false)?;
    for t in r.targets()? {
        let (rank, s) = scales.at(&t.module)?;
        let a1 = r.take(&t, "hada_w1_a", &[t.rows, rank])?;
        let b1 = r.take(&t, "hada_w1_b", &[rank, t.cols])?;
        let a2 = r.take(&t, "hada_w2_a", &[t.rows, rank])?;
        let b2 = r.take(&t, "hada_w2_b", &[rank, t.cols])?;
        let Some(((a1, b1), (a2, b2))) = a1.zip(b1).zip(a2.zip(b2)) else { continue };
        r.adds(&t, 2 * (a1.len() + b1.len()), move |layer| {
            let mut delta = product(&a1, &b1, rank, layer.cols);
            delta.iter_mut().zip(product(&a2, &b2, rank, layer.cols)).for_each(|(d, other)| *d *= other);
            layer.add(&delta, s);
            Ok(())
        });
    }
    Ok(())
}
