//! What a reader makes of what it has read: patches, and among them changes of weights by the way they meet others.

use super::change::RowChange;
use super::reading::{Module, Reading, Target};
use crate::change::Change;
use polygraft::ir::{Layer, LowRank, Meeting, Op, Patch, Reweight, Rewording, Site};
use polygraft::tensor::Matrix;

impl Reading<'_> {
    /// Adds a patch.
    pub(super) fn patch(&mut self, site: Site, op: Op) {
        self.patches.push(Patch { site, op });
    }

    /// Adds a low-rank update: `a` is `[rank, cols]`, `b` `[rows, rank]`, `bias` `[rows]`.
    pub(super) fn low_rank(&mut self, at: &Target, a: Vec<f32>, b: Vec<f32>, bias: Option<Vec<f32>>, scale: f32) {
        let rank = a.len() / at.cols.max(1);
        let pair = Matrix::dense(rank, at.cols, a).zip(Matrix::dense(at.rows, rank, b));
        if let Some((a, b)) = pair {
            self.patch(Site::Linear(at.site), Op::LowRank(LowRank { a, b, bias, scale }));
        }
    }

    /// Adds a change of weights whose difference adds up with others'. `held`: the floats that `apply` keeps.
    pub(super) fn adds<F>(&mut self, at: &Target, held: usize, apply: F)
    where
        F: Fn(&mut Layer) -> Result<(), String> + Send + Sync + 'static,
    {
        self.change(at, held, (Meeting::Adds, true), move |layer, _| apply(layer));
    }

    /// Adds a change of the bias alone, which adds up with others'.
    pub(super) fn adds_bias<F>(&mut self, at: &Target, held: usize, apply: F)
    where
        F: Fn(&mut Layer) -> Result<(), String> + Send + Sync + 'static,
    {
        self.change(at, held, (Meeting::Adds, false), move |layer, _| apply(layer));
    }

    /// Adds a change of weights that is applied to whatever the changes before it left.
    pub(super) fn follows<F>(&mut self, at: &Target, held: usize, apply: F)
    where
        F: Fn(&mut Layer) -> Result<(), String> + Send + Sync + 'static,
    {
        self.change(at, held, (Meeting::Follows, true), move |layer, _| apply(layer));
    }

    /// As [`Reading::follows`], for a change that depends on the base's own layer too.
    pub(super) fn follows_over<F>(&mut self, at: &Target, held: usize, apply: F)
    where
        F: Fn(&mut Layer, &Layer) -> Result<(), String> + Send + Sync + 'static,
    {
        self.change(at, held, (Meeting::Follows, true), apply);
    }

    /// As [`Reading::follows`], the other way round where there are several ([`Meeting::Precedes`]).
    pub(super) fn precedes<F>(&mut self, at: &Target, held: usize, apply: F)
    where
        F: Fn(&mut Layer) -> Result<(), String> + Send + Sync + 'static,
    {
        self.change(at, held, (Meeting::Precedes, true), move |layer, _| apply(layer));
    }

    /// Adds a change of an embedding table, as a function of one of its rows. `held`: the floats that `apply` keeps.
    pub(super) fn rewords<F>(&mut self, at: &Module, held: usize, meeting: Meeting, apply: F)
    where
        F: Fn(u32, &mut [f32]) + Send + Sync + 'static,
    {
        let (family, shape) = (self.family.name, (at.rows, at.cols));
        self.patch(at.site, Op::Rewording(Rewording::new(RowChange { family, shape, meeting, held, apply })));
    }

    fn change<F>(&mut self, at: &Target, held: usize, (meeting, changes_weight): (Meeting, bool), apply: F)
    where
        F: Fn(&mut Layer, &Layer) -> Result<(), String> + Send + Sync + 'static,
    {
        let shape = (at.rows, at.cols);
        let change = Change { family: self.family.name, shape, meeting, changes_weight, held, apply };
        self.patch(Site::Linear(at.site), Op::Reweight(Reweight::new(change)));
    }
}
