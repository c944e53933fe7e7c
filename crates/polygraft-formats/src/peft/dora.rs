//! DoRA (Liu et al. 2024, arXiv 2402.09353), a fork of LoRA: `W' = diag(m / ‖W + s·BA‖) (W + s·BA)`, the norm of each
//! row; the bias is not scaled.

use super::reading::{Module, Named, Reading, Target};
use super::rows::LowRankRows;
use super::split::Split;
use crate::dense::product;
use crate::error::Result;
use polygraft::ir::{Meeting, Op, Reword, Rewording};
use std::fmt;
use std::sync::Arc;

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
    let Some(m) = magnitudes(r, t, t.rows)? else { return Ok(()) };
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

/// Adds the update of an embedding table with magnitudes, one for each column; the norms are those of the whole table.
pub(super) fn rows(r: &mut Reading<'_>, t: &Module, low_rank: LowRankRows, s: f32) -> Result<()> {
    let Some(m) = magnitudes(r, t, t.cols)? else { return Ok(()) };
    let change = Rows { shape: (t.rows, t.cols), low_rank: Arc::new(low_rank), s, m, norms: Vec::new() };
    r.patch(t.site, Op::Rewording(Rewording::new(change)));
    Ok(())
}

fn magnitudes(r: &mut Reading<'_>, t: &impl Named, count: usize) -> Result<Option<Vec<f32>>> {
    let name = MAGNITUDE.into_iter().find(|name| r.shape(t, name).is_some()).unwrap_or(MAGNITUDE[0]);
    r.take(t, name, &[count])
}

struct Rows {
    shape: (usize, usize),
    low_rank: Arc<LowRankRows>,
    s: f32,
    m: Vec<f32>,
    /// Of the columns of the base's table with the update; none before the base is known.
    norms: Vec<f64>,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dora {:?} of {} floats", self.shape, self.low_rank.held())
    }
}

impl Reword for Rows {
    #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
    fn apply(&self, id: u32, row: &mut [f32]) {
        for ((x, d), (m, norm)) in row.iter_mut().zip(self.low_rank.at(id)).zip(self.m.iter().zip(&self.norms)) {
            *x = (f64::from(*m) / norm * (f64::from(*x) + f64::from(self.s) * f64::from(d))) as f32;
        }
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn meeting(&self) -> Meeting {
        Meeting::Follows
    }

    fn prepared(
        &self,
        table: &mut dyn FnMut(usize, &mut [f32]) -> polygraft::Result<()>,
    ) -> polygraft::Result<Option<Rewording>> {
        let (rows, width) = self.shape;
        let (mut norms, mut row) = (vec![0.0f64; width], vec![0.0; width]);
        for id in 0..rows {
            table(id, &mut row)?;
            let update = self.low_rank.at(u32::try_from(id).unwrap_or(u32::MAX));
            let square = |(x, d): (&f32, f32)| (f64::from(*x) + f64::from(self.s) * f64::from(d)).powi(2);
            norms.iter_mut().zip(row.iter().zip(update).map(square)).for_each(|(n, s)| *n += s);
        }
        norms.iter_mut().for_each(|n| *n = n.sqrt());
        let (low_rank, m) = (self.low_rank.clone(), self.m.clone());
        Ok(Some(Rewording::new(Self { shape: self.shape, low_rank, s: self.s, m, norms })))
    }

    fn bytes(&self) -> usize {
        (self.low_rank.held() + self.m.len() + 2 * self.norms.len()) * 4
    }
}
