//! Matrices that an adapter's layers share and that no training changes: read from the file, or, where it says that
//! they were not saved, drawn again from their seed as PEFT draws them.

use super::config::bad;
use super::reading::{Reading, Target};
use crate::error::Result;
use crate::maths::torch_random::{TorchRandom, kaiming_bound};

/// More numbers than any adapter's projections have: drawing them takes no file, so the file's size is no limit.
pub(super) const MOST: usize = 1 << 26;

/// Largest number of outputs and of inputs among the layers that are targeted; 0 when there are none.
pub(super) fn widest(targets: &[Target]) -> (usize, usize) {
    targets.iter().fold((0, 0), |(rows, cols), t| (rows.max(t.rows), cols.max(t.cols)))
}

/// A refusal to draw more numbers than [`MOST`].
pub(super) fn check_size(key: &str, sizes: &[usize]) -> Result<()> {
    match sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size)) {
        Some(n) if n <= MOST => Ok(()),
        _ => Err(bad(key, format!("it asks for more than {MOST} random numbers"))),
    }
}

/// The two matrices of VeRA and PVeRA, cut to layers as they need them.
pub(super) struct Projections {
    a: Vec<f32>,
    b: Vec<f32>,
    /// Columns of `a`.
    inputs: usize,
    /// Rows and columns of `b`.
    outputs: usize,
    rank: usize,
}

impl Projections {
    /// Of `targets`: `a` is `[a_rows, inputs]`, `b` `[outputs, rank]`. `None` when they should be in the file and are not.
    pub(super) fn read(
        r: &mut Reading<'_>,
        names: [&str; 2],
        a_rows: usize,
        rank: usize,
        targets: &[Target],
    ) -> Result<Option<Self>> {
        let (rows, cols) = widest(targets);
        if r.config.flag("save_projection", true)? {
            // Wider than this base's layers when they come from a model that had wider ones.
            let size =
                |name: &str, at: usize| r.shared_shape(name).and_then(|s| s.get(at).copied()).unwrap_or_default();
            let (outputs, inputs) = (size(names[1], 0).max(rows), size(names[0], 1).max(cols));
            let a = r.shared(names[0], &[a_rows, inputs])?;
            let b = r.shared(names[1], &[outputs, rank])?;
            return Ok(a.zip(b).map(|(a, b)| Self { a, b, inputs, outputs, rank }));
        }
        // PEFT draws them anew even when they are there.
        names.iter().for_each(|name| r.ignore_shared(name));
        check_size("r", &[a_rows.max(rank), rows.max(cols)])?;
        let mut random = TorchRandom::new(r.config.seed("projection_prng_key", 0)?);
        let mut draw = |n: usize, fan_in: usize| {
            #[allow(clippy::cast_possible_truncation, reason = "the numbers are f32 in torch")]
            let bound = kaiming_bound(fan_in, 0.0) as f32;
            random.uniform(n, -bound, bound)
        };
        let a = draw(a_rows * cols, cols);
        let b = draw(rows * rank, rank);
        Ok(Some(Self { a, b, inputs: cols, outputs: rows, rank }))
    }

    /// The first `rank` rows of `a`, cut to the target's inputs, row `k` times `factors[k]`.
    pub(super) fn a(&self, t: &Target, factors: &[f32]) -> Vec<f32> {
        let rows = self.a.chunks_exact(self.inputs.max(1)).zip(factors).take(self.rank);
        rows.flat_map(|(row, f)| row.iter().take(t.cols).map(move |x| x * f)).collect()
    }

    /// `b` cut to the target's outputs, row `k` times `factors[k]`.
    pub(super) fn b(&self, t: &Target, factors: &[f32]) -> Vec<f32> {
        let rows = self.b.chunks_exact(self.rank.max(1)).take(t.rows.min(self.outputs)).zip(factors);
        rows.flat_map(|(row, f)| row.iter().map(move |x| x * f)).collect()
    }
}
