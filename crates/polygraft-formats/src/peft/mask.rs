//! Masks over the base's weights: a weight stays where its mask is above a threshold and is 0 elsewhere. Biases and norms are
//! untouched.
//!
//! The authors' code keeps the masks in the checkpoint of a whole training (`mask_real`, one number a weight). This reads them
//! as a PEFT folder has its tensors: `base_model.model.<module>.mask_real`, and `"peft_type": "MASK"`. Packed, they are one
//! bit a weight.

use super::family::{Family, Packing, Reader};
use super::reading::Reading;
use crate::error::Result;
use polygraft::quant::codes::Codes;

const THRESHOLD: f32 = 5e-3;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["threshold"],
    markers: &[".mask_real"],
    packing: Packing { places: &[], vectors: &[], mask: Some(("mask_real", "threshold", THRESHOLD)) },
    reader: Reader::Load(load),
    ..Family::new("MASK", "mask", "Regularized mask tuning (Zheng et al. 2023, arXiv 2307.15049)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    #[allow(clippy::cast_possible_truncation, reason = "compared with f32")]
    let threshold = r.config.number("threshold", f64::from(THRESHOLD))? as f32;
    for t in r.targets()? {
        let Some(mask) = r.matrix(&t, "mask_real", t.rows, t.cols)? else { continue };
        let (mut kept, mut row) = (Vec::with_capacity(t.rows * t.cols), vec![0.0; t.cols]);
        for i in 0..t.rows {
            mask.decode_row(i, &mut row);
            kept.extend(row.iter().map(|m| *m > threshold));
        }
        let kept = Codes::mask((t.rows, t.cols), kept);
        r.follows(&t, kept.bytes() / 4, move |layer| {
            let mut row = vec![0.0; layer.cols];
            for (i, weights) in layer.weight.chunks_exact_mut(layer.cols).enumerate() {
                kept.decode_row(i, &mut row);
                weights.iter_mut().zip(&row).for_each(|(w, m)| *w *= m);
            }
            Ok(())
        });
    }
    Ok(())
}
