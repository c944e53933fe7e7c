//! Which tokens of a row a part of a `split` takes.

use super::Share;
use std::ops::Range;
use std::sync::Arc;

/// One part of one split; a nested split is a list of them, outermost first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SplitPart {
    /// All parts of the split, in order.
    pub shares: Arc<[Share]>,
    /// Which one.
    pub index: usize,
}

impl SplitPart {
    /// Whether a token of `a` is never one of `b`: they part at some split.
    #[must_use]
    pub fn apart(a: &[Self], b: &[Self]) -> bool {
        let parting = a.iter().zip(b).find(|(a, b)| a != b);
        parting.is_some_and(|(a, b)| Arc::ptr_eq(&a.shares, &b.shares) && a.index != b.index)
    }

    /// Its tokens among `len`, whose ids are `ids` as far as they have any; `separator` ends the first text.
    ///
    /// # Errors
    /// In plain words, when the row is too short, too long, or has no separator.
    pub fn range(&self, len: usize, ids: &[u32], separator: u32) -> Result<Range<usize>, String> {
        if self.shares.contains(&Share::Segment) {
            let at = ids.iter().position(|id| *id == separator);
            let at = at.ok_or("it has no separator token, after which the second part would begin")? + 1;
            return match (self.shares.len(), self.index) {
                (2, 0) => Ok(0..at),
                (2, _) => Ok(at..len),
                (n, _) => Err(format!("{n} parts without numbers of tokens; a split after the separator has two")),
            };
        }
        let tokens = |share: &Share| if let Share::Tokens(n) = share { *n as usize } else { 0 };
        let fixed: usize = self.shares.iter().map(tokens).sum();
        let open = self.shares.iter().filter(|s| **s == Share::Rest).count();
        if fixed > len || (open == 0 && fixed != len) || open > 1 {
            return Err(format!("the parts take {fixed} tokens and the row has {len}"));
        }
        let size = |share: &Share| if *share == Share::Rest { len - fixed } else { tokens(share) };
        let start: usize = self.shares[..self.index].iter().map(size).sum();
        Ok(start..start + size(&self.shares[self.index]))
    }
}
