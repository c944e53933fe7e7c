//! Folding a composition into a base's own weights: `W + s·B·A`, biases, norms and the head that it brings.

use crate::compose::Resolved;
use crate::error::{Error, Result};
use crate::ir::{Dense, Layer, LinearSite, Norm, NormSite, Op, Site, fold};
use crate::model::{LinearWeights, ModelSpec, NormWeights, WeightId, WeightInfo};
use crate::tensor::{Matrix, Scheme, Storage};
use std::collections::BTreeMap;

/// Merges `resolved` into `weights` and `spec`. Weights that change become f32 where they were f32, else f16; the
/// base's lineage gets a new name, because adapters trained on it no longer fit.
///
/// # Errors
/// [`Error::ComposeUndefined`] for an op that has no place in the weights, such as a language vector.
pub fn merge(spec: &mut ModelSpec, weights: &mut BTreeMap<WeightId, Matrix>, resolved: &Resolved) -> Result<()> {
    if resolved.stack.is_some() {
        let why = "it runs copies of the base's layers, which share their weights: use it as an adapter".into();
        return Err(Error::ComposeUndefined { text: resolved.text.clone(), why });
    }
    if resolved.placed.iter().any(|p| !p.part.is_empty()) {
        let why = "it has other weights for each part of a row: merge its parts one by one".into();
        return Err(Error::ComposeUndefined { text: resolved.text.clone(), why });
    }
    // Changed weights have become replaced layers; low-rank updates of a site are added to those.
    let (replaced, others): (Vec<_>, Vec<_>) =
        resolved.placed.iter().partition(|p| matches!(p.payload.op, Op::ReplaceLinear(_)));
    for placed in replaced.into_iter().chain(others) {
        match (placed.site, &placed.payload.op) {
            (Site::Linear(site), op @ Op::LowRank(l)) => {
                low_rank(spec, weights, &placed.adapter, (site, op, l.bias.is_some()), placed.scale)?;
            }
            (Site::Linear(site), Op::ReplaceLinear(d)) => replace_linear(spec, weights, site, d),
            (Site::Norm(site), Op::ReplaceNorm(n)) => replace_norm(spec, weights, site, n),
            (site, op) => {
                let why = format!(
                    "{} at {site} (from {}) cannot be merged into weights; leave it out and use it as an adapter",
                    op.name(),
                    placed.adapter
                );
                return Err(Error::ComposeUndefined { text: resolved.text.clone(), why });
            }
        }
    }
    if let Some(head) = &resolved.head {
        spec.head = Some(head.clone());
    }
    if !resolved.placed.is_empty() {
        let parent = spec.fingerprint.lineage.take().unwrap_or_default();
        spec.fingerprint.lineage = Some(format!("{parent}+{}", resolved.text));
    }
    Ok(())
}

fn low_rank(
    spec: &mut ModelSpec,
    weights: &mut BTreeMap<WeightId, Matrix>,
    name: &str,
    (site, op, has_bias): (LinearSite, &Op, bool),
    scale: f32,
) -> Result<()> {
    let Some(linear) = spec.linears.get(&site).copied() else {
        return Err(Error::AdapterSite { adapter: name.into(), site: site.to_string() });
    };
    let Some(matrix) = weights.get(&linear.weight) else { return Ok(()) };
    let scheme = matrix.scheme();
    let base = Layer::new(matrix, linear.bias.and_then(|id| weights.get(&id)).map(Matrix::to_f32));
    let Layer { rows, cols, weight, bias } =
        fold(base, [(op, scale)]).map_err(|why| Error::ComposeUndefined { text: name.into(), why })?;
    let weight = Some(stored(rows, cols, weight, scheme));
    replace_linear(spec, weights, site, &Dense { weight, bias: if has_bias { bias } else { None } });
    Ok(())
}

fn stored(rows: usize, cols: usize, values: Vec<f32>, was: Scheme) -> Matrix {
    let storage = match was {
        Scheme::F32 => Storage::F32(values),
        Scheme::F16 | Scheme::Bf16 | Scheme::Q8_0 | Scheme::Q4_0 | Scheme::Code(_) => {
            Storage::F16(values.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect())
        }
    };
    Matrix::new(rows, cols, storage).unwrap_or_else(|| Matrix::vector(Vec::new()))
}

fn replace_linear(spec: &mut ModelSpec, weights: &mut BTreeMap<WeightId, Matrix>, site: LinearSite, d: &Dense) {
    let old = spec.linears.get(&site).copied();
    // A tied decoder must not overwrite the word embeddings.
    let tied = |id: WeightId| id == spec.embeddings.word;
    let weight = old.map(|l| l.weight).filter(|id| !tied(*id) || d.weight.is_none());
    let bias = old.and_then(|l| l.bias);
    let weight = match &d.weight {
        Some(m) => Some(place(spec, weights, weight, &format!("{site} weight"), m.clone())),
        None => weight,
    };
    let bias = match &d.bias {
        Some(v) => Some(place(spec, weights, bias, &format!("{site} bias"), Matrix::vector(v.clone()))),
        None => bias,
    };
    if let Some(weight) = weight {
        spec.linears.insert(site, LinearWeights { weight, bias });
    }
}

fn replace_norm(spec: &mut ModelSpec, weights: &mut BTreeMap<WeightId, Matrix>, site: NormSite, n: &Norm) {
    let old = spec.norms.get(&site).copied();
    let mut half = |values: &Option<Vec<f32>>, id: Option<WeightId>, what: &str| match values {
        Some(v) => Some(place(spec, weights, id, &format!("{site} {what}"), Matrix::vector(v.clone()))),
        None => id,
    };
    let gamma = half(&n.gamma, old.map(|o| o.gamma), "weight");
    let beta = half(&n.beta, old.and_then(|o| o.beta), "bias");
    if let Some(gamma) = gamma {
        spec.norms.insert(site, NormWeights { gamma, beta });
    }
}

/// Puts a matrix under its id, or under a new one.
fn place(
    spec: &mut ModelSpec,
    weights: &mut BTreeMap<WeightId, Matrix>,
    id: Option<WeightId>,
    name: &str,
    matrix: Matrix,
) -> WeightId {
    let id = id.unwrap_or_else(|| {
        spec.weights.push(WeightInfo { name: name.into(), rows: 0, cols: 0, scheme: Scheme::F32 });
        WeightId(u32::try_from(spec.weights.len() - 1).unwrap_or(u32::MAX))
    });
    put(spec, weights, id, matrix);
    id
}

fn put(spec: &mut ModelSpec, weights: &mut BTreeMap<WeightId, Matrix>, id: WeightId, matrix: Matrix) {
    let info = &mut spec.weights[id.0 as usize];
    (info.rows, info.cols, info.scheme) = (matrix.rows(), matrix.cols(), matrix.scheme());
    weights.insert(id, matrix);
}
