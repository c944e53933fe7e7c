//! Whether every patch of an adapter fits this base model, and the report of what loading did.

use super::{AdapterIr, BlockSite, Dense, LinearSite, LowRank, Mixing, Norm, NormSite, Op, Patch, Site, Stands};
use crate::error::{Error, Result};
use crate::model::{HeadKind, ModelSpec};
use crate::tensor::Matrix;
use serde::Serialize;

/// How an adapter's claim compares with the base that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The same lineage.
    Exact,
    /// Another base, overridden by the caller; the shapes fit.
    Overridden,
    /// The adapter does not say (a library's folder), and the shapes fit.
    Unknown,
}

/// What loading an adapter did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// Family that read it.
    pub family: String,
    /// The base check.
    pub base: Verdict,
    /// Patches applied.
    pub applied: usize,
    /// Sites changed, by name.
    pub sites: Vec<String>,
    /// Tensors found and not used (only when not strict).
    pub unused: Vec<String>,
    /// Tensors promised and not found (only when not strict).
    pub missing: Vec<String>,
    /// Outputs of the head that travels with it.
    pub head: Option<u32>,
    /// Language, when it is a language's.
    pub language: Option<String>,
    /// Bytes held.
    pub bytes: usize,
    /// Plain-words notes, such as a scale that is zero.
    pub notes: Vec<String>,
}

/// Options of loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Graft {
    /// Load although the adapter names another base.
    pub allow_base_mismatch: bool,
}

/// Checks `adapter` against `spec` and reports.
///
/// # Errors
/// The first site that is missing, shape that differs or number that is not finite, by name; a base of another lineage.
pub fn check(name: &str, adapter: &AdapterIr, spec: &ModelSpec, options: Graft) -> Result<LoadReport> {
    let base = verdict(name, adapter, spec, options)?;
    let replicated = adapter.copies.as_ref().map(|copies| spec.replicated(copies));
    let spec = replicated.as_ref().unwrap_or(spec);
    for patch in &adapter.patches {
        fits(name, adapter, patch, spec)?;
    }
    if let Some(head) = &adapter.head {
        head_is_whole(name, adapter, head.kind, spec)?;
    }
    let mut sites: Vec<String> = Vec::new();
    for patch in &adapter.patches {
        let site = format!("{}: {}", patch.site, patch.op.name());
        if sites.last() != Some(&site) {
            sites.push(site);
        }
    }
    Ok(LoadReport {
        family: adapter.family.into(),
        base,
        applied: adapter.patches.len(),
        sites,
        unused: adapter.unused.clone(),
        missing: adapter.missing.clone(),
        head: adapter.head.as_ref().map(|h| h.labels),
        language: adapter.language.clone(),
        bytes: adapter.patches.iter().map(|p| p.op.bytes()).sum(),
        notes: adapter.copies.iter().map(|copies| format!("it runs copies of the base's layers: {copies:?}")).collect(),
    })
}

