//! DEFT: takes a subspace out of the weight and puts something else into it, `ΔW = Q (s R − Kᵀ W)`.

use super::config::bad;
use super::family::{Family, Reader};
use super::lora::scale;
use super::reading::Reading;
use crate::error::{Result, shown};
use crate::maths::linalg::Mat;
use polygraft::ir::Layer;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["alpha", "decomposition_method", "para", "r"],
    silent: &["deft_dropout", "init_scale", "init_weights"],
    markers: &[".deft_"],
    reader: Reader::Load(load),
    ..Family::new("DEFT", "deft", "DEFT (decompositional efficient fine-tuning)")
};

/// What `P` means.
#[derive(Clone, Copy)]
enum Projection {
    /// `Q = P`, `K = relu(P)`.
    Relu,
    /// `Q = K`: the orthonormal factor of `P`, signed as LAPACK signs it, for `R` was trained with these signs.
    Qr,
}

fn load(r: &mut Reading<'_>) -> Result<()> {
    let rank = r.config.count("r", 8)?;
    let projection = match r.config.text("decomposition_method", "relu")? {
        "relu" => Projection::Relu,
        "qr" => Projection::Qr,
        other => return Err(bad("decomposition_method", format!("{:?} is not relu or qr", shown(other)))),
    };
    let (alpha, removes) = (r.config.number("alpha", 0.0)?, r.config.flag("para", false)?);
    for t in r.targets()? {
        let rank = rank.min(t.rows);
        let s = if alpha == 0.0 { 1.0 } else { scale(alpha, rank, false) };
        let Some(p) = r.take(&t, "deft_P", &[t.rows, rank])? else { continue };
        let injected = if removes {
            vec![0.0; rank * t.cols]
        } else {
            let Some(injected) = r.take(&t, "deft_R", &[rank, t.cols])? else { continue };
            injected.into_iter().map(|x| x * s).collect()
        };
        let parts = || {
            let p = Mat::from_f32(t.rows, rank, &p)?;
            let q = match projection {
                Projection::Relu => p.clone(),
                Projection::Qr => p.qr()?.0,
            };
            let mut k = q.transposed();
            if matches!(projection, Projection::Relu) {
                k.data_mut().iter_mut().for_each(|x| *x = x.max(0.0));
            }
            Some((q, k, Mat::from_f32(rank, t.cols, &injected)?))
        };
        let Some((q, k, injected)) = parts() else { continue };
        r.adds(&t, 2 * (q.data().len() + k.data().len() + injected.data().len()), move |layer| {
            let change = |layer: &Layer| {
                let w = Mat::from_f32(layer.rows, layer.cols, &layer.weight)?;
                q.times(&injected.clone().minus(&k.times(&w)?)?)
            };
            let delta = change(layer).ok_or("its projection does not fit the layer")?;
            layer.add(&delta.to_f32(), 1.0);
            Ok(())
        });
    }
    Ok(())
}
