//! What adapters do to a sub-block's output, for the tokens of one row: bottlenecks, their blends, AdapterFusion.
//!
//! The order of operations is `adapters` 1.3's (`pre_forward`, `forward`, `compose_*` in `methods/bottleneck.py` and
//! `methods/modeling.py`). [`Products`] is the seam: the definition multiplies naively, a backend brings its own products
//! and runs the same order.

use super::{Machine, Weights, dot, wrong_payload};
use crate::compose::{Share, SplitPart};
use crate::error::{Error, Result};
use crate::ir::{Blend, Bottleneck, Fusion, Gate, How, Norm, Op, OwnNorm, Part, Payload, Residual, Rules};
use crate::model::Activation;
use crate::program::{Extent, Step, StepKind, Tables};
use crate::tensor::Matrix;
use std::ops::Range;
use std::sync::Arc;

/// A matrix of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    /// [`Bottleneck::down`], or the first layer of a coupling's `F`.
    Down,
    /// [`Bottleneck::up`], or the second layer of a coupling's `F`.
    Up,
    /// [`Fusion::query`], or the first layer of a coupling's `G`.
    Query,
    /// [`Fusion::key`], or the second layer of a coupling's `G`.
    Key,
    /// [`Fusion::value`].
    Value,
}

/// The matrix that `factor` names, with its bias.
#[must_use]
pub fn factor(op: &Op, factor: Factor) -> Option<(&Matrix, Option<&[f32]>)> {
    fn pair(p: &(Matrix, Vec<f32>)) -> (&Matrix, Option<&[f32]>) {
        (&p.0, Some(&p.1))
    }
    match (op, factor) {
        (Op::Bottleneck(b), Factor::Down) => Some((&b.down, Some(&b.down_bias))),
        (Op::Bottleneck(b), Factor::Up) => Some((&b.up, Some(&b.up_bias))),
        (Op::Fusion(f), Factor::Query) => f.query.as_ref().map(pair),
        (Op::Fusion(f), Factor::Key) => f.key.as_ref().map(pair),
        (Op::Fusion(f), Factor::Value) => f.value.as_ref().map(|v| (v, None)),
        (Op::Coupling(c), Factor::Down) => Some((&c.f.first, Some(&c.f.first_bias))),
        (Op::Coupling(c), Factor::Up) => Some((&c.f.second, Some(&c.f.second_bias))),
        (Op::Coupling(c), Factor::Query) => Some((&c.g.first, Some(&c.g.first_bias))),
        (Op::Coupling(c), Factor::Key) => Some((&c.g.second, Some(&c.g.second_bias))),
        _ => None,
    }
}

/// What the order of operations is built of. All vectors are whole rows of tokens, row major.
pub trait Products {
    /// `out = x Mᵀ + bias`, `x` `[n, inputs]`, `out` replaced by `[n, outputs]`.
    ///
    /// # Errors
    /// When the payload has no such matrix.
    fn product(&mut self, payload: &Payload, factor: Factor, x: &[f32], out: &mut Vec<f32>) -> Result<()>;

    /// Layer norm of each `width` numbers of `x`, in place.
    fn norm(&mut self, x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32);

    /// `x = f(x)`.
    fn activate(&mut self, function: Activation, x: &mut [f32]);
}

/// The model's own norm at a sub-block.
#[derive(Debug, Clone, Copy)]
pub struct ModelNorm<'a> {
    /// Scale.
    pub gamma: &'a [f32],
    /// Shift.
    pub beta: &'a [f32],
    /// Epsilon.
    pub eps: f32,
}

/// The tokens of one row (or of a part of it) at a sub-block.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// The residual stream, `[n, width]`.
    pub x: &'a [f32],
    /// Their ids, by which a split finds its parts.
    pub ids: &'a [u32],
    /// Width.
    pub width: usize,
    /// The norm that follows, for runs of tokens; none at a sub-block that no norm follows.
    pub norms: &'a [(Range<usize>, ModelNorm<'a>)],
    /// How often the layer has run before.
    pub turn: u16,
}

