//! Bottleneck adapters (Houlsby et al. 2019; Pfeiffer et al. 2020; He et al. 2022; AdapterPlus, Steitz and Roth 2024):
//! `adapters.N.{adapter_down, adapter_up, gate, scaling, adapter_norm_before, adapter_norm_after}` after attention and
//! after the feed-forward part. Compacter's projections are folded to dense ones (`phm.rs`).

use super::config::Settings;
use super::family::Family;
use super::reading::Reading;
use super::{invertible, names, phm};
use crate::error::Result;
use crate::json::Json;
use polygraft::ir::{BlockSite, Bottleneck, Gate, Op, OwnNorm, Residual, Rules, Site};
use polygraft::model::{Activation, Arch, ModelSpec};
use polygraft::tensor::Matrix;

/// The method's row.
pub(super) const FAMILY: Family = Family {
    name: "bottleneck",
    paper: "Adapters (Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020, arXiv 2005.00247), parallel (He et al. 2022, arXiv 2110.04366), Compacter (Karimi Mahabadi et al. 2021, arXiv 2106.04647), AdapterPlus (Steitz and Roth 2024, arXiv 2406.06820)",
    architecture: None,
    mode: None,
    reads: &[
        "adapter_residual_before_ln",
        "architecture",
        "factorized_phm_W",
        "factorized_phm_rule",
        "inv_adapter",
        "inv_adapter_reduction_factor",
        "is_parallel",
        "leave_out",
        "ln_after",
        "ln_before",
        "mh_adapter",
        "non_linearity",
        "original_ln_after",
        "original_ln_before",
        "output_adapter",
        "phm_bias",
        "phm_dim",
        "phm_layer",
        "phm_rank",
        "reduction_factor",
        "residual_before_ln",
        "scaling",
        "shared_W_phm",
        "shared_phm_rule",
        "use_gating",
    ],
    silent: &[
        // The first release kept fusion's settings here.
        "attention_type",
        "new_attention_norm",
        // Encoders have no cross-attention.
        "cross_adapter",
        "dropout",
        "hypercomplex_nonlinearity",
        "init_weights",
        "init_weights_seed",
        "learn_phm",
        "phm_c_init",
        "phm_init_range",
        "stochastic_depth",
    ],
    ops: "bottleneck; coupling with an invertible block",
    hooks: true,
    merges: false,
    load,
};

fn load(r: &mut Reading<'_>, s: &Settings) -> Result<()> {
    let rules = rules(s, r.spec)?;
    if names::hooked(r.spec) && !rules.norm_after {
        let why = "the library has no adapter without it where it hooks adapters into a model, which adds the residual itself";
        return Err(s.bad("original_ln_after", why));
    }
    let projections = Projections { phm: phm::Phm::read(r, s)?, settings: s };
    let sites = [("mh_adapter", true), ("output_adapter", false)];
    for layer in r.layers(s)? {
        let width = width(r.spec.hidden, s, layer)?;
        for (key, attention) in sites {
            if s.get(key).is_none() {
                return Err(s.bad(key, "it is missing: true or false"));
            }
            if s.flag(key, false)? {
                let path = format!("{}.adapters.{}", names::block(r.spec, layer, attention), r.name);
                let site = if attention { BlockSite::Attention(layer) } else { BlockSite::Ffn(layer) };
                if let Some(op) = projections.bottleneck(r, &path, width, rules)? {
                    r.patch(Site::Block(site), Op::Bottleneck(Box::new(op)));
                }
            }
        }
    }
    invertible::load(r, s)
}

fn rules(s: &Settings, spec: &ModelSpec) -> Result<Rules> {
    let norm_before = s.flag("original_ln_before", false)?;
    let norm_after = s.flag("original_ln_after", true)?;
    if s.flag("is_parallel", false)? {
        // What the other flags say, a parallel adapter does not read.
        let residual = Residual::Input;
        return Ok(Rules {
            parallel: true,
            keeps: true,
            norm_before: false,
            residual,
            residual_inside: false,
            norm_after,
        });
    }
    let key = "residual_before_ln";
    let residual = match s.get(key) {
        // Null is not the default: it is what Python takes for false.
        None if s.has(key) => Residual::Input,
        None | Some(Json::Bool(true)) => Residual::Branch,
        Some(Json::Bool(false)) => Residual::Input,
        // Without a norm the library adds nothing that it could take: alone, the adapter cannot run.
        Some(Json::Text(t)) if t == "post_add" => {
            if norm_before && spec.arch != Arch::Vit {
                Residual::Sum
            } else {
                Residual::Undefined
            }
        }
        Some(other) => {
            let why = format!("{} leaves the residual undefined, in the library as well", other.brief());
            return Err(s.bad(key, why));
        }
    };
    let residual_inside = s.flag("adapter_residual_before_ln", false)?;
    Ok(Rules { parallel: false, keeps: false, norm_before, residual, residual_inside, norm_after })
}

