//! SHiRA: a sparse update, `ΔW[row, col] += value` at stored places.

use super::family::{Family, Packing, Reader};
use super::reading::Reading;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["r"],
    // How the places were chosen; they are stored.
    silent: &["init_weights", "mask_type", "random_seed"],
    markers: &[".shira_"],
    base: false,
    packing: Packing { places: &["shira_indices"], vectors: &["shira_weight"], mask: None },
    reader: Reader::Load(load),
    ..Family::new("SHIRA", "shira", "SHiRA (Bhardwaj et al. 2024, arXiv 2406.13175)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let rank = r.config.count("r", 32)?;
    for t in r.targets()? {
        let count = rank * (t.rows + t.cols);
        let Some(values) = r.take(&t, "shira_weight", &[count])? else { continue };
        let Some(places) = r.places(&t, "shira_indices", &[2, count])? else { continue };
        let (rows, cols) = places.split_at(count);
        if let Some(at) = rows.iter().position(|row| *row >= t.rows).or(cols.iter().position(|col| *col >= t.cols)) {
            return Err(r.wrong(&t, "shira_indices", "places in the layer", &format!("({}, {})", rows[at], cols[at])));
        }
        let flat: Vec<usize> = rows.iter().zip(cols).map(|(row, col)| row * t.cols + col).collect();
        r.adds(&t, 3 * count, move |layer| {
            flat.iter().zip(&values).for_each(|(at, v)| layer.weight[*at] += v);
            Ok(())
        });
    }
    Ok(())
}