/// The norm of each token of `tokens`, in runs that count from the first: `own` has what replaces the model's.
///
/// # Errors
/// As `own`.
pub fn norms<'a>(
    tokens: Range<usize>,
    model: ModelNorm<'a>,
    mut own: impl FnMut(usize) -> Result<Option<&'a Norm>>,
) -> Result<Vec<(Range<usize>, ModelNorm<'a>)>> {
    let mut out: Vec<(Range<usize>, ModelNorm<'a>)> = Vec::new();
    let mut last: Option<&Norm> = None;
    for (at, token) in tokens.enumerate() {
        let own = own(token)?;
        match out.last_mut() {
            Some((run, _)) if own.map(std::ptr::from_ref) == last.map(std::ptr::from_ref) => run.end = at + 1,
            _ => {
                let gamma = own.and_then(|o| o.gamma.as_deref()).unwrap_or(model.gamma);
                let beta = own.and_then(|o| o.beta.as_deref()).unwrap_or(model.beta);
                out.push((at..at + 1, ModelNorm { gamma, beta, eps: model.eps }));
            }
        }
        last = own;
    }
    Ok(out)
}

/// What an adapter reads, and what is added to what it makes.
struct Input {
    z: Vec<f32>,
    r: Vec<f32>,
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn add(to: &mut [f32], from: &[f32], scale: f32) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += scale * f);
}

/// `pre_forward`.
fn input(rules: Rules, h: &[f32], tokens: &Tokens<'_>, p: &mut dyn Products) -> Input {
    if rules.parallel {
        return Input { z: tokens.x.to_vec(), r: tokens.x.to_vec() };
    }
    let mut z = h.to_vec();
    let mut r = (rules.residual == Residual::Branch).then(|| h.to_vec());
    if rules.norm_before {
        z = sum(h, tokens.x);
        if rules.residual == Residual::Sum {
            r = Some(z.clone());
        }
        for (run, norm) in tokens.norms {
            let run = run.start * tokens.width..run.end * tokens.width;
            p.norm(&mut z[run], norm.gamma, norm.beta, norm.eps);
        }
    }
    let r = r.unwrap_or_else(|| z.clone());
    Input { z, r }
}

/// The mean over the tokens of `sigmoid(x · weight + bias)`.
#[must_use]
pub fn gate(gate: &Gate, x: &[f32]) -> f32 {
    let width = gate.weight.len();
    let n = x.len() / width;
    let sum: f32 = x.chunks_exact(width).map(|x| Activation::Sigmoid.eval(dot(x, &gate.weight) + gate.bias)).sum();
    sum / n as f32
}

fn own_norm(norm: Option<&OwnNorm>, x: &mut [f32], p: &mut dyn Products) {
    if let Some(norm) = norm {
        p.norm(x, &norm.gamma, &norm.beta, OwnNorm::EPS);
    }
}

fn bottleneck(payload: &Payload) -> Result<&Bottleneck> {
    if let Op::Bottleneck(b) = &payload.op { Ok(b) } else { Err(wrong_payload()) }
}

/// `scale · up(f(down(z)))`.
fn up(payload: &Payload, scale: f32, z: &[f32], p: &mut dyn Products) -> Result<Vec<f32>> {
    let b = bottleneck(payload)?;
    let (mut inner, mut out) = (Vec::new(), Vec::new());
    if b.norm_before.is_some() {
        let mut normed = z.to_vec();
        own_norm(b.norm_before.as_ref(), &mut normed, p);
        p.product(payload, Factor::Down, &normed, &mut inner)?;
    } else {
        p.product(payload, Factor::Down, z, &mut inner)?;
    }
    p.activate(b.activation, &mut inner);
    p.product(payload, Factor::Up, &inner, &mut out)?;
    if scale != 1.0 {
        out.iter_mut().for_each(|x| *x *= scale);
    }
    Ok(out)
}

