//! A changed layer, and the updates beside it, of the changes at one site: what multiplies the layer's outputs does so for
//! updates as well, and may have a gate.

use crate::compose::Placed;
use crate::ir::{Gate, Layer, LowRank, Meeting, MixedLowRank, Mixing, Op, Reweigh, Reweight, fold};
use crate::tensor::Matrix;
use std::sync::Arc;

/// The change of a placed patch.
pub(super) fn change(placed: &Placed) -> Option<&Arc<dyn Reweigh>> {
    if let Op::Reweight(Reweight(change)) = &placed.payload.op { Some(change) } else { None }
}

/// Changes that multiply each other along a path, and the weight of the path.
type Path = (f32, Vec<Arc<dyn Reweigh>>);

/// All that [`Meeting::Scales`] at a site: a sum of paths.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    /// Without a gate.
    plain: Vec<Path>,
    /// With one or more.
    gated: Vec<Path>,
    /// Where they stand among the parts.
    first: usize,
}

impl Scaling {
    pub(super) fn of(parts: &[Placed]) -> Self {
        let mut out = Self { first: parts.iter().position(scales).unwrap_or(parts.len()), ..Self::default() };
        let mut paths: Vec<Path> = Vec::new();
        for part in parts {
            let Some(change) = change(part).filter(|_| scales(part)).cloned() else { continue };
            match paths.last_mut() {
                Some((weight, path)) if part.chained => {
                    *weight *= part.scale;
                    path.push(change);
                }
                _ => paths.push((part.scale, vec![change])),
            }
        }
        (out.gated, out.plain) = paths.into_iter().partition(|(_, path)| path.iter().any(|c| c.gate().is_some()));
        out
    }

    /// Paths that give an update beside the layer.
    pub(super) fn gates(&self) -> usize {
        self.gated.len()
    }

    /// What the outputs are multiplied by without any gate.
    fn factors(&self, base: &Layer) -> Vec<f32> {
        let mut out = vec![0.0; base.rows];
        for path in &self.plain {
            out.iter_mut().zip(along(path, base)).for_each(|(o, f)| *o += f);
        }
        out
    }
}

/// The product along a path.
fn along((weight, path): &Path, base: &Layer) -> Vec<f32> {
    let mut out = vec![*weight; base.rows];
    for change in path {
        let own = change.factors(base).unwrap_or_else(|| vec![1.0; base.rows]);
        out.iter_mut().zip(own).for_each(|(o, f)| *o *= f);
    }
    out
}

/// What the changes of a site become.
pub(super) struct Changed {
    pub(super) layer: Layer,
    /// What is added beside it: for each gated path what it multiplies, then the updates that were given.
    pub(super) updates: Vec<MixedLowRank>,
}

/// Folds `parts` into `base`. `updates` stand beside it, each with the number of parts before it: they are multiplied as
/// the parts after them multiply.
///
/// # Errors
/// In plain words, for what is no layer and no update.
pub(super) fn changed(
    base: Layer,
    parts: &[Placed],
    scaling: &Scaling,
    updates: &[(Placed, usize)],
) -> Result<Changed, String> {
    let brought = parts.iter().filter(|p| matches!(p.payload.op, Op::ReplaceLinear(_)));
    let own = fold(base.clone(), brought.map(|p| (&p.payload.op, p.scale)))?;
    let mut out = Vec::new();
    for (update, before) in updates {
        if let Op::MixedLowRank(mixed) = &update.payload.op {
            out.push(multiplied(mixed, update, &parts[*before..], &own)?);
        }
    }
    let (before, after) = parts.split_at(scaling.first);
    let after: Vec<&Placed> = after.iter().filter(|p| !scales(p)).collect();
    let before = before.iter().map(|p| (&p.payload.op, p.scale));
    if scaling.gated.is_empty() {
        let factors = scaling.factors(&own);
        let product = Op::Reweight(Reweight::new(Multiplied { factors, cols: own.cols }));
        let product = Some((&product, 1.0)).filter(|_| !scaling.plain.is_empty());
        let layer = fold(base, before.chain(product).chain(after.iter().map(|p| (&p.payload.op, p.scale))))?;
        return Ok(Changed { layer, updates: out });
    }
    if let Some(next) = after.first() {
        return Err(format!("it is multiplied by a gate, and {} changes it after that", next.adapter));
    }
    let mut layer = fold(base, before)?;
    for path in &scaling.gated {
        let gates = path.1.iter().filter_map(|c| c.gate().cloned()).collect();
        let mut own_layer = layer.clone();
        own_layer.scale_rows(&along(path, &own));
        out.push(whole(own_layer, gates).ok_or("it is empty")?);
    }
    layer.scale_rows(&scaling.factors(&own));
    Ok(Changed { layer, updates: out })
}

