//! BOFT: blocks of a layer's inputs are rotated and its outputs, bias excluded, scaled: `W' = diag(s) W Rᵀ`. Where there are
//! several butterfly factors, `R` is their product, each of blocks of inputs in another order: those of a Fourier
//! transform's butterflies.

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
        if count * size != t.cols {
            let expected = format!("blocks of {} inputs", t.cols);
            return Err(r.wrong(&t, "boft_R", &expected, &format!("{count} of {size}")));
        }
        let orders: Option<Vec<Vec<usize>>> = (0..factors).map(|i| order(t.cols, (count, size), factors, i)).collect();
        let Some(orders) = orders else {
            let why = format!("{factors} butterflies do not fit the {count} blocks of {size} of {}", t.module);
            return Err(bad("boft_n_butterfly_factor", why));
        };
        let values = r.take(&t, "boft_R", &[factors, count, size, size])?;
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
        r.follows(&t, held(&blocks) + scales.len() + 2 * factors * t.cols, move |layer| {
            let (cols, mut line) = (layer.cols, vec![0.0; layer.cols]);
            for (blocks, order) in blocks.chunks_exact(count.max(1)).zip(&orders) {
                for row in layer.weight.chunks_exact_mut(cols.max(1)) {
                    order.iter().zip(&*row).for_each(|(to, x)| line[*to] = *x);
                    turn(&mut line, cols, blocks, false);
                    row.iter_mut().zip(order).for_each(|(x, from)| *x = line[*from]);
                }
            }
            scale_rows(&mut layer.weight, layer.cols, &scales);
            Ok(())
        });
    }
    Ok(())
}

/// `BOFTLayer.block_butterfly_perm`: where each input stands for factor `i` of `factors`. Half blocks, those at even places
/// of a run of `2ⁱ` blocks before those at odd ones. `None` where runs do not fill the layer.
fn order(cols: usize, (count, size): (usize, usize), factors: usize, i: usize) -> Option<Vec<usize>> {
    if factors == 1 {
        return Some((0..cols).collect());
    }
    let blocks = 1usize.checked_shl(u32::try_from(i).ok()?)?;
    if size == 0 || !size.is_multiple_of(2) || !count.is_multiple_of(blocks) {
        return None;
    }
    let (half, run) = (size / 2, blocks.checked_mul(size)?);
    let halves = 2 * blocks;
    let place = |at: usize| {
        let (start, piece, rest) = (at / run * run, at % run / half, at % half);
        let of = if piece < blocks { 2 * piece } else { 2 * (piece - blocks) + 1 };
        start + (of % halves) * half + rest
    };
    Some((0..cols).map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn butterflies_are_pefts() {
        // `block_butterfly_perm(16, 8 / 2ⁱ, 1, 2)`: eight blocks of two.
        let plain: Vec<usize> = (0..16).collect();
        assert_eq!(order(16, (8, 2), 3, 0).unwrap(), plain);
        assert_eq!(order(16, (8, 2), 3, 1).unwrap(), [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]);
        assert_eq!(order(16, (8, 2), 3, 2).unwrap(), [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]);
        assert!(order(16, (8, 2), 80, 70).is_none() && order(12, (4, 3), 2, 1).is_none());
        assert!(order(12, (6, 2), 3, 2).is_none());
    }
}