/// `forward`.
fn adapter(payload: &Payload, scale: f32, input: &Input, p: &mut dyn Products) -> Result<Vec<f32>> {
    let b = bottleneck(payload)?;
    let mut out = up(payload, scale, &input.z, p)?;
    if let Some(g) = &b.gate {
        let g = gate(g, &input.z);
        out.iter_mut().for_each(|x| *x *= g);
    }
    let rules = b.rules;
    if !rules.parallel && rules.residual_inside {
        add(&mut out, &input.r, 1.0);
    }
    own_norm(b.norm_after.as_ref(), &mut out, p);
    if !rules.parallel && !rules.residual_inside {
        add(&mut out, &input.r, 1.0);
    }
    Ok(out)
}

/// What one member makes of the input that the members share; for a fusion before its gate, norm and residual.
fn member(part: &Part, shared: &Input, fusing: bool, tokens: &Tokens<'_>, p: &mut dyn Products) -> Result<Vec<f32>> {
    let mut z = shared.z.clone();
    let mut last = Vec::new();
    for (payload, scale) in &part.chain {
        if part.stacked {
            if let (true, Op::Bottleneck(b)) = (fusing, &payload.op) {
                last = up(payload, *scale, &input(b.rules, &z, tokens, p).z, p)?;
            }
            z = output(payload, *scale, &z, tokens, p)?;
        } else if fusing {
            last = up(payload, *scale, &shared.z, p)?;
        } else {
            z = adapter(payload, *scale, shared, p)?;
        }
    }
    Ok(if fusing { last } else { z })
}

/// The tokens of each part of a split of `ids`, as far as there are any.
///
/// # Errors
/// Ids that cannot be split so, which a batch has been checked for.
pub fn parts(shares: &Arc<[Share]>, ids: &[u32], separator: u32) -> Result<Vec<Range<usize>>> {
    let part = |index| SplitPart { shares: shares.clone(), index }.range(ids.len(), ids, separator);
    (0..shares.len()).map(part).collect::<std::result::Result<_, _>>().map_err(Error::Program)
}

/// Each member makes what it makes of its own tokens.
fn split(
    blend: &Blend,
    shared: &Input,
    ranges: Vec<Range<usize>>,
    tokens: &Tokens<'_>,
    p: &mut dyn Products,
) -> Result<Vec<f32>> {
    let mut out = Vec::with_capacity(shared.z.len());
    for (part, range) in blend.parts.iter().zip(ranges).filter(|(_, range)| !range.is_empty()) {
        let at = range.start * tokens.width..range.end * tokens.width;
        let norms: Vec<_> = tokens
            .norms
            .iter()
            .filter_map(|(run, norm)| {
                let (start, end) = (run.start.max(range.start), run.end.min(range.end));
                (start < end).then(|| (start - range.start..end - range.start, *norm))
            })
            .collect();
        let own = Input { z: shared.z[at.clone()].to_vec(), r: shared.r[at.clone()].to_vec() };
        let ids = &tokens.ids[range.clone()];
        let tokens = Tokens { x: &tokens.x[at], ids, width: tokens.width, norms: &norms, turn: tokens.turn };
        out.extend(member(part, &own, false, &tokens, p)?);
    }
    Ok(out)
}

fn blend(blend: &Blend, h: &[f32], tokens: &Tokens<'_>, p: &mut dyn Products) -> Result<Vec<f32>> {
    let shared = input(blend.rules, h, tokens, p);
    if let How::Split { shares, separator } = &blend.how {
        return split(blend, &shared, parts(shares, tokens.ids, *separator)?, tokens, p);
    }
    let fusing = matches!(blend.how, How::Fuse(_));
    let outputs =
        blend.parts.iter().map(|part| member(part, &shared, fusing, tokens, p)).collect::<Result<Vec<_>>>()?;
    if let How::Fuse(payload) = &blend.how {
        let own = (!blend.rules.parallel).then_some(h);
        return fuse(payload, &shared, own, outputs, tokens, p);
    }
    let mut out = vec![0.0; h.len()];
    if matches!(blend.how, How::Average) {
        outputs.iter().zip(&blend.parts).for_each(|(o, part)| add(&mut out, o, part.weight));
        return Ok(out);
    }
    // A parallel adapter has no residual of its own.
    let none = out.clone();
    let r = if blend.rules.parallel { &none } else { &shared.r };
    out.clone_from(r);
    for (o, part) in outputs.iter().zip(&blend.parts) {
        let moved = |(y, (o, r)): (&mut f32, (&f32, &f32))| *y += part.weight * (o - r);
        out.iter_mut().zip(o.iter().zip(r)).for_each(moved);
    }
    Ok(out)
}