fn scales(placed: &Placed) -> bool {
    change(placed).is_some_and(|c| c.meeting() == Meeting::Scales)
}

/// A layer as an update with gates: the smaller of its sides is the rank.
fn whole(layer: Layer, gates: Vec<Gate>) -> Option<MixedLowRank> {
    let identity = |n: usize| (0..n * n).map(|i| if i % (n + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let Layer { rows, cols, weight, bias } = layer;
    let weight = Matrix::dense(rows, cols, weight)?;
    let (a, b) = if rows <= cols {
        (weight, Matrix::dense(rows, rows, identity(rows))?)
    } else {
        (Matrix::dense(cols, cols, identity(cols))?, weight)
    };
    Some(MixedLowRank { lora: LowRank { a, b, bias, scale: 1.0 }, mixing: Mixing::Gate(gates) })
}

/// `mixed` times all by which `parts` multiply the layer's outputs.
fn multiplied(mixed: &MixedLowRank, update: &Placed, parts: &[Placed], own: &Layer) -> Result<MixedLowRank, String> {
    let scaling = Scaling::of(parts);
    let mut factors = if scaling.plain.is_empty() { vec![1.0; own.rows] } else { scaling.factors(own) };
    for part in parts {
        let Some(change) = change(part) else { continue };
        match change.meeting() {
            Meeting::Adds => {}
            Meeting::Scales if scaling.gated.is_empty() => {}
            Meeting::Closes => {
                let more = change.factors(own).ok_or("a norm that is none")?;
                factors.iter_mut().zip(more).for_each(|(f, more)| *f *= more);
            }
            Meeting::Follows | Meeting::Precedes | Meeting::Scales => {
                return Err(format!(
                    "{} changes all of it, and the update of {} before that depends on the row",
                    part.adapter, update.adapter
                ));
            }
        }
    }
    let mut b = mixed.lora.b.to_f32();
    for (row, f) in b.chunks_exact_mut(mixed.lora.b.cols()).zip(&factors) {
        row.iter_mut().for_each(|b| *b *= f * update.scale);
    }
    let bias =
        mixed.lora.bias.as_ref().map(|bias| bias.iter().zip(&factors).map(|(b, f)| b * f * update.scale).collect());
    let b = Matrix::dense(own.rows, mixed.lora.b.cols(), b).ok_or("an update of another shape")?;
    let lora = LowRank { a: mixed.lora.a.clone(), b, bias, scale: mixed.lora.scale };
    Ok(MixedLowRank { lora, mixing: mixed.mixing.clone() })
}

/// All paths without a gate, as one change.
#[derive(Debug)]
struct Multiplied {
    factors: Vec<f32>,
    cols: usize,
}

impl Reweigh for Multiplied {
    fn apply(&self, layer: &mut Layer, _: &Layer) -> Result<(), String> {
        layer.scale_rows(&self.factors);
        Ok(())
    }

    fn shape(&self) -> (usize, usize) {
        (self.factors.len(), self.cols)
    }

    fn meeting(&self) -> Meeting {
        Meeting::Follows
    }

    fn bytes(&self) -> usize {
        self.factors.len() * 4
    }
}
