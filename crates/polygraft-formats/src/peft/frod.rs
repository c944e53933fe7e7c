//! FRoD: writes the weight as `U (S + diag λ) Vᵀ`, with a `V` that layers of one kind share and a `U` that follows from
//! the base's weight and `V`; what is trained are `λ` and a few entries of `S`.

use super::config::bad;
use super::family::{Family, Reader};
use super::reading::Reading;
use crate::error::Result;
use crate::maths::linalg::{Mat, norm};
use crate::maths::svd::svd;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["save_projection"],
    silent: &[
        "frod_dropout",
        "init_weights",
        "progressbar",
        "projection_prng_key",
        "regularization_alpha",
        "runtime_offload_base_weight",
        "sparse_rate",
    ],
    markers: &[".frod_"],
    reader: Reader::Load(load),
    ..Family::new("FROD", "frod", "FRoD (full-rank efficient fine-tuning with rotational degrees)")
};

/// What the layers of one kind share.
struct Shared {
    /// `[inputs, inputs]`.
    v: Mat,
    /// Row and column of each entry of `S`.
    entries: Vec<(usize, usize)>,
}

fn load(r: &mut Reading<'_>) -> Result<()> {
    if !r.config.flag("save_projection", true)? {
        let why = "its projections were not saved: PEFT computes them anew from eigenvectors of the base's weights, whose \
                   signs are those of the LAPACK at hand, and the result changes with them; save it with save_projection \
                   true";
        return Err(bad("save_projection", why));
    }
    let mut kinds: BTreeMap<String, Option<Arc<Shared>>> = BTreeMap::new();
    for t in r.targets()? {
        let name = kind(&t.module);
        let shared = match kinds.get(&name) {
            Some(shared) => shared.clone(),
            None => {
                let shared = projection(r, &name, t.cols)?.map(Arc::new);
                kinds.insert(name.clone(), shared.clone());
                shared
            }
        };
        let lambda = r.take(&t, "frod_lambda_l", &[t.cols])?;
        let Some(shared) = shared else { continue };
        if shared.v.rows() != t.cols {
            let (expected, found) = (t.cols.to_string(), shared.v.rows().to_string());
            return Err(r.shared_wrong(&format!("frod_V.{name}"), &format!("{expected} inputs"), &found));
        }
        let values = r.take(&t, "frod_lambda_s_values", &[shared.entries.len()])?;
        let Some((lambda, values)) = lambda.zip(values) else { continue };
        r.adds(&t, lambda.len() + values.len() + 2 * shared.v.data().len(), move |layer| {
            let w = Mat::from_f32(layer.rows, layer.cols, &layer.weight);
            let changed = w.and_then(|w| reconstructed(&w, &shared, &lambda, &values));
            layer.weight = changed.ok_or("its projection cannot be inverted")?.to_f32();
            Ok(())
        });
    }
    Ok(())
}

/// The name under which layers of one kind share: the last two parts of the path.
fn kind(module: &str) -> String {
    let parts: Vec<&str> = module.split('.').collect();
    match parts[..] {
        [.., "attention", "output", "dense"] => "attention_output".into(),
        [.., before, last] if !before.bytes().all(|b| b.is_ascii_digit()) => format!("{before}_{last}"),
        [.., last] => last.into(),
        [] => String::new(),
    }
}

fn projection(r: &mut Reading<'_>, kind: &str, cols: usize) -> Result<Option<Shared>> {
    let v = r.shared(&format!("frod_V.{kind}"), &[cols, cols])?;
    let size = r.shared_ints(&format!("frod_s_size.{kind}"), &[2])?;
    let name = format!("frod_s_indices.{kind}");
    let Some(&[2, count]) = r.shared_shape(&name).as_deref() else {
        r.shared_missing(&name);
        return Ok(None);
    };
    let Some(indices) = r.shared_ints(&name, &[2, count])? else { return Ok(None) };
    let Some((v, size)) = v.and_then(|v| Mat::from_f32(cols, cols, &v)).zip(size) else { return Ok(None) };
    let inside = |i: &i64| usize::try_from(*i).ok().filter(|i| *i < cols);
    let (rows, columns) = indices.split_at(count);
    let entries: Option<Vec<_>> = rows.iter().zip(columns).map(|(i, j)| inside(i).zip(inside(j))).collect();
    match entries {
        Some(entries) if size.iter().all(|n| usize::try_from(*n) == Ok(cols)) => Ok(Some(Shared { v, entries })),
        _ => Err(r.shared_wrong(&name, &format!("places in {cols} × {cols}"), "one beyond")),
    }
}

/// `U (S + diag λ) Vᵀ`, the columns of `U` being those of `W V⁻ᵀ` made unit vectors.
fn reconstructed(w: &Mat, shared: &Shared, lambda: &[f32], values: &[f32]) -> Option<Mat> {
    let v = &shared.v;
    // Row k is column k of U.
    let mut u = v.solve(&w.transposed()).or_else(|| pseudo_solve(v, w))?;
    for k in 0..u.rows() {
        let length = norm(u.row(k));
        u.row_mut(k).iter_mut().for_each(|x| *x = if length > 1e-12 { *x / length } else { 0.0 });
    }
    let n = v.cols();
    let mut inner = Mat::zeros(n, n)?;
    for (i, l) in lambda.iter().enumerate() {
        *inner.row_mut(i).get_mut(i)? += f64::from(*l);
    }
    for ((i, j), x) in shared.entries.iter().zip(values) {
        *inner.row_mut(*i).get_mut(*j)? += f64::from(*x);
    }
    u.transposed().times(&inner.times_transposed(v)?)
}

/// `pinv(v) · wᵀ`, singular values below a millionth of the largest left out, as PEFT does when `v` is singular.
fn pseudo_solve(v: &Mat, w: &Mat) -> Option<Mat> {
    let parts = svd(v)?;
    let mut x = parts.ut.times_transposed(w)?;
    let least = parts.s.first()? * 1e-6;
    for (k, s) in parts.s.iter().enumerate() {
        x.row_mut(k).iter_mut().for_each(|x| *x = if *s > least { *x / s } else { 0.0 });
    }
    parts.vt.transposed().times(&x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_pefts() {
        for (module, name) in [
            ("bert.encoder.layer.0.attention.self.query", "self_query"),
            ("encoder.layer.0.attention.output.dense", "attention_output"),
            ("encoder.layer.0.output.dense", "output_dense"),
            ("classifier", "classifier"),
            ("layers.3.proj", "layers.3.proj".split('.').next_back().unwrap()),
            ("", ""),
        ] {
            assert_eq!(kind(module), name, "{module}");
        }
    }

    #[test]
    fn a_singular_projection_is_inverted_where_it_can_be() {
        let v = Mat::new(2, 2, vec![2.0, 0.0, 0.0, 0.0]).unwrap();
        let w = Mat::new(1, 2, vec![3.0, 5.0]).unwrap();
        assert!(v.solve(&w.transposed()).is_none());
        let shared = Shared { v, entries: vec![(0, 1)] };
        let out = reconstructed(&w, &shared, &[4.0, 1.0], &[7.0]).unwrap();
        assert_eq!(out.data(), [8.0, 0.0]);
    }
}