fn verdict(name: &str, adapter: &AdapterIr, spec: &ModelSpec, options: Graft) -> Result<Verdict> {
    match (&adapter.base.lineage, &spec.fingerprint.lineage) {
        (Some(a), Some(b)) if a == b => Ok(Verdict::Exact),
        (Some(_), Some(_)) if options.allow_base_mismatch => Ok(Verdict::Overridden),
        (Some(a), Some(b)) => Err(Error::AdapterBase {
            adapter: name.into(),
            wanted: format!("{} ({})", adapter.base.name.as_deref().unwrap_or("unnamed"), short(a)),
            found: format!("{} ({})", spec.fingerprint.name, short(b)),
        }),
        (None, _) | (_, None) => Ok(Verdict::Unknown),
    }
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

fn fits(name: &str, adapter: &AdapterIr, patch: &Patch, spec: &ModelSpec) -> Result<()> {
    let missing = || Error::AdapterSite { adapter: name.into(), site: patch.site.to_string() };
    let wrong = |what: &str, expected: String, found: String| Error::AdapterShape {
        adapter: name.into(),
        what: format!("{}: {what}", patch.site),
        expected,
        found,
    };
    let finite = |what: &str, ok: bool| {
        if ok { Ok(()) } else { Err(wrong(what, "finite numbers".into(), "NaN or infinity".into())) }
    };
    let shaped = |what: &str, m: &Matrix, want: (usize, usize)| {
        if (m.rows(), m.cols()) != want || want.0 == 0 {
            let found = format!("{} × {}", m.rows(), m.cols());
            return Err(wrong(what, format!("{} × {}", want.0, want.1), found));
        }
        finite(what, m.first_not_finite().is_none())
    };
    let vector = |what: &str, v: &[f32], want: usize| {
        length(Some(v), want).map_err(|n| wrong(what, want.to_string(), n.to_string()))?;
        finite(what, all_finite(Some(v)))
    };
    match (&patch.site, &patch.op) {
        (Site::Linear(site), Op::LowRank(LowRank { a, b, bias, scale })) => {
            let (rows, cols) = shape_at(*site, adapter, spec).ok_or_else(missing)?;
            if a.rows() == 0 || a.rows() != b.cols() {
                return Err(wrong(
                    "rank",
                    format!("the same rank ≥ 1 in A and B ({} in A)", a.rows()),
                    b.cols().to_string(),
                ));
            }
            if a.cols() != cols || b.rows() != rows {
                return Err(wrong(
                    "low-rank update",
                    format!("{rows} × {cols}"),
                    format!("{} × {}", b.rows(), a.cols()),
                ));
            }
            length(bias.as_deref(), rows).map_err(|n| wrong("lora bias", rows.to_string(), n.to_string()))?;
            finite("A", a.first_not_finite().is_none())?;
            finite("B", b.first_not_finite().is_none())?;
            finite("scaling", scale.is_finite())?;
            finite("lora bias", all_finite(bias.as_deref()))
        }
        (Site::Linear(site), Op::ReplaceLinear(Dense { weight, bias })) => {
            let outputs = match shape_at(*site, adapter, spec) {
                Some((rows, cols)) => {
                    if let Some(w) = weight.as_ref().filter(|w| (w.rows(), w.cols()) != (rows, cols)) {
                        return Err(wrong(
                            "weight",
                            format!("{rows} × {cols}"),
                            format!("{} × {}", w.rows(), w.cols()),
                        ));
                    }
                    rows
                }
                None => return Err(missing()),
            };
            length(bias.as_deref(), outputs).map_err(|n| wrong("bias", outputs.to_string(), n.to_string()))?;
            finite("weight", weight.as_ref().is_none_or(|w| w.first_not_finite().is_none()))?;
            finite("bias", all_finite(bias.as_deref()))
        }
        (site @ (Site::Linear(_) | Site::Norm(_)), Op::Reweight(change)) => {
            let wanted = match site {
                Site::Linear(site) => shape_at(*site, adapter, spec),
                Site::Norm(site) => spec.norms.get(site).map(|n| (spec.weight(n.gamma).cols, 1)),
                _ => None,
            };
            let wanted = wanted.ok_or_else(missing)?;
            let found = change.0.shape();
            if found == wanted {
                return Ok(());
            }
            Err(wrong(
                "change of weights",
                format!("{} × {}", wanted.0, wanted.1),
                format!("{} × {}", found.0, found.1),
            ))
        }
        (Site::Norm(site), Op::ReplaceNorm(Norm { gamma, beta })) => {
            let width = norm_width(*site, adapter, spec).ok_or_else(missing)?;
            for (what, v) in [("weight", gamma), ("bias", beta)] {
                length(v.as_deref(), width).map_err(|n| wrong(what, width.to_string(), n.to_string()))?;
                finite(what, all_finite(v.as_deref()))?;
            }
            Ok(())
        }
        (Site::Pooled, Op::Offset(offset)) => {
            let width = spec.embedding_width();
            length(Some(&offset.vector), width).map_err(|n| wrong("vector", width.to_string(), n.to_string()))?;
            length(offset.query.as_deref(), width).map_err(|n| wrong("query", width.to_string(), n.to_string()))?;
            finite("vector", all_finite(Some(&offset.vector)))?;
            finite("query", all_finite(offset.query.as_deref()))
        }
        (Site::Linear(site), Op::MixedLowRank(own)) => {
            let (rows, cols) = shape_at(*site, adapter, spec).ok_or_else(missing)?;
            let l = &own.lora;
            let (experts, gate) = match &own.mixing {
                Mixing::Gate(gates) => (1, gates.iter().map(|g| g.weight.len()).find(|n| *n != cols)),
                Mixing::Route(router) if router.cols() == l.a.rows() => (router.rows(), None),
                Mixing::Route(router) => {
                    return Err(wrong("router", format!("{} columns", l.a.rows()), router.cols().to_string()));
                }
            };
            shaped("A", &l.a, (l.a.rows(), cols)).and_then(|()| shaped("B", &l.b, (rows, experts * l.a.rows())))?;
            length(l.bias.as_deref(), rows).map_err(|n| wrong("lora bias", rows.to_string(), n.to_string()))?;
            gate.map_or(Ok(()), |n| Err(wrong("gate", cols.to_string(), n.to_string())))
        }
        (Site::Block(site), op @ (Op::Bottleneck(_) | Op::Fusion(_))) => {
            let (BlockSite::Attention(layer) | BlockSite::Ffn(layer)) = *site;
            if layer >= spec.layers {
                return Err(missing());
            }
            let h = spec.hidden;
            match op {
                Op::Bottleneck(b) => {
                    let k = b.down.rows();
                    shaped("down", &b.down, (k, h)).and_then(|()| shaped("up", &b.up, (h, k)))?;
                    let norms = [&b.norm_before, &b.norm_after].into_iter().flatten().flat_map(|n| [&n.gamma, &n.beta]);
                    let gate = b.gate.iter().map(|g| (&g.weight, h));
                    let vectors = norms.map(|v| (v, h)).chain(gate).chain([(&b.down_bias, k), (&b.up_bias, h)]);
                    vectors.into_iter().try_for_each(|(v, want)| vector("vector", v, want))
                }
                Op::Fusion(f) => {
                    for (m, bias) in [&f.query, &f.key].into_iter().flatten() {
                        shaped("fusion", m, (h, h)).and_then(|()| vector("fusion bias", bias, h))?;
                    }
                    f.value.as_ref().map_or(Ok(()), |m| shaped("fusion value", m, (h, h)))
                }
                _ => Ok(()),
            }
        }
        (Site::Embeddings, Op::Coupling(c)) => {
            let first = spec.embedding / 2;
            let second = spec.embedding - first;
            for (what, m, from, to) in [("F", &c.f, second, first), ("G", &c.g, first, second)] {
                let inner = m.first.rows();
                shaped(what, &m.first, (inner, from)).and_then(|()| shaped(what, &m.second, (to, inner)))?;
                vector(what, &m.first_bias, inner).and_then(|()| vector(what, &m.second_bias, to))?;
            }
            Ok(())
        }
        (Site::LayerOutput(layer), Op::Reft(own)) => {
            if *layer >= spec.layers {
                return Err(missing());
            }
            for unit in std::iter::once(&own.first).chain(&own.last) {
                let rank = unit.source.rows();
                shaped("source", &unit.source, (rank, spec.hidden))?;
                shaped("projection", &unit.projection, (rank, spec.hidden))?;
                vector("bias", &unit.bias, rank)?;
            }
            Ok(())
        }
        (Site::Word | Site::Position | Site::TokenType | Site::Relative, Op::Rewording(change)) => {
            let table = spec.weight(spec.table(patch.site).ok_or_else(missing)?);
            let whole = |p: &Patch| match &p.op {
                Op::Rewording(r) if p.site == patch.site && r.0.stands_for() == Stands::Table => Some(r.0.shape().0),
                _ => None,
            };
            // A table of the adapter's own may be longer: words that were added. Of words of its own it has any number.
            let own = adapter.patches.iter().find_map(whole);
            let fits = |n: &usize| *n >= table.rows || adapter.rows.own_words;
            let rows = if patch.site == Site::Word { own.filter(fits) } else { None };
            let (want, found) = ((rows.unwrap_or(table.rows), table.cols), change.0.shape());
            if found == want {
                return Ok(());
            }
            let text = |(rows, cols): (usize, usize)| format!("{rows} × {cols}");
            Err(wrong("change of embeddings", text(want), text(found)))
        }
        (Site::Word | Site::Embeddings, Op::Prompt(prompt)) => {
            shaped("prompt", &prompt.vectors, (prompt.vectors.rows(), spec.weight(spec.embeddings.word).cols))
        }
        (Site::Keys(layer), Op::Prefix(prefix)) => {
            if *layer >= spec.layers {
                return Err(missing());
            }
            let slots = prefix.keys.rows();
            shaped("keys", &prefix.keys, (slots, spec.hidden))?;
            shaped("values", &prefix.values, (slots, spec.hidden))?;
            prefix.gates.iter().flatten().try_for_each(|g| vector("gate", &g.weight, spec.hidden))
        }
        (_, op) => Err(wrong("op", "one that is defined at this site".into(), op.name().into())),
    }
}

/// A linear layer's shape when `adapter` runs: its own head's layers count, since their width may differ from the base's.
fn shape_at(site: LinearSite, adapter: &AdapterIr, spec: &ModelSpec) -> Option<(usize, usize)> {
    let own = adapter.head.as_ref().and_then(|h| h.kind.shape(site, h.labels as usize, spec.hidden));
    match site {
        LinearSite::HeadDense(_) | LinearSite::HeadOutput if adapter.head.is_some() => own,
        // A pooler that the base lacks may travel with the adapter, not merely be patched by it.
        LinearSite::Pooler if !spec.linears.contains_key(&site) => {
            brings(adapter, site).then_some((spec.hidden, spec.hidden))
        }
        LinearSite::Layer(..)
        | LinearSite::Embedding
        | LinearSite::Patches
        | LinearSite::Convolution
        | LinearSite::Pooler
        | LinearSite::HeadDense(_)
        | LinearSite::HeadOutput
        | LinearSite::Sentence(_) => spec.linear_shape(site),
    }
}

/// The width of a layer norm when `adapter` runs.
fn norm_width(site: NormSite, adapter: &AdapterIr, spec: &ModelSpec) -> Option<usize> {
    let head = adapter.head.as_ref().or(spec.head.as_ref());
    match (site, head) {
        (NormSite::HeadDense(_), head) => head.filter(|h| h.kind.has(Site::Norm(site))).map(|h| h.kind.width as usize),
        _ => spec.norms.get(&site).map(|n| spec.weight(n.gamma).cols),
    }
}

/// Whether the adapter brings the weight of a linear layer.
fn brings(adapter: &AdapterIr, site: LinearSite) -> bool {
    let whole = |op: &Op| matches!(op, Op::ReplaceLinear(d) if d.weight.is_some());
    adapter.patches.iter().any(|p| p.site == Site::Linear(site) && whole(&p.op))
}

/// An adapter's head needs every layer of its kind, from the adapter or from the base in the same width.
fn head_is_whole(name: &str, adapter: &AdapterIr, kind: HeadKind, spec: &ModelSpec) -> Result<()> {
    for site in kind.linears() {
        let base = spec.linears.contains_key(&site) && spec.linear_shape(site) == shape_at(site, adapter, spec);
        if !brings(adapter, site) && !base {
            return Err(Error::AdapterSite { adapter: name.into(), site: format!("{site} (its head needs it)") });
        }
    }
    for site in kind.norms() {
        let whole = |op: &Op| matches!(op, Op::ReplaceNorm(n) if n.gamma.is_some());
        let own = adapter.patches.iter().any(|p| p.site == Site::Norm(site) && whole(&p.op));
        let base = spec.norms.get(&site).is_some_and(|n| spec.weight(n.gamma).cols == kind.width as usize);
        if !own && !base {
            return Err(Error::AdapterSite { adapter: name.into(), site: format!("{site} (its head needs it)") });
        }
    }
    Ok(())
}

fn length(v: Option<&[f32]>, want: usize) -> Result<(), usize> {
    match v {
        Some(v) if v.len() != want => Err(v.len()),
        _ => Ok(()),
    }
}

fn all_finite(v: Option<&[f32]>) -> bool {
    v.is_none_or(|v| v.iter().all(|x| x.is_finite()))
}
