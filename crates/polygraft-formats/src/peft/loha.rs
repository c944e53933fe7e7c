//! LoHa: the Hadamard product of two low-rank matrices, `ΔW = s · (A₁ B₁) ∘ (A₂ B₂)`.

use super::family::{Family, Reader};
use super::lora::Scales;
use super::reading::Reading;
use super::tucker;
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
    let scales = Scales::of(&r.config, "alpha", false)?;
    for t in r.targets()? {
        let (rank, s) = scales.at(&t.module)?;
        if r.shape(&t, "hada_t1").is_some() {
            let size = (rank, t.rows, t.cols);
            let first = tucker::weight(r, &t, ["hada_t1", "hada_w1_a", "hada_w1_b"], size)?;
            let second = tucker::weight(r, &t, ["hada_t2", "hada_w2_a", "hada_w2_b"], size)?;
            let Some((mut delta, second)) = first.zip(second) else { continue };
            delta.iter_mut().zip(second).for_each(|(d, other)| *d *= other);
            r.adds(&t, delta.len(), move |layer| {
                layer.add(&delta, s);
                Ok(())
            });
            continue;
        }
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
