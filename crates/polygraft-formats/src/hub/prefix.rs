//! Prefix tuning (Li and Liang 2021), flat or through an MLP, with gates (UniPELT): keys and values in front of each
//! layer's own. `prefix_tuning.prefix_tunings.N.LOC.*` once for the model, and again under every layer.

use super::config::Settings;
use super::family::Family;
use super::names;
use super::reading::Reading;
use crate::error::{FormatError, Result};
use polygraft::ir::{Gate, Op, Prefix, Site};
use polygraft::model::Activation;
use polygraft::tensor::Matrix;

/// The method's row.
pub(super) const FAMILY: Family = Family {
    name: "prefix-tuning",
    paper: "Prefix tuning (Li and Liang 2021, arXiv 2101.00190)",
    architecture: Some("prefix_tuning"),
    mode: None,
    reads: &[
        "architecture",
        "bottleneck_size",
        "flat",
        "leave_out",
        "non_linearity",
        "prefix_length",
        "shared_gating",
        "use_gating",
    ],
    // Encoders have neither cross-attention nor a decoder.
    silent: &["cross_prefix", "dropout", "encoder_prefix", "init_weights_seed"],
    ops: "prefix",
    hooks: false,
    merges: false,
    load,
};

/// Most numbers of an expanded prefix: 256 MB.
const MAX_NUMBERS: usize = 1 << 26;

fn load(r: &mut Reading<'_>, s: &Settings) -> Result<()> {
    let (slots, hidden) = (s.whole("prefix_length", 30)?, r.spec.hidden);
    let layers = r.layers(s)?;
    let width = layers.len() * 2 * hidden;
    if width.saturating_mul(slots) > MAX_NUMBERS {
        let why =
            format!("a prefix of {slots} slots on {} layers; at most {MAX_NUMBERS} numbers are read", layers.len());
        return Err(FormatError::Limit { file: super::CONFIG.into(), why });
    }
    let within = format!("prefix_tunings.{}.{}", r.name, names::prefix_place(r.spec));
    let own = format!("prefix_tuning.{within}");
    copies(r, &own, &within)?;
    let numbers = if s.flag("flat", false)? {
        r.tensors.need(&format!("{own}.control_trans"), &[slots * width])?
    } else {
        expanded(r, s, &own, slots, width)?
    };
    let gated = s.flag("use_gating", false)?;
    let shared = s.flag("shared_gating", true)?;
    for (index, layer) in layers.into_iter().enumerate() {
        let gates = if gated { gates(r, layer, shared)? } else { None };
        let (Some(numbers), true) = (&numbers, gates.is_some() == gated) else { continue };
        // Slot by slot: the keys and the values of each layer in turn.
        let part = |which: usize| {
            let of_slot = |slot: usize| slot * width + (2 * index + which) * hidden;
            let rows = (0..slots).flat_map(|slot| &numbers[of_slot(slot)..of_slot(slot) + hidden]).copied().collect();
            Matrix::dense(slots, hidden, rows)
        };
        if let Some((keys, values)) = part(0).zip(part(1)) {
            r.patch(Site::Keys(layer), Op::Prefix(Box::new(Prefix { keys, values, gates })));
        }
    }
    Ok(())
}

/// Drops what the file repeats under each layer, which must be the model's own.
fn copies(r: &mut Reading<'_>, own: &str, within: &str) -> Result<()> {
    let suffix = format!(".prefix_tuning.pool.{within}.");
    let copies: Vec<(String, String)> = r
        .tensors
        .paths()
        .filter_map(|path| path.split_once(&suffix).map(|(_, rest)| (path.to_owned(), format!("{own}.{rest}"))))
        .collect();
    copies.iter().try_for_each(|(copy, of)| r.tensors.ignore_copy(copy, of))
}

/// `ct₂ f(ct₀ wte)`: `[slots, width]`.
#[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
fn expanded(r: &mut Reading<'_>, s: &Settings, own: &str, slots: usize, width: usize) -> Result<Option<Vec<f32>>> {
    let (hidden, inner) = (r.spec.hidden, s.whole("bottleneck_size", 512)?);
    let activation = if s.has("non_linearity") { s.activation("non_linearity")? } else { Activation::Tanh };
    let embedded = r.tensors.need(&format!("{own}.wte.weight"), &[slots, hidden])?;
    let first = r.tensors.need(&format!("{own}.control_trans.0.weight"), &[inner, hidden])?;
    let first_bias = r.tensors.need(&format!("{own}.control_trans.0.bias"), &[inner])?;
    let second = r.tensors.need(&format!("{own}.control_trans.2.weight"), &[width, inner])?;
    let second_bias = r.tensors.need(&format!("{own}.control_trans.2.bias"), &[width])?;
    let Some((((embedded, first), first_bias), (second, second_bias))) =
        embedded.zip(first).zip(first_bias).zip(second.zip(second_bias))
    else {
        return Ok(None);
    };
    let linear = |x: &[f32], weight: &[f32], bias: &[f32]| -> Vec<f32> {
        let row = |(w, b): (&[f32], &f32)| {
            let sum: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            (sum + f64::from(*b)) as f32
        };
        weight.chunks_exact(x.len()).zip(bias).map(row).collect()
    };
    let mut out = Vec::with_capacity(slots * width);
    for x in embedded.chunks_exact(hidden) {
        let inside: Vec<f32> = linear(x, &first, &first_bias).into_iter().map(|x| activation.eval(x)).collect();
        out.extend(linear(&inside, &second, &second_bias));
    }
    Ok(Some(out))
}

/// `prefix_gates.N`: one for keys and values, or one for each.
fn gates(r: &mut Reading<'_>, layer: u16, shared: bool) -> Result<Option<[Gate; 2]>> {
    let path = format!("{}.prefix_tuning.prefix_gates.{}", names::attention(r.spec, layer), r.name);
    let (count, hidden) = (if shared { 1 } else { 2 }, r.spec.hidden);
    let gates = r.gates(&path, hidden, count)?;
    Ok(gates.and_then(|gates| Some([gates.first()?.clone(), gates.last()?.clone()])))
}
