//! Which runs of canonical steps one kernel makes. The Program stays as it is; this is the backend's private reading.

use polygraft::model::Activation;
use polygraft::program::{BufferId, Program, Step, StepKind};
use std::ops::Range;

/// A run of steps that is made together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// One step.
    One,
    /// `Linear` and then the pointwise function of all that it made.
    LinearActivate(Activation),
    /// `Add` into a buffer and then the norm of it; the buffer that is added.
    AddNorm(BufferId),
}

/// The fusions: each looks at what comes next and says whether it covers it, and with how many steps.
const FUSIONS: &[Fusion] = &[linear_activate, add_norm];

type Fusion = fn(&[Step]) -> Option<(Group, usize)>;

fn linear_activate(steps: &[Step]) -> Option<(Group, usize)> {
    let [a, b, ..] = steps else { return None };
    let (StepKind::Linear { out, .. }, StepKind::Activate { x, function }) = (a.kind, b.kind) else { return None };
    (out == x && a.scope == b.scope).then_some((Group::LinearActivate(function), 2))
}

fn add_norm(steps: &[Step]) -> Option<(Group, usize)> {
    let [first, second, ..] = steps else { return None };
    let StepKind::Add { a, b, out } = first.kind else { return None };
    let StepKind::LayerNorm { x, out: normed, .. } = second.kind else { return None };
    let other = if a == out { b } else { a };
    let fits = (a == out || b == out) && a != b && x == out && normed == out && first.scope == second.scope;
    fits.then_some((Group::AddNorm(other), 2))
}

/// The Program as groups, and the steps that each covers.
pub(crate) fn schedule(program: &Program) -> Vec<(Range<usize>, Group)> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < program.steps.len() {
        let (group, steps) = FUSIONS.iter().find_map(|fusion| fusion(&program.steps[at..])).unwrap_or((Group::One, 1));
        out.push((at..at + steps, group));
        at += steps;
    }
    out
}
