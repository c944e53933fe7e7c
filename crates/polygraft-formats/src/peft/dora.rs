//! DoRA (Liu et al. 2024, arXiv 2402.09353), a fork of LoRA: `W' = diag(m / ‖W + s·BA‖) (W + s·BA)`, the norm of each
//! row; the bias is not scaled.

use super::dense::product;
use super::reading::{Reading, Target};
use super::split::Split;
use crate::error::Result;

/// Where the magnitudes are; PEFT writes the first.
const MAGNITUDE: [&str; 2] = ["lora_magnitude_vector", "lora_magnitude_vector.weight"];

/// Adds the update of a LoRA with magnitudes.
pub(super) fn update(
    r: &mut Reading<'_>,
    t: &Target,
    a: Vec<f32>,
    b: Vec<f32>,
    s: f32,
    split: Option<Split>,
) -> Result<()> {
    let name = MAGNITUDE.into_iter().find(|name| r.shape(t, name).is_some()).unwrap_or(MAGNITUDE[0]);
    let Some(m) = r.take(t, name, &[t.rows])? else { return Ok(()) };
    let rank = a.len() / t.cols.max(1);
    // After others it multiplies what they left as well, but the norm is that of its own update of the base's weight.
    r.follows_over(t, a.len() + b.len() + m.len(), move |layer, base| {
        let update = product(&b, &a, rank, layer.cols);
        // What was taken out of the base is not in its norm.
        let mut base = base.clone();
        if let Some(split) = split {
            let part = split.part(&base, rank, s)?;
            base.add(&part, -1.0);
        }
        for (row, m) in m.iter().enumerate() {
            let at = row * layer.cols..(row + 1) * layer.cols;
            let (weight, update) = (&mut layer.weight[at.clone()], &update[at.clone()]);
            let square = |(w, d): (&f32, &f32)| (f64::from(*w) + f64::from(s) * f64::from(*d)).powi(2);
            let norm = base.weight[at].iter().zip(update).map(square).sum::<f64>().sqrt();
            let scale = f64::from(*m) / norm;
            let moved = |w: f32, d: f32| scale * (f64::from(w) + f64::from(s) * f64::from(d));
            #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
            weight.iter_mut().zip(update).for_each(|(w, d)| *w = moved(*w, *d) as f32);
        }
        Ok(())
    });
    Ok(())
}
