//! BEFT: a vector that is added to a layer's outputs.

use super::family::{Family, Reader};
use super::reading::Reading;
use crate::error::Result;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    silent: &["init_weights"],
    markers: &[".beft_bias"],
    targets: Some(&[("bert", &["value"]), ("roberta", &["value"]), ("deberta-v2", &["value_proj"])]),
    ops: "change of biases",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("BEFT", "beft", "BEFT (bias-efficient fine-tuning)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    for t in r.targets()? {
        let Some(bias) = r.take(&t, "beft_bias", &[1, t.rows])? else { continue };
        r.adds_bias(&t, bias.len(), move |layer| {
            layer.bias_mut().iter_mut().zip(&bias).for_each(|(b, d)| *b += d);
            Ok(())
        });
    }
    Ok(())
}
