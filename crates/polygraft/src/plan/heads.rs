//! Heads: one run of steps for each head *shape* in the batch, over the rows that end in it.

use super::place::{At, Builder};
use crate::ir::{LinearSite, NormSite};
use crate::model::{Activation, HeadKind, Pooling};
use crate::program::{BufferId, Extent, HeadKey, OutputKind, Purpose, Scope, StepKind};

pub(super) fn heads(b: &mut Builder<'_>, hidden: BufferId) {
    for key in b.shape.heads.iter().copied() {
        head(b, hidden, key);
    }
}

fn head(b: &mut Builder<'_>, hidden: BufferId, key: HeadKey) {
    let width = b.spec.hidden;
    let extent = if key.kind.per_token() { Extent::Tokens } else { Extent::Rows };
    let table = b.table(extent, Purpose::Head(key));
    let at = At { scope: Scope::Only(table), head: Some(key) };
    let first_token = |b: &mut Builder<'_>| {
        let out = b.buffer(Extent::Rows, width);
        b.step(StepKind::Pool { x: hidden, out, pooling: Pooling::Cls }, at.scope, None);
        out
    };
    let dense = |b: &mut Builder<'_>, site, x, function| {
        let y = b.buffer(extent, width);
        b.linear(site, x, y, at);
        b.step(StepKind::Activate { x: y, function }, at.scope, None);
        y
    };
    let x = match key.kind {
        HeadKind::PooledClassifier => {
            let x = first_token(b);
            dense(b, LinearSite::Pooler, x, Activation::Tanh)
        }
        HeadKind::DenseClassifier => {
            let x = first_token(b);
            dense(b, LinearSite::HeadDense, x, Activation::Tanh)
        }
        HeadKind::Tokens => hidden,
        HeadKind::MaskedLm => {
            let y = dense(b, LinearSite::HeadDense, hidden, b.spec.head_activation());
            b.norm(NormSite::Head, y, at);
            y
        }
    };
    let out = b.buffer(extent, key.labels as usize);
    b.linear(LinearSite::HeadOutput, x, out, at);
    b.output(OutputKind::Logits(key), out, at.scope);
}
