//! What tokens take from their places: rotation, neighbours, embeddings of relative positions.

use super::{Machine, Weights};
use crate::error::{Error, Result};
use crate::program::{Step, StepKind};

pub(super) fn positions<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Positions { out, table } = step.kind else { return Ok(()) };
    let width = m.width(out);
    let relative = m.tables.relative.as_ref().ok_or_else(|| Error::Program("a call without its positions".into()))?;
    let mut y = m.take(out);
    for (place, y) in y.chunks_exact_mut(width).enumerate() {
        relative.give(place, y, |row, y| m.weights.row(table, row, y))?;
    }
    m.put(out, y);
    Ok(())
}

/// Cosine and sine of the angles of `position`, for each of the `d / 2` pairs of a head.
pub fn angles(position: u32, d: usize, theta: f32) -> impl Iterator<Item = [f32; 2]> {
    #[allow(clippy::cast_possible_truncation, reason = "the library's frequencies and angles are f32")]
    (0..d / 2).map(move |i| {
        let frequency = 1.0 / f64::from(theta).powf((2 * i) as f64 / d as f64) as f32;
        let angle = f64::from(position as f32 * frequency);
        [angle.cos() as f32, angle.sin() as f32]
    })
}

/// One head of one token, turned by its angles.
pub fn rotate_head(x: &[f32], angles: impl Iterator<Item = [f32; 2]>, y: &mut [f32]) {
    let half = x.len() / 2;
    for (i, [cos, sin]) in angles.enumerate() {
        y[i] = x[i] * cos - x[i + half] * sin;
        y[i + half] = x[i + half] * cos + x[i] * sin;
    }
}

pub(super) fn rotate<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Rotate { x, first, out, heads, theta_bits } = step.kind else { return Ok(()) };
    let (stride, width, theta) = (m.width(x), m.width(out), f32::from_bits(theta_bits));
    let d = width / heads;
    let mut y = m.take(out);
    for t in m.scope(step, out) {
        let turns: Vec<[f32; 2]> = angles(m.tables.positions[t], d, theta).collect();
        let x = &m.read(x)[t * stride + first..][..width];
        for (x, y) in x.chunks_exact(d).zip(y[t * width..(t + 1) * width].chunks_exact_mut(d)) {
            rotate_head(x, turns.iter().copied(), y);
        }
    }
    m.put(out, y);
    Ok(())
}

pub(super) fn unfold<W: Weights>(m: &mut Machine<'_, W>, step: &Step) -> Result<()> {
    let StepKind::Unfold { x, out } = step.kind else { return Ok(()) };
    let (width, wide) = (m.width(x), m.width(out));
    let reach = wide / width / 2;
    let mut y = m.take(out);
    for row in 0..m.tables.rows() {
        let span = m.tables.row(row);
        for t in span.clone() {
            for (i, y) in y[t * wide..(t + 1) * wide].chunks_exact_mut(width).enumerate() {
                match (t + i).checked_sub(reach).filter(|t| span.contains(t)) {
                    Some(t) => y.copy_from_slice(&m.read(x)[t * width..(t + 1) * width]),
                    None => y.fill(0.0),
                }
            }
        }
    }
    m.put(out, y);
    Ok(())
}
