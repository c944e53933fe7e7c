//! Sharing an encoding out: chunks of whole rows go to satellites while this engine works on others.
//!
//! Longest rows first, and chunks that shrink with what is left, so that nobody waits long for the last one. A
//! satellite may hold one chunk ahead of the one at work, except near the end. Whoever computes a row, its numbers are
//! the same.

use super::Engine;
use super::encode::{CHUNK_TOKENS, Encode};
use crate::backend::Backend;
use crate::compose::Resolved;
use crate::error::{Error, Result};
use crate::ir::{Op, Payload, PayloadId};
use crate::session::{Logits, RowOutput};
use crate::share::{self, Answer, Parcel};
use std::sync::Arc;

/// The smallest chunk that is worth a message: below it, unpacking the weights costs more than waiting does.
const LEAST_TOKENS: usize = 96;

/// Chunks that a satellite may hold.
const AHEAD: usize = 2;

/// The satellites of an engine: for each, the payloads that it has.
#[derive(Debug, Default)]
pub(super) struct Satellites {
    known: Vec<Vec<PayloadId>>,
    last_ticket: u32,
}

/// A chunk that is with a satellite.
#[derive(Debug)]
pub(super) struct Out {
    ticket: u32,
    satellite: usize,
    rows: Vec<usize>,
}

impl<B: Backend> Engine<B> {
    /// How many satellites compute along; none at first. They start without payloads.
    pub fn set_satellites(&mut self, count: usize) {
        self.satellites.known = vec![Vec::new(); count];
    }

    /// How many satellites compute along.
    #[must_use]
    pub fn satellites(&self) -> usize {
        self.satellites.known.len()
    }
}

/// A payload after those that it is made of.
fn members(payload: &Arc<Payload>) -> Vec<Arc<Payload>> {
    let mut out = Vec::new();
    if let Op::Blend(blend) = &payload.op {
        out.extend(blend.payloads().flat_map(members));
    }
    out.push(payload.clone());
    out
}

impl<B: Backend> Encode<B> {
    /// Tokens of the next chunk: all that fits when there is one worker, else a share of what is left.
    pub(super) fn room(&self, engine: &Engine<B>) -> usize {
        let workers = engine.satellites() + 1;
        if workers == 1 { CHUNK_TOKENS } else { (self.todo_tokens / (2 * workers)).clamp(LEAST_TOKENS, CHUNK_TOKENS) }
    }

    /// A chunk for satellite `satellite`, as the bytes of a [`Parcel`]; `None` when it has enough, or nothing is left
    /// that this engine would not do sooner by itself.
    ///
    /// # Errors
    /// A row that the model cannot run.
    pub fn share(&mut self, engine: &mut Engine<B>, satellite: usize) -> Result<Option<Vec<u8>>> {
        let held = self.out.iter().filter(|o| o.satellite == satellite).count();
        // Near the end a chunk that waits behind another would make all wait.
        let ahead = if self.todo_tokens > 4 * LEAST_TOKENS * (engine.satellites() + 1) { AHEAD } else { 1 };
        let alone = self.running.is_none() && self.todo_tokens <= self.room(engine);
        let known = engine.satellites.known.get(satellite);
        // Changed rows of tables are gathered where the tables and their changes are.
        let here = self.resolved.iter().any(Resolved::rewords) || !share::fits(engine.session.spec(), self.want);
        if known.is_none() || held >= ahead || alone || here {
            return Ok(None);
        }
        let Some(chunk) = self.next_chunk(engine) else { return Ok(None) };
        let rows: Vec<_> = chunk.iter().map(|&i| self.rows[i].clone()).collect();
        let (resolved, of) = self.compositions(&chunk);
        let embedded = engine.session.embed(&rows, &of, &resolved)?;
        let resolved: Vec<Resolved> = resolved.into_iter().cloned().collect();
        let Satellites { known, last_ticket } = &mut engine.satellites;
        let known = &mut known[satellite];
        let mut forget = Vec::new();
        known.retain(|id| {
            let keep = engine.session.holds(*id);
            if !keep {
                forget.push(*id);
            }
            keep
        });
        let mut payloads = Vec::new();
        for payload in resolved.iter().flat_map(|r| &r.placed).flat_map(|p| members(&p.payload)) {
            if !known.contains(&payload.id) {
                known.push(payload.id);
                payloads.push(payload);
            }
        }
        *last_ticket = last_ticket.wrapping_add(1);
        let (ticket, want, precision) = (*last_ticket, self.want, self.precision);
        let parcel = Parcel { ticket, forget, payloads, want, precision, resolved, of, rows, embedded };
        self.out.push(Out { ticket, satellite, rows: chunk });
        Ok(Some(parcel.to_bytes()))
    }

    /// Takes a satellite's answer; gives whether it was still awaited.
    ///
    /// # Errors
    /// Bytes that are no answer to what was asked.
    pub fn take_in(&mut self, engine: &mut Engine<B>, bytes: &[u8]) -> Result<bool> {
        let Answer { ticket, rows } = Answer::from_bytes(bytes)?;
        let Some(at) = self.out.iter().position(|o| o.ticket == ticket) else { return Ok(false) };
        if rows.len() != self.out[at].rows.len() {
            return Err(unasked());
        }
        let mut outputs = Vec::with_capacity(rows.len());
        for (row, &index) in rows.into_iter().zip(&self.out[at].rows) {
            outputs.push(self.headed(engine, row, index)?);
        }
        let chunk = self.out.swap_remove(at).rows;
        self.keep(engine, chunk, outputs);
        Ok(true)
    }

    /// Takes back all chunks that are with `satellite`: its answers to them will be ignored.
    pub fn take_back(&mut self, satellite: usize) {
        while let Some(at) = self.out.iter().position(|o| o.satellite == satellite) {
            let rows = self.out.swap_remove(at).rows;
            self.todo_tokens += rows.iter().map(|&i| self.rows[i].ids.len()).sum::<usize>();
            self.todo.get_or_insert_default().extend(rows.into_iter().rev());
        }
    }

    /// A row's outputs with their head, checked to be what was asked for.
    fn headed(&self, engine: &Engine<B>, row: share::AnswerRow, index: usize) -> Result<RowOutput> {
        let spec = engine.session.spec();
        let resolved = &self.resolved[self.of[index].1];
        let head = resolved.head.as_ref().filter(|_| self.want.logits);
        let tokens = self.rows[index].ids.len() + resolved.rows.virtual_tokens as usize;
        let labels = head.map(|h| h.labels as usize * if h.kind.per_token() { tokens } else { 1 });
        let fits = |values: &Option<Vec<f32>>, want: Option<usize>| values.as_ref().map(Vec::len) == want;
        let good = fits(&row.hidden, self.want.hidden.then_some(tokens * spec.hidden))
            && fits(&row.embedding, self.want.embedding.then_some(spec.embedding_width()))
            && fits(&row.logits, labels);
        if !good {
            return Err(unasked());
        }
        let logits = row.logits.zip(head).map(|(values, head)| Logits { values, head: head.clone() });
        Ok(RowOutput { hidden: row.hidden, embedding: row.embedding, logits })
    }
}

fn unasked() -> Error {
    Error::Program("a satellite answered something that it was not asked".into())
}