/// `max(1, ⌊hidden / reduction factor⌋)`; the factor may differ by layer.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "widths are small"
)]
fn width(hidden: usize, s: &Settings, layer: u16) -> Result<usize> {
    let key = "reduction_factor";
    let factor = match s.get(key) {
        Some(map @ Json::Object(_)) => map
            .get(&layer.to_string())
            .or_else(|| map.get("default"))
            .ok_or_else(|| s.bad(key, format!("it has neither an entry for layer {layer} nor a default")))?,
        Some(other) => other,
        None => return Err(s.bad(key, "it is missing")),
    };
    let width = factor.number().filter(|f| *f > 0.0).map(|f| (hidden as f64 / f).floor());
    match width.filter(|w| *w <= 65536.0) {
        Some(width) => Ok((width as usize).max(1)),
        None => Err(s.bad(key, format!("{} is not a number above 0 that leaves a bottleneck", factor.brief()))),
    }
}

/// How the two projections are stored.
struct Projections<'s> {
    phm: Option<phm::Phm>,
    settings: &'s Settings,
}

impl Projections<'_> {
    fn bottleneck(&self, r: &mut Reading<'_>, path: &str, k: usize, rules: Rules) -> Result<Option<Bottleneck>> {
        let (s, d) = (self.settings, r.spec.hidden);
        // A norm before the projection takes its place in the list, and is there under both names.
        let ln_before = s.flag("ln_before", false)?;
        let norm_before =
            if ln_before { own_norm(r, path, "adapter_norm_before", Some("adapter_down.0"), d)? } else { None };
        let place = if ln_before { "adapter_down.1" } else { "adapter_down.0" };
        let down = self.linear(r, &format!("{path}.{place}"), phm::Side::Down, d, k)?;
        let up = self.linear(r, &format!("{path}.adapter_up"), phm::Side::Up, k, d)?;
        let scaling = scaling(r, s, path, d)?;
        let ln_after = s.flag("ln_after", false)?;
        let norm_after = if ln_after { own_norm(r, path, "adapter_norm_after", None, d)? } else { None };
        let gated = s.flag("use_gating", false)?;
        let gate = if gated { r.gate(path, d)? } else { None };
        if s.get("non_linearity").is_none() {
            return Err(s.bad("non_linearity", "it is missing"));
        }
        let slope =
            prelu(r, s, &format!("{path}.{}.f.weight", if ln_before { "adapter_down.2" } else { "adapter_down.1" }))?;
        // Two more names of the same number.
        r.tensors.ignore(&format!("{path}.non_linearity.f.weight"));
        let activation = if slope.is_some() { Activation::Relu } else { s.activation("non_linearity")? };
        let whole = norm_before.is_some() == ln_before && norm_after.is_some() == ln_after && gate.is_some() == gated;
        let (Some((down, down_bias)), Some((up, up_bias)), Some(scaling), true) = (down, up, scaling, whole) else {
            return Ok(None);
        };
        let (up, up_bias) = scaled(up, up_bias, &scaling);
        let (down, down_bias, up) = match slope {
            Some(slope) => split(&down, down_bias, &up, slope),
            None => (down, down_bias, up),
        };
        let op = Bottleneck { norm_before, down, down_bias, activation, up, up_bias, gate, norm_after, rules };
        Ok(Some(op))
    }

    /// A projection from `inputs` to `outputs` with its bias.
    fn linear(
        &self,
        r: &mut Reading<'_>,
        path: &str,
        side: phm::Side,
        inputs: usize,
        outputs: usize,
    ) -> Result<Option<(Matrix, Vec<f32>)>> {
        if let Some(phm) = &self.phm {
            return phm.dense(r, self.settings, path, side, inputs, outputs);
        }
        let weight = r.tensors.matrix(&format!("{path}.weight"), outputs, inputs)?;
        Ok(weight.zip(r.tensors.need(&format!("{path}.bias"), &[outputs])?))
    }
}

