//! Whole rows computed elsewhere: what crosses to a satellite and back, as bytes.
//!
//! One engine *owns* the model: tokenizer, tables, adapters, queue. A [`Satellite`] has the layers only. The owner
//! sends it [`Parcel`]s: rows with their embeddings already gathered, what each row takes, and the payloads that this
//! satellite has not seen yet; it sends [`Answer`]s back. Nothing is shared but bytes, so that a satellite may be a
//! Worker on a page that may not share memory. Names of adapters mean nothing to a satellite: a payload is known by its
//! identity, is sent before the first row that takes it, and is forgotten when the owner says so.
//!
//! A row's numbers are the same there as here, bit for bit: both run the same Program on the same backend.

mod numbers;
mod patches;
mod satellite;
mod wire;

pub use satellite::Satellite;

use crate::backend::Precision;
use crate::batch::Row;
use crate::compose::Resolved;
use crate::error::{Error, Result};
use crate::ir::{Payload, PayloadId};
use crate::model::ModelSpec;
use crate::plan::Want;
use crate::session::RowOutput;
use crate::tensor::{Matrix, Storage};
use std::sync::Arc;
use wire::{Reader, Writer};

/// Both sides are of one build; this catches a page that mixes two.
const VERSION: u32 = 1;

/// Work for a satellite.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// The owner's number for it.
    pub ticket: u32,
    /// Payloads that will not come again.
    pub forget: Vec<PayloadId>,
    /// Payloads that are new to this satellite.
    pub payloads: Vec<Arc<Payload>>,
    /// What is asked of the rows.
    pub want: Want,
    /// How activations are computed.
    pub precision: Precision,
    /// What rows take. Their payloads are sent by identity.
    pub resolved: Vec<Resolved>,
    /// `of[i]` is what row `i` takes.
    pub of: Vec<usize>,
    /// The rows.
    pub rows: Vec<Row>,
    /// [`crate::Session::embed`] of the rows, `[tokens, hidden]`.
    pub embedded: Vec<f32>,
}

/// What a parcel's rows gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The parcel's.
    pub ticket: u32,
    /// In the order of the parcel. Logits come without their head, which the owner knows.
    pub rows: Vec<AnswerRow>,
}

/// One row's outputs, as far as they were asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnswerRow {
    /// `[tokens, hidden]`.
    pub hidden: Option<Vec<f32>>,
    /// `[embedding width]`.
    pub embedding: Option<Vec<f32>>,
    /// `[labels]`, or `[tokens, labels]`.
    pub logits: Option<Vec<f32>>,
}

/// Stands for a table that a satellite does not hold: no rows of `cols` numbers. A call that read it would fail.
///
/// # Panics
/// Never: a matrix without rows fits any width.
#[must_use]
#[allow(clippy::expect_used, reason = "a matrix without rows is always whole")]
pub fn absent(cols: usize) -> Matrix {
    Matrix::new(0, cols, Storage::F32(Vec::new())).expect("no rows, no numbers")
}

/// An op's numbers, as they would cross.
#[must_use]
pub(crate) fn op_bytes(op: &crate::ir::Op) -> Vec<u8> {
    let mut w = Writer::default();
    patches::write_op(&mut w, op);
    w.finish()
}

/// Whether a satellite can give what is wanted: a head that is tied to the word table stays with the owner.
#[must_use]
pub fn fits(spec: &ModelSpec, want: Want) -> bool {
    !want.logits || spec.linears.values().all(|l| spec.embeddings.ids().all(|table| table != l.weight))
}

impl Parcel {
    /// As it crosses.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u32(VERSION);
        w.u32(self.ticket);
        w.list(&self.forget, |w, id| w.u64(id.0));
        w.list(&self.payloads, |w, payload| {
            w.u64(payload.id.0);
            patches::write_op(w, &payload.op);
        });
        let Want { hidden, embedding, logits } = self.want;
        [hidden, embedding, logits, self.precision == Precision::Exact].into_iter().for_each(|flag| w.flag(flag));
        w.list(&self.resolved, patches::write_resolved);
        w.list(&self.of, |w, &of| w.size(of));
        w.list(&self.rows, |w, row| {
            w.u32s(&row.ids);
            w.u32s(&row.token_types);
            w.f32s(&row.pixels);
        });
        w.f32s(&self.embedded);
        w.finish()
    }

    /// Reads what crossed. New payloads join `known`, forgotten ones leave it; compositions point into it.
    ///
    /// # Errors
    /// Bytes that are no parcel; a payload that was never sent.
    fn read(bytes: &[u8], known: &mut Vec<Arc<Payload>>) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let ticket = header(&mut r)?;
        let forget = r.list(8, |r| Ok(PayloadId(r.u64()?)))?;
        known.retain(|p| !forget.contains(&p.id));
        let payloads = r.list(9, |r| {
            let id = PayloadId(r.u64()?);
            let payload = Arc::new(Payload { id, op: patches::read_op(r, known)? });
            known.retain(|p| p.id != id);
            known.push(payload.clone());
            Ok(payload)
        })?;
        let want = Want { hidden: r.flag()?, embedding: r.flag()?, logits: r.flag()? };
        let precision = if r.flag()? { Precision::Exact } else { Precision::Fast };
        let resolved = r.list(5, |r| patches::read_resolved(r, known))?;
        let of = r.list(4, Reader::size)?;
        let rows = r.list(12, |r| Ok(Row { ids: r.u32s()?, token_types: r.u32s()?, pixels: r.f32s()? }))?;
        let embedded = r.f32s()?;
        r.end()?;
        Ok(Self { ticket, forget, payloads, want, precision, resolved, of, rows, embedded })
    }
}

impl Answer {
    fn new(ticket: u32, rows: Vec<RowOutput>) -> Self {
        let row =
            |r: RowOutput| AnswerRow { hidden: r.hidden, embedding: r.embedding, logits: r.logits.map(|l| l.values) };
        Self { ticket, rows: rows.into_iter().map(row).collect() }
    }

    /// As it crosses.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u32(VERSION);
        w.u32(self.ticket);
        w.list(&self.rows, |w, row| {
            [&row.hidden, &row.embedding, &row.logits].into_iter().for_each(|v| w.option(v.as_ref(), |w, v| w.f32s(v)));
        });
        w.finish()
    }

    /// Reads what crossed.
    ///
    /// # Errors
    /// Bytes that are no answer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let ticket = header(&mut r)?;
        let rows = r.list(3, |r| {
            let [hidden, embedding, logits] =
                [r.option(Reader::f32s)?, r.option(Reader::f32s)?, r.option(Reader::f32s)?];
            Ok(AnswerRow { hidden, embedding, logits })
        })?;
        r.end()?;
        Ok(Self { ticket, rows })
    }
}

/// The version, checked, and the ticket.
fn header(r: &mut Reader<'_>) -> Result<u32> {
    let found = r.u32()?;
    if found != VERSION {
        return Err(Error::Program(format!("a parcel of version {found} came to version {VERSION}")));
    }
    r.u32()
}
