//! What is asked of a resolved composition: places among its patches, what it does to rows and embeddings.

use super::{Placed, Resolved, SplitPart};
use crate::ir::{Op, Site};
use crate::model::{ModelSpec, Side};
use crate::program::Purpose;

impl Placed {
    /// The table that this patch goes into.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        Purpose::Patches { site: self.site, op: self.payload.op.kind(), ordinal: self.ordinal, head: self.head }
    }
}

impl Resolved {
    /// Gives each patch its place among those of its kind at its site. Parts of a split do not stand in each other's way.
    pub(crate) fn number(&mut self) {
        for index in 0..self.placed.len() {
            let (before, here) = self.placed.split_at(index);
            let p = &here[0];
            let same = |q: &&Placed| (q.site, q.payload.op.kind(), q.head) == (p.site, p.payload.op.kind(), p.head);
            let meets = before.iter().filter(same).filter(|q| !SplitPart::apart(&q.part, &p.part));
            let ordinal = meets.map(|q| q.ordinal + 1).max().unwrap_or(0);
            self.placed[index].ordinal = ordinal;
        }
    }

    /// Tokens to which a text is cut: what the base takes, less the places that adapters need in a row.
    #[must_use]
    pub fn max_tokens(&self, spec: &ModelSpec) -> usize {
        spec.max_tokens().min(spec.max_positions.saturating_sub(self.rows.places()))
    }

    /// Whether a row has other embeddings of relative positions than the base's table.
    #[must_use]
    pub fn changes_positions(&self) -> bool {
        self.placed.iter().any(|p| p.site == Site::Relative)
    }

    /// Whether a row has other embeddings of words or positions than the base's tables.
    #[must_use]
    pub fn rewords(&self) -> bool {
        self.placed.iter().any(|p| matches!(p.payload.op, Op::Rewording(_)))
    }

    /// The composition without its offsets of the pooled embedding: what decides the expensive part of an embedding.
    #[must_use]
    pub fn backbone(&self) -> Self {
        let placed = self.placed.iter().filter(|p| p.site != Site::Pooled).cloned().collect();
        Self { placed, ..self.clone() }
    }

    /// Moves a backbone's embedding of a text on `side` by this composition's offsets, by the definition of the steps.
    pub fn shift(&self, embedding: &mut [f32], side: Side) {
        let mut moved = false;
        for placed in self.placed.iter().filter(|p| p.site == Site::Pooled) {
            if let Op::Offset(offset) = &placed.payload.op {
                crate::steps::offset(embedding, offset.on(side), placed.scale);
                moved = true;
            }
        }
        if moved {
            crate::steps::normalize(embedding);
        }
    }
}
