//! Softmax attention inside each row, over real keys only, and over an adapter's in front of them.

use super::{Machine, Weights, dot, gate, wrong_payload};
use crate::error::{Error, Result};
use crate::ir::Op;
use crate::program::{Prefixes, Step, StepKind, Tables};
use std::ops::Range;

/// Keys and values of one row with what prefixes put in front: `[slots + tokens, width]` each. `x`, `k` and `v` are
/// whole buffers. Nothing when the row has no prefix.
///
/// # Errors
/// A table that points at a payload of another kind.
pub fn prefixed(
    tables: &Tables,
    prefix: Prefixes,
    row: &Range<usize>,
    [x, k, v]: [&[f32]; 3],
    width: usize,
) -> Result<Option<[Vec<f32>; 2]>> {
    let mut out = [Vec::new(), Vec::new()];
    // The library puts a later adapter's slots before an earlier one's.
    for table in prefix.tables().rev() {
        let Some(segment) = tables.tables[table.0 as usize].segments.iter().find(|s| s.range.contains(&row.start))
        else {
            continue;
        };
        let payload = segment.payload.and_then(|p| tables.payloads.get(p as usize));
        let payload = payload.ok_or_else(|| Error::Program("a segment without its payload".into()))?;
        let Op::Prefix(own) = &payload.op else { return Err(wrong_payload()) };
        let inner = x.len() / tables.tokens().max(1);
        let input = &x[row.start * inner..row.end * inner];
        let gates = own.gates.as_ref().map_or([1.0; 2], |gates| [0, 1].map(|i| gate(&gates[i], input)));
        for ((out, slots), g) in out.iter_mut().zip([&own.keys, &own.values]).zip(gates) {
            out.extend(slots.to_f32().iter().map(|s| g * s));
        }
    }
    if out[0].is_empty() {
        return Ok(None);
    }
    for (out, own) in out.iter_mut().zip([k, v]) {
        out.extend_from_slice(&own[row.start * width..row.end * width]);
    }
    Ok(Some(out))
}

pub(super) fn eval<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Attention { q, k, v, out, heads, scale_bits, prefix, window, relative } = step.kind else {
        return Ok(());
    };
    let (width, scale) = (m.width(out), f32::from_bits(scale_bits));
    let d = width / heads;
    let mut y = m.take(out);
    let (q, k, v) = (m.read(q), m.read(k), m.read(v));
    for row in 0..m.tables.rows() {
        let span = m.tables.row(row);
        let own = prefix.map(|p| prefixed(m.tables, p, &span, [m.read(p.x), k, v], width)).transpose()?.flatten();
        let rows = span.start * width..span.end * width;
        let (k, v) = own.as_ref().map_or((&k[rows.clone()], &v[rows]), |[k, v]| (k, v));
        let keys = k.len() / width;
        // Keys in front of the row's own are of no place.
        let slots = keys - span.len();
        for head in 0..heads {
            let at = |t: usize| t * width + head * d..t * width + (head + 1) * d;
            let score = |t: usize, s: usize| {
                let product = dot(&q[at(t)], &k[at(s)]);
                let Some(key) = s.checked_sub(slots) else { return product * scale };
                let query = t - span.start;
                if window.is_some_and(|w| query.abs_diff(key) > w as usize) {
                    return f32::NEG_INFINITY;
                }
                let (Some(terms), Some(places)) = (relative, &m.tables.relative) else { return product * scale };
                let p = places.place(row, query, key);
                let by_key = terms.keys.map_or(0.0, |id| dot(&q[at(t)], &m.read(id)[at(p)]));
                let by_query = terms.queries.map_or(0.0, |id| dot(&k[at(s)], &m.read(id)[at(p)]));
                let bias = terms.bias.map_or(0.0, |id| m.read(id)[p * heads + head]);
                (product + by_key + by_query) * scale + bias
            };
            for t in span.clone() {
                let mut p: Vec<f32> = (0..keys).map(|s| score(t, s)).collect();
                let peak = p.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
                p.iter_mut().for_each(|p| *p = (*p - peak).exp());
                let sum: f32 = p.iter().sum();
                let y = &mut y[at(t)];
                y.fill(0.0);
                for (s, p) in p.iter().enumerate() {
                    y.iter_mut().zip(&v[at(s)]).for_each(|(y, v)| *y += p * v);
                }
                y.iter_mut().for_each(|y| *y /= sum);
            }
        }
    }
    m.put(out, y);
    Ok(())
}
