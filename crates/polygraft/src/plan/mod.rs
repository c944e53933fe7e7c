//! Planning: a base and a set of composition shapes → a [`Program`].
//!
//! `encoder` lays out the skeleton that every row runs; `place` puts the steps of the patches where their sites are.

mod encoder;
mod heads;
mod place;
mod prenorm;

pub use encoder::plan;

use crate::compose::{Resolved, Stack};
use crate::program::{HeadKey, Purpose};
use std::collections::BTreeSet;

/// What compositions look like without their numbers. Batches whose unions are equal share a Program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Shape {
    /// Every patch that some row takes, by the table that serves it.
    pub patches: BTreeSet<Purpose>,
    /// Every head that some row ends in.
    pub heads: BTreeSet<HeadKey>,
    /// Copies of layers that some row runs in the place of the base's.
    pub stacks: BTreeSet<Stack>,
    /// Whether some row runs the base's own layers.
    pub own: bool,
}

impl Shape {
    /// The union over a batch's compositions.
    #[must_use]
    pub fn of<'a>(resolved: impl IntoIterator<Item = &'a Resolved>) -> Self {
        let mut out = Self::default();
        for r in resolved {
            out.patches.extend(r.placed.iter().map(crate::compose::Placed::purpose));
            out.patches.extend(r.unnormed.iter().map(|site| Purpose::Unnormed(*site)));
            out.heads.extend(r.head.as_ref().map(crate::model::HeadSpec::key));
            out.stacks.extend(r.stack.clone());
            out.own |= r.stack.is_none();
        }
        out
    }
}

/// Which outputs a call is for: what nobody asks for is not planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Want {
    /// Last hidden states.
    pub hidden: bool,
    /// Sentence embeddings.
    pub embedding: bool,
    /// Logits of whatever head each row has.
    pub logits: bool,
}