/// `BertFusion.forward`: keys and values are the adapters' outputs.
fn fuse(
    payload: &Payload,
    shared: &Input,
    // The sub-block's output, unless the adapters are parallel.
    h: Option<&[f32]>,
    mut outputs: Vec<Vec<f32>>,
    tokens: &Tokens<'_>,
    p: &mut dyn Products,
) -> Result<Vec<f32>> {
    let Op::Fusion(fusion) = &payload.op else { return Err(wrong_payload()) };
    let Fusion { query, key, value, query_before_norm, residual_before, temperature: _ } = &**fusion;
    let (width, temperature) = (tokens.width, fusion.cooled(tokens.turn));
    if *residual_before {
        outputs.iter_mut().for_each(|o| add(o, &shared.r, 1.0));
    }
    let mut through = |which: Factor, there: bool, x: &[f32]| -> Result<Vec<f32>> {
        let mut out = x.to_vec();
        if there {
            p.product(payload, which, x, &mut out)?;
        }
        Ok(out)
    };
    let q = through(Factor::Query, query.is_some(), h.filter(|_| *query_before_norm).unwrap_or(&shared.z))?;
    let keys: Vec<Vec<f32>> = outputs.iter().map(|o| through(Factor::Key, key.is_some(), o)).collect::<Result<_>>()?;
    let mut out = vec![0.0; shared.z.len()];
    for (t, out) in out.chunks_exact_mut(width).enumerate() {
        let at = t * width..(t + 1) * width;
        let mut weights: Vec<f32> = keys.iter().map(|k| dot(&q[at.clone()], &k[at.clone()]) / temperature).collect();
        softmax(&mut weights);
        weights.iter().zip(&outputs).for_each(|(w, o)| add(out, &o[at.clone()], *w));
    }
    // The value layer is linear and has no bias: before or after the mixture is the same.
    let mut out = through(Factor::Value, value.is_some(), &out)?;
    if !residual_before {
        add(&mut out, &shared.r, 1.0);
    }
    Ok(out)
}

