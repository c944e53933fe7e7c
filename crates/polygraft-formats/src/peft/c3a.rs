//! C³A: blocks of circular correlations: `ΔW[m·b+j, n·b+t] = w[m, n, (t−j) mod b] / in`.

use super::config::bad;
use super::family::{Family, Reader};
use super::reading::Reading;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    // The kernel's shape says which size a pattern gave.
    silent: &["block_size", "block_size_pattern", "init_weights"],
    markers: &[".c3a_"],
    base: false,
    reader: Reader::Load(load),
    ..Family::new("C3A", "c3a", "C³A (Chen et al. 2024, arXiv 2407.19342)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    for t in r.targets()? {
        let block = r.shape(&t, "c3a_kernel").and_then(|s| s.get(2).copied()).unwrap_or(1);
        if block == 0 || !t.rows.is_multiple_of(block) || !t.cols.is_multiple_of(block) {
            let why = format!("{block} does not divide the {} × {} of {}", t.rows, t.cols, t.path);
            return Err(bad("block_size", why));
        }
        let (down, across) = (t.rows / block, t.cols / block);
        let Some(kernel) = r.take(&t, "c3a_kernel", &[down, across, block])? else { continue };
        r.adds(&t, kernel.len(), move |layer| {
            #[allow(clippy::cast_precision_loss, reason = "widths are small")]
            let (cols, inputs) = (layer.cols, layer.cols as f32);
            for (row, out) in layer.weight.chunks_exact_mut(cols).enumerate() {
                let (m, j) = (row / block, row % block);
                for (n, part) in out.chunks_exact_mut(block).enumerate() {
                    let kernel = &kernel[(m * across + n) * block..][..block];
                    part.iter_mut().enumerate().for_each(|(t, w)| *w += kernel[(t + block - j) % block] / inputs);
                }
            }
            Ok(())
        });
    }
    Ok(())
}
