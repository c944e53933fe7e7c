//! Heads: one run of steps for each head *shape* in the batch, over the rows that end in it.

use super::place::{At, Builder};
use crate::ir::{LinearSite, NormSite, Site};
use crate::model::{Activation, HeadInput, Pooling};
use crate::program::{BufferId, Extent, HeadKey, OutputKind, Purpose, Scope, StepKind};

pub(super) fn heads(b: &mut Builder<'_>, hidden: BufferId) {
    for key in b.shape.heads.iter().copied() {
        head(b, hidden, key);
    }
}

fn head(b: &mut Builder<'_>, hidden: BufferId, key: HeadKey) {
    let extent = if key.kind.per_token() { Extent::Tokens } else { Extent::Rows };
    let table = b.table(extent, Purpose::Head(key));
    let at = At { scope: Scope::Only(table), head: Some(key) };
    let pool = |b: &mut Builder<'_>, pooling| {
        let out = b.buffer(Extent::Rows, b.spec.hidden);
        b.step(StepKind::Pool { x: hidden, out, pooling }, at.scope, None);
        out
    };
    let dense = |b: &mut Builder<'_>, site, x, width, function| {
        let y = b.buffer(extent, width);
        b.linear(site, x, y, at);
        if function != Activation::Identity {
            b.step(StepKind::Activate { x: y, function }, at.scope, None);
        }
        y
    };
    let mut x = match key.kind.input {
        HeadInput::First => pool(b, Pooling::Cls),
        HeadInput::Mean => pool(b, Pooling::Mean),
        HeadInput::Pooled(function) => {
            let x = pool(b, Pooling::Cls);
            dense(b, LinearSite::Pooler, x, b.spec.hidden, function)
        }
        HeadInput::Tokens => hidden,
    };
    for i in 0..key.kind.hidden {
        x = dense(b, LinearSite::HeadDense(i), x, key.kind.width as usize, key.kind.activation);
        if key.kind.norm {
            b.norm(NormSite::HeadDense(i), x, at);
        }
    }
    if key.kind.per_token() && x != hidden {
        b.couple(Site::Vocabulary, x, at);
    }
    let out = b.buffer(extent, key.labels as usize);
    b.linear(LinearSite::HeadOutput, x, out, at);
    b.output(OutputKind::Logits(key), out, at.scope);
}
