//! Steps by a token's place: rotation, neighbours, embeddings of relative positions.

use crate::run::Frame;
use crate::slices::{Ended, Slices};
use polygraft::program::{Step, StepKind};
use polygraft::steps::{angles, rotate_head};
use polygraft::{Error, Result};

/// Rows of a task.
const CHUNK: usize = 64;

/// Cosines and sines by position, for one base of a rotation.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    theta_bits: u32,
    /// Pairs a position.
    pairs: usize,
    values: Vec<[f32; 2]>,
}

impl Turns {
    /// At least `positions` positions.
    fn fit(&mut self, theta_bits: u32, d: usize, positions: u32) {
        if (self.theta_bits, self.pairs) != (theta_bits, d / 2) {
            *self = Self { theta_bits, pairs: d / 2, values: Vec::new() };
        }
        let have = (self.values.len() / self.pairs.max(1)) as u32;
        for position in have..positions {
            self.values.extend(angles(position, d, f32::from_bits(theta_bits)));
        }
    }
}

pub(crate) fn rotate(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Rotate { x, first, out, heads, theta_bits } = step.kind else { return Ok(Ended::Yes) };
    let (stride, width, tables) = (frame.width(x), frame.width(out), frame.tables());
    let (d, isa) = (width / heads, frame.isa);
    // Two bases at most: of the layers that see all keys, and of those that see a window.
    let known = &mut frame.scratch.turns;
    let at = known.iter().position(|t| t.theta_bits == theta_bits).unwrap_or_else(|| {
        known.push(Turns::default());
        known.len() - 1
    });
    known[at].fit(theta_bits, d, tables.positions.iter().max().map_or(0, |p| p + 1));
    let (turns, input) = (&frame.scratch.turns[at], &frame.buffers[x.0 as usize]);
    slices.each(frame.pieces(step, CHUNK), |tokens| {
        isa.vectorize(|| {
            for t in tokens {
                let own = &turns.values[tables.positions[t] as usize * turns.pairs..][..turns.pairs];
                let x = &input[t * stride + first..][..width];
                for (x, y) in x.chunks_exact(d).zip(y[t * width..(t + 1) * width].chunks_exact_mut(d)) {
                    rotate_head(x, own.iter().copied(), y);
                }
            }
        });
        Ok(())
    })
}

pub(crate) fn positions(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Positions { out, table } = step.kind else { return Ok(Ended::Yes) };
    let (width, relative) = (frame.width(out), frame.tables().relative.as_ref());
    let relative = relative.ok_or_else(|| Error::Program("a call without its positions".into()))?;
    slices.each(frame.pieces(step, CHUNK), |places| {
        for p in places {
            relative.give(p, &mut y[p * width..(p + 1) * width], |row, y| frame.store.row(table, row, y))?;
        }
        Ok(())
    })
}

pub(crate) fn unfold(frame: &mut Frame<'_>, step: &Step, y: &mut [f32], slices: &mut Slices<'_>) -> Result<Ended> {
    let StepKind::Unfold { x, out } = step.kind else { return Ok(Ended::Yes) };
    let (width, wide, tables) = (frame.width(x), frame.width(out), frame.tables());
    let (reach, input) = (wide / width / 2, &frame.buffers[x.0 as usize]);
    slices.each(0..tables.rows(), |row| {
        let span = tables.row(row);
        for t in span.clone() {
            for (i, y) in y[t * wide..(t + 1) * wide].chunks_exact_mut(width).enumerate() {
                match (t + i).checked_sub(reach).filter(|t| span.contains(t)) {
                    Some(t) => y.copy_from_slice(&input[t * width..(t + 1) * width]),
                    None => y.fill(0.0),
                }
            }
        }
        Ok(())
    })
}
