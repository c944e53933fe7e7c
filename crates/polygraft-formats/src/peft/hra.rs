//! HRA: a chain of Householder reflections of a layer's inputs, `W' = W (I − 2u₀u₀ᵀ)(I − 2u₁u₁ᵀ)…`, or, with
//! Gram–Schmidt, of one reflection in the span of all, `W' = W (I − 2UUᵀ)`.

use super::family::{Family, Reader};
use super::reading::Reading;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["apply_GS", "r"],
    silent: &["init_weights"],
    markers: &[".hra_u"],
    reader: Reader::Load(load),
    ..Family::new("HRA", "hra", "Householder reflections (Yuan et al. 2024, arXiv 2405.17484)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let (rank, orthogonal) = (r.config.count("r", 8)?, r.config.flag("apply_GS", false)?);
    for t in r.targets()? {
        let Some(u) = r.take(&t, "hra_u", &[t.cols, rank])? else { continue };
        let mut normals: Vec<Vec<f64>> = Vec::with_capacity(rank);
        for k in 0..rank {
            let mut v: Vec<f64> = (0..t.cols).map(|i| f64::from(u[i * rank + k])).collect();
            // Reflections at orthogonal normals commute: their chain is the one reflection in all of them.
            for other in normals.iter().filter(|_| orthogonal) {
                let along = dot(&v, other);
                v.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
            }
            let length = dot(&v, &v).sqrt();
            v.iter_mut().for_each(|x| *x /= length);
            normals.push(v);
        }
        if normals.iter().flatten().any(|x| !x.is_finite()) {
            return Err(r.wrong(&t, "hra_u", "vectors of some length", "one of none"));
        }
        #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
        r.follows(&t, 2 * u.len(), move |layer| {
            let mut wide = vec![0.0f64; layer.cols];
            for row in layer.weight.chunks_exact_mut(layer.cols) {
                wide.iter_mut().zip(&*row).for_each(|(w, x)| *w = f64::from(*x));
                for normal in &normals {
                    let along = 2.0 * dot(&wide, normal);
                    wide.iter_mut().zip(normal).for_each(|(w, n)| *w -= along * n);
                }
                row.iter_mut().zip(&wide).for_each(|(x, w)| *x = *w as f32);
            }
            Ok(())
        });
    }
    Ok(())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
