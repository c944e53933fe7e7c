//! BOFT: blocks of a layer's inputs are rotated and its outputs, bias excluded, scaled: `W' = diag(s) W Rᵀ`.

use super::config::bad;
use super::family::{Family, Reader};
use super::reading::Reading;
use super::rotation::{cayley, held, turn};
use crate::dense::scale_rows;
use crate::error::Result;
use crate::maths::linalg::Mat;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["boft_n_butterfly_factor"],
    // Sizes are in the shapes.
    silent: &["boft_block_num", "boft_block_size", "boft_dropout", "init_weights"],
    markers: &[".boft_"],
    reader: Reader::Load(load),
    ..Family::new("BOFT", "boft", "BOFT (Liu et al. 2023, arXiv 2311.06243)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    for t in r.targets()? {
        let Some(&[factors, count, size, _]) = r.shape(&t, "boft_R").as_deref() else {
            r.missing(&t, "boft_R");
            continue;
        };
        if factors != 1 {
            let why = format!(
                "{factors} butterfly factors need PEFT's own CUDA kernels: without them PEFT makes one of them and cannot load this file; this version reads one"
            );
            return Err(bad("boft_n_butterfly_factor", why));
        }
        if count * size != t.cols {
            let expected = format!("blocks of {} inputs", t.cols);
            return Err(r.wrong(&t, "boft_R", &expected, &format!("{count} of {size}")));
        }
        let values = r.take(&t, "boft_R", &[1, count, size, size])?;
        let scales = r.take(&t, "boft_s", &[t.rows, 1])?;
        let Some((values, scales)) = values.zip(scales) else { continue };
        let block = |m: &[f32]| {
            let half = |(i, j): (usize, usize)| 0.5 * (f64::from(m[i * size + j]) - f64::from(m[j * size + i]));
            cayley(&Mat::new(size, size, (0..size * size).map(|at| half((at / size, at % size))).collect())?)
        };
        let blocks: Option<Vec<Mat>> = values.chunks_exact((size * size).max(1)).map(block).collect();
        let Some(blocks) = blocks else {
            return Err(r.wrong(&t, "boft_R", "matrices of rotations", "one that makes none"));
        };
        r.follows(&t, held(&blocks) + scales.len(), move |layer| {
            turn(&mut layer.weight, layer.cols, &blocks, false);
            scale_rows(&mut layer.weight, layer.cols, &scales);
            Ok(())
        });
    }
    Ok(())
}
