//! The skeleton of a post-norm encoder (BERT and most others), and the sentence pipeline after it.

use super::heads::heads;
use super::place::{At, Builder};
use super::{Shape, Want};
use crate::error::Result;
use crate::ir::{BlockSite, LayerLinear, LinearSite, NormSite};
use crate::model::{ModelSpec, SentenceStage};
use crate::program::{BufferId, Extent, OutputKind, Program, Scope, StepKind, check};

/// Plans the Program for `shape` on `spec`, leaving what `want` asks for. The Program has been checked.
///
/// # Errors
/// [`crate::Error::Program`] if the planner made a mistake.
pub fn plan(spec: &ModelSpec, shape: &Shape, want: Want) -> Result<Program> {
    let mut b = Builder::new(spec, shape);
    let hidden = encoder(&mut b);
    if want.hidden {
        b.output(OutputKind::Hidden, hidden, Scope::All);
    }
    if want.embedding {
        sentence(&mut b, hidden);
    }
    if want.logits {
        heads(&mut b, hidden);
    }
    let program = b.finish();
    check(&program, spec)?;
    Ok(program)
}

fn encoder(b: &mut Builder<'_>) -> BufferId {
    let spec = b.spec;
    let token = |b: &mut Builder<'_>, width| b.buffer(Extent::Tokens, width);
    let h = embeddings(b);
    let [q, k, v, context, branch] = [(); 5].map(|()| token(b, spec.hidden));
    let ffn = token(b, spec.ffn);
    let scale = 1.0 / ((spec.hidden / spec.heads) as f32).sqrt();
    for &layer in &spec.order {
        let site = |which| LinearSite::Layer(layer, which);
        b.linear(site(LayerLinear::Query), h, q, At::ENCODER);
        b.linear(site(LayerLinear::Key), h, k, At::ENCODER);
        b.linear(site(LayerLinear::Value), h, v, At::ENCODER);
        let kind = StepKind::Attention {
            q,
            k,
            v,
            out: context,
            heads: spec.heads,
            scale_bits: scale.to_bits(),
            prefix: b.prefixes(layer, h),
        };
        b.step(kind, Scope::All, None);
        b.linear(site(LayerLinear::AttentionOutput), context, branch, At::ENCODER);
        let (block, norm) = (BlockSite::Attention(layer), Some(NormSite::AfterAttention(layer)));
        b.block(block, branch, h, norm);
        b.join(block, branch, h, norm);
        b.linear(site(LayerLinear::FfnIn), h, ffn, At::ENCODER);
        b.step(StepKind::Activate { x: ffn, function: spec.activation }, Scope::All, None);
        b.linear(site(LayerLinear::FfnOut), ffn, branch, At::ENCODER);
        let (block, norm) = (BlockSite::Ffn(layer), Some(NormSite::AfterFfn(layer)));
        b.block(block, branch, h, norm);
        b.join(block, branch, h, norm);
        b.layer_output(layer, h);
    }
    h
}

/// Rows of the tables, normed, and projected to the hidden width where that is another one.
fn embeddings(b: &mut Builder<'_>) -> BufferId {
    let spec = b.spec;
    let x = b.buffer(Extent::Tokens, spec.embedding);
    let e = spec.embeddings;
    b.step(StepKind::Embed { out: x, word: e.word, position: e.position, token_type: e.token_type }, Scope::All, None);
    b.norm(NormSite::Embeddings, x, At::ENCODER);
    b.embeddings(x);
    if !spec.linears.contains_key(&LinearSite::Embedding) {
        return x;
    }
    let h = b.buffer(Extent::Tokens, spec.hidden);
    b.linear(LinearSite::Embedding, x, h, At::ENCODER);
    h
}

/// Pooling, the model's own modules, a final norm (an embedding is always L2-normalised), then the offsets.
fn sentence(b: &mut Builder<'_>, hidden: BufferId) {
    let spec = b.spec;
    let mut x = b.buffer(Extent::Rows, spec.hidden);
    b.step(StepKind::Pool { x: hidden, out: x, pooling: spec.sentence.pooling }, Scope::All, None);
    let mut normalized = false;
    for stage in &spec.sentence.stages {
        match *stage {
            SentenceStage::Dense { index, activation } => {
                let site = LinearSite::Sentence(index);
                let width = spec.linear_shape(site).map_or(spec.hidden, |(rows, _)| rows);
                let y = b.buffer(Extent::Rows, width);
                b.linear(site, x, y, At::ENCODER);
                b.step(StepKind::Activate { x: y, function: activation }, Scope::All, None);
                x = y;
                normalized = false;
            }
            SentenceStage::Normalize => {
                b.step(StepKind::Normalize { x }, Scope::All, None);
                normalized = true;
            }
        }
    }
    if !normalized {
        b.step(StepKind::Normalize { x }, Scope::All, None);
    }
    b.offsets(x);
    b.output(OutputKind::Embedding, x, Scope::All);
}
