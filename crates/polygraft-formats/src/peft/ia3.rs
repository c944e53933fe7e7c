//! (IA)³ (Liu et al. 2022, arXiv 2205.05638): a vector that scales a layer's outputs, its bias included, or, for
//! feed-forward layers, its inputs.

use super::config::names;
use super::family::{Defaults, Family, Reader};
use super::reading::{Named, Reading};
use super::targets::{Form, Pattern};
use crate::error::Result;
use crate::json::Json;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["feedforward_modules"],
    silent: &["init_ia3_weights"],
    markers: &[".ia3_l"],
    targets: Some(&[
        ("bert", &["key", "value", "output.dense"]),
        ("roberta", &["key", "value", "output.dense"]),
        ("deberta-v2", &["key_proj", "value_proj", "output.dense"]),
    ]),
    reader: Reader::Load(load),
    ..Family::new("IA3", "ia3", "(IA)³ (Liu et al. 2022, arXiv 2205.05638)")
};

/// PEFT's table of the layers whose inputs are scaled.
const FEED_FORWARD: Defaults =
    &[("bert", &["output.dense"]), ("roberta", &["output.dense"]), ("deberta-v2", &["output.dense"])];

fn load(r: &mut Reading<'_>) -> Result<()> {
    let key = "feedforward_modules";
    let (pattern, endings) = match r.config.get(key) {
        Some(Json::Text(text)) => (Some(Pattern::new(key, text, Form::Whole, 1)?), Vec::new()),
        Some(list) => (None, names(key, Some(list))?),
        None => {
            let default = FEED_FORWARD.iter().find(|(arch, _)| *arch == r.spec.arch.name()).map_or(&[][..], |d| d.1);
            (None, default.iter().map(|n| (*n).to_owned()).collect())
        }
    };
    for t in r.targets()? {
        // A list of endings, with no regard to dots.
        let inputs = match &pattern {
            Some(pattern) => pattern.matches(&t.module)?,
            None => endings.iter().any(|e| t.module.ends_with(e)),
        };
        // A convolution's inputs are its channels.
        let each = r.spec.image.filter(|_| t.is_convolution()).map_or(1, |image| image.patch[0] * image.patch[1]);
        let shape = if inputs { [1, t.cols / each] } else { [t.rows, 1] };
        let Some(l) = r.take(&t, "ia3_l", &shape)? else { continue };
        r.follows(&t, l.len(), move |layer| {
            let cols = layer.cols;
            for (row, w) in layer.weight.chunks_exact_mut(cols).enumerate() {
                w.iter_mut().enumerate().for_each(|(col, w)| *w *= l[if inputs { col / each } else { row }]);
            }
            if let (Some(bias), false) = (&mut layer.bias, inputs) {
                bias.iter_mut().zip(&l).for_each(|(b, l)| *b *= l);
            }
            Ok(())
        });
    }
    Ok(())
}
