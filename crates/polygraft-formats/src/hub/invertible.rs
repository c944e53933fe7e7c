//! Invertible adapters (MAD-X, Pfeiffer et al. 2020): a NICE coupling of the embeddings, `invertible_adapters.N.{F, G}`,
//! undone before a vocabulary head's last layer where the library does so.

use super::bottleneck::{prelu, split};
use super::config::Settings;
use super::reading::Reading;
use crate::error::{FormatError, Result};
use polygraft::ir::{Coupling, Mlp, Op, Site};
use polygraft::model::Activation;

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "widths are small"
)]
pub(super) fn load(r: &mut Reading<'_>, s: &Settings) -> Result<()> {
    match s.text("inv_adapter")? {
        None => return Ok(()),
        Some("nice") => {}
        Some("glow") => {
            let why = "glow couplings fail in adapters 1.3.0 on any input; nice ones are supported";
            return Err(s.bad("inv_adapter", why));
        }
        Some(other) => return Err(s.bad("inv_adapter", format!("{other:?} is not nice"))),
    }
    let path = format!("invertible_adapters.{}", r.name);
    let whole =
        ["F.0.weight", "F.2.bias", "G.0.weight", "G.2.bias"].iter().all(|t| r.tensors.has(&format!("{path}.{t}")));
    // Old task adapters name the block of their language's configuration, and have none.
    if r.old_task && !whole {
        return Ok(());
    }
    let key = "inv_adapter_reduction_factor";
    let factor = s.number(key)?.filter(|f| *f > 0.0).ok_or_else(|| s.bad(key, "a number above 0 is needed"))?;
    let first = r.spec.embedding / 2;
    let second = r.spec.embedding - first;
    let mut mlp = |name: &str, from: usize, to: usize| -> Result<Option<Mlp>> {
        let inner = (from as f64 / factor).floor().min(65536.0) as usize;
        let path = format!("{path}.{name}");
        let weight = r.tensors.matrix(&format!("{path}.0.weight"), inner, from)?;
        let bias = r.tensors.need(&format!("{path}.0.bias"), &[inner])?;
        let second = r.tensors.matrix(&format!("{path}.2.weight"), to, inner)?;
        let second_bias = r.tensors.need(&format!("{path}.2.bias"), &[to])?;
        let slope = prelu(r, s, &format!("{path}.1.f.weight"))?;
        Ok(weight.zip(bias).zip(second.zip(second_bias)).map(|((first, first_bias), (second, second_bias))| {
            let (first, first_bias, second) = match slope {
                Some(slope) => split(&first, first_bias, &second, slope),
                None => (first, first_bias, second),
            };
            Mlp { first, first_bias, second, second_bias }
        }))
    };
    let (f, g) = (mlp("F", second, first)?, mlp("G", first, second)?);
    let own = s.text("non_linearity")?.is_some_and(|name| name.eq_ignore_ascii_case("prelu"));
    let activation = if own { Activation::Relu } else { s.activation("non_linearity")? };
    if let (Some(f), Some(g), true) = (f, g, r.options.invertible.unwrap_or(true)) {
        r.patch(Site::Embeddings, Op::Coupling(Box::new(Coupling { f, g, activation })));
    }
    r.invertible = true;
    Ok(())
}

/// Whether the option to leave the block out was given to an adapter that has one.
pub(super) fn option_fits(r: &Reading<'_>) -> Result<()> {
    if r.options.invertible.is_some() && !r.invertible {
        let why = "this adapter has no invertible block: leave the option out".into();
        return Err(FormatError::Argument { what: "invertible".into(), why });
    }
    Ok(())
}
