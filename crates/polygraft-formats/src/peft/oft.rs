//! OFT: blocks of a layer's inputs are rotated before it, `x ← x R`, the rotations made of skew matrices by Cayley's map
//! or the first terms of its series.

use super::config::bad;
use super::family::{Family, Reader};
use super::reading::{Named, Reading};
use super::rotation::{cayley, held, turn};
use crate::error::{FormatError, Result};
use crate::maths::linalg::Mat;
use polygraft::ir::Meeting;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["block_share", "coft", "eps", "num_cayley_neumann_terms", "oft_block_size", "use_cayley_neumann"],
    // The number of blocks, which their size decides; sizes are in the shapes.
    silent: &["init_weights", "module_dropout", "r"],
    markers: &[".oft_"],
    reader: Reader::Load(load),
    ..Family::new("OFT", "oft", "OFT (Qiu et al. 2023, arXiv 2306.07280)")
};

/// How a rotation is made of a vector.
pub(super) struct Map {
    shared: bool,
    /// The bound of constrained OFT.
    bound: Option<f64>,
    /// Terms of the series, when it is one.
    terms: Option<usize>,
}

fn load(r: &mut Reading<'_>) -> Result<()> {
    if r.config.get("oft_block_size").is_none() {
        let why = "it is missing: this was written by a PEFT before 0.14, whose rotations were others";
        return Err(bad("oft_block_size", why));
    }
    let map = Map::new(r)?;
    for t in r.targets()? {
        if r.shape(&t, "oft_r").is_some() {
            let why =
                "its rotations are stored as `oft_r`, by a PEFT before 0.16, and were others; PEFT 0.15.2 reads them";
            return Err(FormatError::Unsupported { file: t.module, why: why.into() });
        }
        if t.is_convolution() {
            // It rotates every window of the kernel's size, a pixel apart, and adds up where they overlap.
            let why = "PEFT rotates overlapping windows of the whole image here, which no weight of the layer stands for; this \
                       version rotates linear layers: leave the module out of target_modules";
            return Err(FormatError::Unsupported { file: t.module, why: why.into() });
        }
        let Some(blocks) = map.blocks(r, &t, t.cols, "oft_R.weight")? else { continue };
        // The inputs pass through the first of several first.
        r.precedes(&t, held(&blocks), move |layer| {
            turn(&mut layer.weight, layer.cols, &blocks, false);
            Ok(())
        });
    }
    for t in r.tables()? {
        let Some(blocks) = map.blocks(r, &t, t.cols, "oft_embedding_R.weight")? else { continue };
        r.rewords(&t, held(&blocks), Meeting::Follows, move |_, row| turn(row, row.len(), &blocks, true));
    }
    Ok(())
}

impl Map {
    fn new(r: &Reading<'_>) -> Result<Self> {
        let eps = r.config.number("eps", 6e-5)?;
        let terms = r.config.count("num_cayley_neumann_terms", 5)?;
        Ok(Self {
            shared: r.config.flag("block_share", false)?,
            bound: r.config.flag("coft", false)?.then_some(eps),
            terms: r.config.flag("use_cayley_neumann", true)?.then_some(terms),
        })
    }

    /// The rotations of `width` numbers, one for all blocks or one for each.
    fn blocks(&self, r: &mut Reading<'_>, t: &impl Named, width: usize, name: &str) -> Result<Option<Vec<Mat>>> {
        // b(b − 1)/2 numbers above the diagonal.
        let numbers = r.shape(t, name).and_then(|s| s.get(1).copied()).unwrap_or(0);
        let size = (1..=width).find(|b| b * (b - 1) / 2 >= numbers).unwrap_or(1);
        if !width.is_multiple_of(size) || size * (size - 1) / 2 != numbers {
            let found = format!("{numbers} numbers a block");
            return Err(r.wrong(t, name, &format!("blocks that divide {width}"), &found));
        }
        let count = if self.shared { 1 } else { width / size };
        let Some(values) = r.take(t, name, &[count, numbers])? else { return Ok(None) };
        let bound = self.bound.map(|eps| eps / (f64::from(u32::try_from(count).unwrap_or(1))).sqrt());
        let block = |i: usize| {
            let mut skew = skew(&values[i * numbers..][..numbers], size)?;
            let norm = skew.data().iter().map(|x| x * x).sum::<f64>().sqrt();
            if let Some(bound) = bound.filter(|bound| norm > *bound) {
                skew.data_mut().iter_mut().for_each(|x| *x *= bound / norm);
            }
            match self.terms {
                Some(terms) => series(&skew, terms),
                None => cayley(&skew),
            }
        };
        let blocks: Option<Vec<Mat>> = (0..count).map(block).collect();
        blocks.map(Some).ok_or_else(|| r.wrong(t, name, "skew matrices of rotations", "one that makes none"))
    }
}

/// The matrix with `values` above its diagonal, row by row, and their opposites below.
fn skew(values: &[f32], size: usize) -> Option<Mat> {
    let mut out = Mat::zeros(size, size)?;
    let places = (0..size).flat_map(|i| (i + 1..size).map(move |j| (i, j)));
    for ((i, j), v) in places.zip(values) {
        out.row_mut(i)[j] = f64::from(*v);
        out.row_mut(j)[i] = -f64::from(*v);
    }
    Some(out)
}

/// PEFT's series `I + 2Q + 2Q² + … + Qⁿ`, whose last power has no factor, and which for 3 terms is that of 4.
fn series(q: &Mat, terms: usize) -> Option<Mat> {
    let mut out = Mat::identity(q.rows())?;
    let mut add = |power: &Mat, factor: f64| {
        out.data_mut().iter_mut().zip(power.data()).for_each(|(x, p)| *x += factor * p);
    };
    if terms > 1 {
        add(q, 2.0);
    }
    if terms > 2 {
        let mut power = q.times(q)?;
        add(&power, 2.0);
        for _ in 3..terms - 1 {
            power = power.times(q)?;
            add(&power, 2.0);
        }
        add(&power.times(q)?, 1.0);
    }
    Some(out)
}
