//! Stacks of AdapterHub's low-rank updates: each reads what the one before it made, and only the last is added.

use super::variants::CHAIN;
use crate::backend::Backend;
use crate::compose::{Placed, Resolved};
use crate::error::{Error, Result};
use crate::ir::{Gate, LowRank, MixedLowRank, Mixing, Op, Payload, PayloadId};
use crate::tensor::Matrix;
use std::sync::Arc;

impl<B: Backend> super::Session<B> {
    /// Puts one update in the place of each run of chained ones: `Δ_b(Δ_a(x))` is a low-rank update of `a`'s rank.
    pub(super) fn chain(&mut self, resolved: &mut Resolved) -> Result<()> {
        let update = |p: &Placed| update(&p.payload.op).is_some();
        while let Some(at) = resolved.placed.iter().position(|p| p.chained && update(p)) {
            let later = resolved.placed.remove(at);
            let same = |p: &&mut Placed| p.site == later.site && update(p);
            let Some(earlier) = resolved.placed[..at].iter_mut().rev().find(same) else {
                return Err(Error::Program("a chained update with none before it".into()));
            };
            let key =
                vec![(earlier.payload.id, earlier.scale.to_bits()), (later.payload.id, later.scale.to_bits()), CHAIN];
            let payload = match self.variants.found(&key) {
                Some(found) => found,
                None => {
                    let op = product(earlier, &later).map_err(|why| Error::ComposeUndefined {
                        text: resolved.text.clone(),
                        why: format!(
                            "in a stack, {} would read what {} makes at {}, and {why}",
                            later.adapter, earlier.adapter, later.site
                        ),
                    })?;
                    self.next_payload += 1;
                    let payload = Arc::new(Payload { id: PayloadId(self.next_payload), op });
                    let mut gone = Vec::new();
                    self.variants.keep(key, payload.clone(), &mut gone)?;
                    gone.into_iter().for_each(|id| self.backend.forget(id));
                    payload
                }
            };
            earlier.payload = payload;
            earlier.scale = 1.0;
            earlier.adapter = format!("{} + {}", earlier.adapter, later.adapter);
        }
        Ok(())
    }
}

/// The factors of an update, and its gates.
fn update(op: &Op) -> Option<(&LowRank, &[Gate])> {
    match op {
        Op::LowRank(lora) => Some((lora, &[])),
        Op::MixedLowRank(mixed) => match &mixed.mixing {
            Mixing::Gate(gates) => Some((&mixed.lora, gates)),
            Mixing::Route(_) => None,
        },
        _ => None,
    }
}

/// `A = A_a`, `B = s_a s_b B_b (A_b B_a)`. Gates are numbers of the row: all read the layer's input, and all multiply the end.
#[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
fn product(earlier: &Placed, later: &Placed) -> Result<Op, &'static str> {
    const WIDTHS: &str = "the layer's input and output differ in width";
    let (Some((a, first)), Some((b, second))) = (update(&earlier.payload.op), update(&later.payload.op)) else {
        return Err("one of them is no low-rank update");
    };
    if a.b.rows() != b.a.cols() || a.bias.is_some() || b.bias.is_some() {
        return Err(WIDTHS);
    }
    let multiply = |l: &[f32], r: &[f32], inner: usize, cols: usize| -> Vec<f32> {
        let mut out = Vec::with_capacity(l.len() / inner * cols);
        for l in l.chunks_exact(inner) {
            for j in 0..cols {
                let sum: f64 = l.iter().enumerate().map(|(k, l)| f64::from(*l) * f64::from(r[k * cols + j])).sum();
                out.push(sum as f32);
            }
        }
        out
    };
    let rank = a.a.rows();
    let inner = multiply(&b.a.to_f32(), &a.b.to_f32(), b.a.cols(), rank);
    let outer = multiply(&b.b.to_f32(), &inner, b.a.rows(), rank);
    let scale = a.scale * earlier.scale * b.scale * later.scale;
    let outer = Matrix::dense(b.b.rows(), rank, outer).ok_or(WIDTHS)?;
    let lora = LowRank { a: a.a.clone(), b: outer, bias: None, scale };
    let gates = [first, second].concat();
    Ok(if gates.is_empty() {
        Op::LowRank(lora)
    } else {
        Op::MixedLowRank(Box::new(MixedLowRank { lora, mixing: Mixing::Gate(gates) }))
    })
}
