//! RoAd: rotates and scales pairs of a layer's outputs, bias included. In each group of outputs, the first half is
//! paired with the second: `y = z ∘ c₁ + [−z₂, z₁] ∘ c₂`, `c₁ = α cos θ`, `c₂ = α sin θ`.

use super::config::bad;
use super::family::{Family, Reader};
use super::reading::Reading;
use crate::error::{Result, shown};

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["group_size", "variant"],
    silent: &["init_weights"],
    markers: &[".road_"],
    reader: Reader::Load(load),
    ..Family::new("ROAD", "road", "RoAd (Liao and Monz 2024, arXiv 2409.00119)")
};

#[derive(Clone, Copy)]
enum Variant {
    /// One pair of numbers for two outputs.
    Shared,
    /// One for each output.
    Own,
    /// Two for each output: one for each term.
    Both,
}

fn load(r: &mut Reading<'_>) -> Result<()> {
    let group = r.config.count("group_size", 64)?;
    let variant = match r.config.text("variant", "road_1")? {
        "road_1" => Variant::Shared,
        "road_2" => Variant::Own,
        "road_4" => Variant::Both,
        other => return Err(bad("variant", format!("{:?} is not road_1, road_2 or road_4", shown(other)))),
    };
    for t in r.targets()? {
        if group % 2 == 1 || !t.rows.is_multiple_of(group) {
            return Err(bad(
                "group_size",
                format!("{} outputs of {} are no pairs in groups of {group}", t.rows, t.path),
            ));
        }
        let size = match variant {
            Variant::Shared => t.rows / 2,
            Variant::Own => t.rows,
            Variant::Both => t.rows * 2,
        };
        let theta = r.take(&t, "road_theta", &[size])?;
        let alpha = r.take(&t, "road_alpha", &[size])?;
        let Some((theta, alpha)) = theta.zip(alpha) else { continue };
        // Where the numbers of output `i` are.
        let at = move |i: usize, term: usize| match variant {
            Variant::Shared => i / group * (group / 2) + i % (group / 2),
            Variant::Own => i,
            Variant::Both => i / group * 2 * group + term * group + i % group,
        };
        let c1: Vec<f32> = (0..t.rows).map(|i| alpha[at(i, 0)] * theta[at(i, 0)].cos()).collect();
        let c2: Vec<f32> = (0..t.rows).map(|i| alpha[at(i, 1)] * theta[at(i, 1)].sin()).collect();
        r.follows(&t, c1.len() + c2.len(), move |layer| {
            rotate(&mut layer.weight, layer.cols, group, &c1, &c2);
            if let Some(bias) = &mut layer.bias {
                rotate(bias, 1, group, &c1, &c2);
            }
            Ok(())
        });
    }
    Ok(())
}

/// Rotates the rows of `z`, `[c1.len(), cols]`, in place.
fn rotate(z: &mut [f32], cols: usize, group: usize, c1: &[f32], c2: &[f32]) {
    let half = group / 2;
    for first in (0..c1.len()).filter(|i| i % group < half) {
        let second = first + half;
        for col in 0..cols {
            let (a, b) = (z[first * cols + col], z[second * cols + col]);
            z[first * cols + col] = a * c1[first] - b * c2[first];
            z[second * cols + col] = b * c1[second] + a * c2[second];
        }
    }
}
