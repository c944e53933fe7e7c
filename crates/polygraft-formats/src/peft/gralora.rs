//! GraLoRA: a grid of low-rank updates, one for each block of inputs and block of outputs, and optionally a plain one.

use super::config::bad;
use super::family::{Family, Reader};
use super::lora::scale;
use super::reading::Reading;
use crate::dense::product;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["alpha", "gralora_k", "hybrid_r", "r"],
    silent: &["gralora_dropout", "init_weights"],
    markers: &[".gralora_"],
    base: false,
    reader: Reader::Load(load),
    ..Family::new("GRALORA", "gralora", "GraLoRA (Jung et al. 2025, arXiv 2505.20355)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let (rank, blocks) = (r.config.count("r", 32)?, r.config.count("gralora_k", 2)?);
    let plain = r.config.whole("hybrid_r", 0)?;
    if !rank.is_multiple_of(blocks) {
        return Err(bad("gralora_k", format!("a rank of {rank} does not divide by {blocks}")));
    }
    let s = scale(r.config.number("alpha", 64.0)?, rank + plain, false);
    for t in r.targets()? {
        if !t.rows.is_multiple_of(blocks) || !t.cols.is_multiple_of(blocks) {
            let why = format!("{} is {} × {}, which does not divide by {blocks}", t.module, t.rows, t.cols);
            return Err(bad("gralora_k", why));
        }
        let (ins, outs) = (t.cols / blocks, t.rows / blocks);
        let a = r.take(&t, "gralora_A", &[blocks, ins, rank])?;
        let b = r.take(&t, "gralora_B", &[blocks, rank, outs])?;
        let general = if plain > 0 {
            let a = r.take(&t, "gralora_A_general.weight", &[plain, t.cols])?;
            let b = r.take(&t, "gralora_B_general.weight", &[t.rows, plain])?;
            let Some(pair) = a.zip(b) else { continue };
            Some(pair)
        } else {
            None
        };
        let Some((a, b)) = a.zip(b) else { continue };
        let held = a.len() + b.len() + general.as_ref().map_or(0, |(a, b)| a.len() + b.len());
        r.adds(&t, held, move |layer| {
            let grid = Grid { blocks, rank, ins, outs, a: &a, b: &b };
            layer.add(&grid.delta(), s);
            if let Some((a, b)) = &general {
                layer.add(&product(b, a, plain, layer.cols), s);
            }
            Ok(())
        });
    }
    Ok(())
}

/// `a` is `[blocks, ins, rank]`, `b` `[blocks, rank, outs]`.
struct Grid<'a> {
    blocks: usize,
    rank: usize,
    ins: usize,
    outs: usize,
    a: &'a [f32],
    b: &'a [f32],
}

impl Grid<'_> {
    /// Every block of inputs splits its ranks among the blocks of outputs, and these read them back in its order:
    /// `ΔW[j, n] = (A[n][:, j-th ranks] · B[j][n-th ranks, :])ᵀ`.
    #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
    fn delta(&self) -> Vec<f32> {
        let (each, cols) = (self.rank / self.blocks, self.ins * self.blocks);
        let mut out = Vec::with_capacity(self.outs * self.blocks * cols);
        for row in 0..self.outs * self.blocks {
            let (j, o) = (row / self.outs, row % self.outs);
            for col in 0..cols {
                let (n, i) = (col / self.ins, col % self.ins);
                let a = &self.a[(n * self.ins + i) * self.rank + j * each..][..each];
                let b = self.b[(j * self.rank + n * each) * self.outs..].iter().skip(o).step_by(self.outs);
                out.push(a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32);
            }
        }
        out
    }
}
