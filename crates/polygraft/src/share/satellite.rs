//! The far side: layers without tables, tokenizer or names.

use super::{Answer, Parcel};
use crate::backend::{Backend, Poll};
use crate::compose::Resolved;
use crate::error::Result;
use crate::ir::Payload;
use crate::session::{Job, Session};
use std::collections::VecDeque;
use std::sync::Arc;

/// Computes the rows that it is sent, parcel by parcel.
pub struct Satellite<B: Backend> {
    session: Session<B>,
    known: Vec<Arc<Payload>>,
    queue: VecDeque<Parcel>,
    running: Option<(u32, Job<B>)>,
}

impl<B: Backend> Satellite<B> {
    /// A satellite over a session whose backend holds the base's layers, and [`super::absent`] for its tables.
    #[must_use]
    pub fn new(session: Session<B>) -> Self {
        Self { session, known: Vec::new(), queue: VecDeque::new(), running: None }
    }

    /// Takes a parcel; it waits for its turn. Its payloads are known from here on, whatever becomes of its rows.
    ///
    /// # Errors
    /// Bytes that are no parcel.
    pub fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let parcel = Parcel::read(bytes, &mut self.known)?;
        parcel.forget.iter().for_each(|id| self.session.forget(*id));
        self.queue.push_back(parcel);
        Ok(())
    }

    /// Drops the parcels that are waiting or running.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.running = None;
    }

    /// Whether there is anything to compute.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.queue.is_empty()
    }

    /// Bytes that the backend holds for layers and packed payloads.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.session.backend().memory()
    }

    /// Payloads that are held for the rows to come.
    #[must_use]
    pub fn payloads(&self) -> usize {
        self.known.len()
    }

    /// Computes until a parcel is done, whose answer it gives, or until `pause` says so.
    ///
    /// # Errors
    /// When the parcel at work fails; it is dropped.
    pub fn advance(&mut self, pause: &mut dyn FnMut() -> bool) -> Result<Option<Answer>> {
        if self.running.is_none() {
            let Some(parcel) = self.queue.pop_front() else { return Ok(None) };
            let Parcel { ticket, rows, of, resolved, want, precision, embedded, .. } = parcel;
            let resolved: Vec<&Resolved> = resolved.iter().collect();
            let job = self.session.begin_embedded(&rows, &of, &resolved, want, precision, Some(&embedded))?;
            self.running = Some((ticket, job));
        }
        let Some((ticket, mut job)) = self.running.take() else { return Ok(None) };
        if self.session.advance(&mut job, pause)? != Poll::Done {
            self.running = Some((ticket, job));
            return Ok(None);
        }
        Ok(Some(Answer::new(ticket, self.session.finish(&job)?)))
    }
}