/// A layer norm of the adapter; `twin` is a second name of the same module, which the library reads last.
fn own_norm(r: &mut Reading<'_>, path: &str, name: &str, twin: Option<&str>, width: usize) -> Result<Option<OwnNorm>> {
    let mut part = |param: &str| -> Result<Option<Vec<f32>>> {
        let own = r.tensors.need(&format!("{path}.{name}.{param}"), &[width])?;
        let again = twin.map(|t| r.tensors.take(&format!("{path}.{t}.{param}"), &[width])).transpose()?.flatten();
        Ok(again.or(own))
    };
    let (gamma, beta) = (part("weight")?, part("bias")?);
    Ok(gamma.zip(beta).map(|(gamma, beta)| OwnNorm { gamma, beta }))
}

/// One number for each output.
#[allow(clippy::cast_possible_truncation, reason = "scales are f32")]
fn scaling(r: &mut Reading<'_>, s: &Settings, path: &str, width: usize) -> Result<Option<Vec<f32>>> {
    let stored = format!("{path}.scaling");
    match s.get("scaling") {
        None => Ok(Some(vec![1.0; width])),
        Some(Json::Text(kind)) if kind == "learned" => {
            Ok(r.tensors.need(&stored, &[1])?.and_then(|v| v.first().map(|x| vec![*x; width])))
        }
        Some(Json::Text(kind)) if kind == "channel" => r.tensors.need(&stored, &[width]),
        Some(other) => match other.number() {
            Some(x) => Ok(Some(vec![x as f32; width])),
            None => Err(s.bad("scaling", format!("{} is neither a number, learned nor channel", other.brief()))),
        },
    }
}

fn scaled(up: Matrix, bias: Vec<f32>, scaling: &[f32]) -> (Matrix, Vec<f32>) {
    if scaling.iter().all(|s| *s == 1.0) {
        return (up, bias);
    }
    let mut values = up.to_f32();
    for (row, s) in values.chunks_exact_mut(up.cols().max(1)).zip(scaling) {
        row.iter_mut().for_each(|x| *x *= s);
    }
    let bias = bias.iter().zip(scaling).map(|(b, s)| b * s).collect();
    (Matrix::dense(up.rows(), up.cols(), values).unwrap_or(up), bias)
}

impl Reading<'_> {
    /// `gate.{weight, bias}`: a number a row of the batch.
    pub(super) fn gate(&mut self, path: &str, inputs: usize) -> Result<Option<Gate>> {
        Ok(self.gates(&format!("{path}.gate"), inputs, 1)?.and_then(|gates| gates.into_iter().next()))
    }

    /// `{weight, bias}` of `count` gates.
    pub(super) fn gates(&mut self, path: &str, inputs: usize, count: usize) -> Result<Option<Vec<Gate>>> {
        let weight = self.tensors.need(&format!("{path}.weight"), &[count, inputs])?;
        let bias = self.tensors.need(&format!("{path}.bias"), &[count])?;
        Ok(weight.zip(bias).map(|(weight, bias)| {
            let rows = weight.chunks_exact(inputs).zip(bias);
            rows.map(|(weight, bias)| Gate { weight: weight.to_vec(), bias }).collect()
        }))
    }
}

/// The slope of a PReLU, the one function with a number of its own.
pub(super) fn prelu(r: &mut Reading<'_>, s: &Settings, path: &str) -> Result<Option<f32>> {
    if s.text("non_linearity")?.is_none_or(|name| !name.eq_ignore_ascii_case("prelu")) {
        return Ok(None);
    }
    Ok(r.tensors.need(path, &[1])?.and_then(|v| v.first().copied()))
}

/// `PReLU(x) = relu(x) − a relu(−x)`: twice as wide a pair of layers around a plain ReLU.
pub(super) fn split(first: &Matrix, bias: Vec<f32>, second: &Matrix, slope: f32) -> (Matrix, Vec<f32>, Matrix) {
    let turned = |v: &[f32]| v.iter().map(|x| -x).collect::<Vec<f32>>();
    let (rows, cols) = (first.rows(), first.cols());
    let weight = first.to_f32();
    let first =
        Matrix::dense(2 * rows, cols, [weight.clone(), turned(&weight)].concat()).unwrap_or_else(|| first.clone());
    let bias = [bias.clone(), turned(&bias)].concat();
    let wide: Vec<f32> = second
        .to_f32()
        .chunks_exact(rows.max(1))
        .flat_map(|row| row.iter().copied().chain(row.iter().map(|x| -slope * x)).collect::<Vec<f32>>())
        .collect();
    let second = Matrix::dense(second.rows(), 2 * rows, wide).unwrap_or_else(|| second.clone());
    (first, bias, second)
}
