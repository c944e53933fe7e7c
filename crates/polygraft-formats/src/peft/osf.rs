//! OSF: replaces the smaller singular values and vectors of the weight, `W' = Σ_{i < e} σᵢ uᵢ vᵢᵀ + U diag(S) V`.

use super::family::{Family, Reader};
use super::reading::Reading;
use super::targets::Matcher;
use crate::dense::{product, scale_cols};
use crate::error::Result;
use crate::maths::linalg::Mat;
use crate::maths::svd;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    // How many are kept is seen from how many there are.
    silent: &["effective_rank", "init_weights", "rank_pattern", "target_svd_config"],
    markers: &[".osf_svd_params"],
    targets: Some(&[]),
    reader: Reader::Load(load),
    ..Family::new("OSF", "osf", "OSF (Nayak et al. 2025, arXiv 2504.07097)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    r.config.targets.include.get_or_insert(Matcher::AllLinear);
    for t in r.targets()? {
        let side = t.rows.min(t.cols);
        let Some(&[few]) = r.shape(&t, "osf_svd_params.S_low").as_deref() else {
            r.missing(&t, "osf_svd_params.S_low");
            continue;
        };
        let few = few.min(side);
        let s = r.take(&t, "osf_svd_params.S_low", &[few])?;
        let u = r.take(&t, "osf_svd_params.U_low", &[t.rows, few])?;
        let v = r.take(&t, "osf_svd_params.V_low", &[few, t.cols])?;
        let Some(((mut u, v), s)) = u.zip(v).zip(s) else { continue };
        scale_cols(&mut u, &s);
        r.adds(&t, u.len() + v.len(), move |layer| {
            let w = Mat::from_f32(layer.rows, layer.cols, &layer.weight);
            let kept = w.and_then(|w| svd::truncated(&w, side - few));
            layer.weight = kept.ok_or("the weight has no singular value decomposition")?.to_f32();
            layer.add(&product(&u, &v, few, layer.cols), 1.0);
            Ok(())
        });
    }
    Ok(())
}