pub(super) fn softmax(x: &mut [f32]) {
    let peak = x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    x.iter_mut().for_each(|x| *x = (*x - peak).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

/// What an adapter or a blend makes of `h`.
fn output(payload: &Payload, scale: f32, h: &[f32], tokens: &Tokens<'_>, p: &mut dyn Products) -> Result<Vec<f32>> {
    match &payload.op {
        Op::Bottleneck(b) => {
            let own = input(b.rules, h, tokens, p);
            adapter(payload, scale, &own, p)
        }
        Op::Blend(b) => blend(b, h, tokens, p),
        _ => Err(wrong_payload()),
    }
}

/// Rewrites `h`, the sub-block's output for the tokens of one row, as `payload` says.
///
/// # Errors
/// A payload of another kind, or as `p`.
pub fn rewrite(payload: &Payload, scale: f32, h: &mut [f32], tokens: &Tokens<'_>, p: &mut dyn Products) -> Result<()> {
    let out = output(payload, scale, h, tokens, p)?;
    let keeps = match &payload.op {
        Op::Bottleneck(bottleneck) => bottleneck.rules.keeps,
        Op::Blend(blend) => blend.rules.keeps,
        _ => false,
    };
    if keeps {
        add(h, &out, 1.0);
    } else {
        h.copy_from_slice(&out);
    }
    Ok(())
}

/// The coupling of each token's halves, in place; `inverse` undoes it.
///
/// # Errors
/// A payload of another kind, or as `p`.
pub fn couple(payload: &Payload, inverse: bool, x: &mut [f32], width: usize, p: &mut dyn Products) -> Result<()> {
    let Op::Coupling(coupling) = &payload.op else { return Err(wrong_payload()) };
    let half = width / 2;
    let sides =
        [(half..width, 0..half, [Factor::Down, Factor::Up]), (0..half, half..width, [Factor::Query, Factor::Key])];
    let order = if inverse { [1, 0] } else { [0, 1] };
    for (from, to, [first, second]) in order.map(|i| sides[i].clone()) {
        let source: Vec<f32> = x.chunks_exact(width).flat_map(|x| x[from.clone()].iter().copied()).collect();
        let (mut inner, mut out) = (Vec::new(), Vec::new());
        p.product(payload, first, &source, &mut inner)?;
        p.activate(coupling.activation, &mut inner);
        p.product(payload, second, &inner, &mut out)?;
        let sign = if inverse { -1.0 } else { 1.0 };
        x.chunks_exact_mut(width).zip(out.chunks_exact(to.len())).for_each(|(x, o)| add(&mut x[to.clone()], o, sign));
    }
    Ok(())
}

/// The naive products.
struct Naive;

impl Products for Naive {
    fn product(&mut self, payload: &Payload, which: Factor, x: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let (matrix, bias) = factor(&payload.op, which).ok_or_else(wrong_payload)?;
        let (m, k, n) = (matrix.to_f32(), matrix.cols(), matrix.rows());
        out.clear();
        for x in x.chunks_exact(k) {
            out.extend((0..n).map(|j| dot(x, &m[j * k..(j + 1) * k]) + bias.map_or(0.0, |b| b[j])));
        }
        Ok(())
    }

    fn norm(&mut self, x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
        x.chunks_exact_mut(gamma.len()).for_each(|x| super::norm::layer(x, gamma, beta, eps));
    }

    fn activate(&mut self, function: Activation, x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = function.eval(*x));
    }
}

/// The parts of `range`, along `extent`, that lie in one row each.
pub fn by_row(tables: &Tables, extent: Extent, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<'_> {
    let groups = match (extent, &tables.relative) {
        (Extent::Positions, Some(relative)) => relative.count(),
        _ => tables.rows(),
    };
    let group = move |i: usize| match (extent, &tables.relative) {
        (Extent::Positions, Some(relative)) => relative.block(i),
        (Extent::Rows, _) => i..i + 1,
        _ => tables.row(i),
    };
    (0..groups).map(group).filter_map(move |row| {
        let part = row.start.max(range.start)..row.end.min(range.end);
        (!part.is_empty()).then_some(part)
    })
}

pub(super) fn eval<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Bottleneck { h, x, table, norm, turn } = step.kind else { return Ok(()) };
    let width = m.width(h);
    let mut y = m.take(h);
    let base = norm
        .map(|n| {
            Ok((
                m.weights.vector(n.gamma, width)?,
                n.beta.map_or_else(|| Ok(vec![0.0; width]), |b| m.weights.vector(b, width))?,
                f32::from_bits(n.eps_bits),
            ))
        })
        .transpose()?;
    for segment in m.segments(table) {
        let payload = m.payload(segment)?;
        for part in by_row(m.tables, Extent::Tokens, segment.range.clone()) {
            let norms = match &base {
                Some((gamma, beta, eps)) => norms(part.clone(), ModelNorm { gamma, beta, eps: *eps }, |t| {
                    Ok(norm.and_then(|n| n.replaced).map(|table| m.replaced_norm(table, t)).transpose()?.flatten())
                })?,
                None => Vec::new(),
            };
            let at = part.start * width..part.end * width;
            let ids = &m.tables.ids[part.clone()];
            let tokens = Tokens { x: &m.read(x)[at.clone()], ids, width, norms: &norms, turn };
            rewrite(payload, segment.scale, &mut y[at], &tokens, &mut Naive)?;
        }
    }
    m.put(h, y);
    Ok(())
}

pub(super) fn eval_couple<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Couple { x, table, inverse } = step.kind else { return Ok(()) };
    let width = m.width(x);
    let mut y = m.take(x);
    for segment in m.segments(table) {
        let at = segment.range.start * width..segment.range.end * width;
        couple(m.payload(segment)?, inverse, &mut y[at], width, &mut Naive)?;
    }
    m.put(x, y);
    Ok(())
}
