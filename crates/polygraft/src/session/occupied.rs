//! What the loaded adapters occupy in memory.

use super::Session;
use crate::backend::Backend;
use crate::compose::Grafted;
use crate::ir::Payload;
use serde::Serialize;
use std::mem::size_of;

/// Strong and weak counts in front of what an `Arc` holds.
const COUNTS: usize = 2 * size_of::<usize>();

/// Bytes that an adapter occupies: its numbers, and the structures that hold them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Occupied {
    /// The name under which it is loaded.
    pub adapter: String,
    /// In the session: the numbers as they are stored.
    pub session: usize,
    /// In the backend, over that: numbers in an order of its own, on a GPU all that a call has used. An adapter that no
    /// call has used yet has nothing there.
    pub backend: usize,
}

impl<B: Backend> Session<B> {
    /// What every loaded adapter occupies, by name. Layers that a composition changed are apart:
    /// [`Session::variants_bytes`].
    #[must_use]
    pub fn occupied(&self) -> Vec<Occupied> {
        let of = |(name, grafted): (&String, &std::sync::Arc<Grafted>)| Occupied {
            adapter: name.clone(),
            session: size_of::<String>() + name.len() + COUNTS + bytes(grafted),
            backend: grafted.patches.iter().map(|(_, payload)| self.backend.payload_bytes(payload.id)).sum(),
        };
        self.adapters.iter().map(of).collect()
    }
}

fn bytes(grafted: &Grafted) -> usize {
    let text = |s: &Option<String>| s.as_ref().map_or(0, String::len);
    let fuses = grafted.fuses.iter().flatten().map(|name| size_of::<String>() + name.len());
    let patches = grafted.patches.iter().map(|(_, payload)| COUNTS + size_of::<Payload>() + payload.op.bytes());
    let list = size_of_val(grafted.patches.as_slice());
    size_of::<Grafted>() + list + patches.sum::<usize>() + fuses.sum::<usize>() + text(&grafted.made_under)
}
