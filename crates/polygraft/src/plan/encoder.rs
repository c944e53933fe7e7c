//! The skeleton of an encoder: embeddings, attention and feed-forward parts, relative positions; the layers of a post-norm
//! encoder (BERT and most others); and the sentence pipeline after it.

use super::heads::heads;
use super::place::{At, Builder};
use super::prenorm;
use super::{Shape, Want};
use crate::error::Result;
use crate::ir::{BlockSite, LayerLinear, LinearSite, NormSite, Site};
use crate::model::{ModelSpec, RelativeTerms, SentenceStage};
use crate::program::{BufferId, Extent, OpKind, OutputKind, Program, Purpose, RelativeBuffers, Scope, StepKind, check};

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

/// The buffers of a layer, which all layers share.
pub(super) struct Buffers {
    /// The residual stream, `[T, H]`.
    pub(super) h: BufferId,
    qkv: [BufferId; 3],
    context: BufferId,
    /// What a sub-block makes, `[T, H]`.
    pub(super) branch: BufferId,
    ffn: BufferId,
    /// Query, key and value in one, where they are.
    fused: Option<BufferId>,
    /// The feed-forward layer's two halves, where it is gated.
    halves: Option<BufferId>,
    relative: Option<Positions>,
}

/// Buffers of relative positions.
struct Positions {
    /// The embeddings, normed.
    rows: BufferId,
    /// What attention reads of them.
    terms: RelativeBuffers,
}

fn encoder(b: &mut Builder<'_>) -> BufferId {
    let spec = b.spec;
    let h = embeddings(b);
    let convolution = convolution(b, h);
    let token = |b: &mut Builder<'_>, width| b.buffer(Extent::Tokens, width);
    let fused = spec.linears.keys().any(|site| matches!(site, LinearSite::Layer(_, LayerLinear::Qkv)));
    let buffers = Buffers {
        h,
        qkv: [(); 3].map(|()| token(b, spec.hidden)),
        context: token(b, spec.hidden),
        branch: token(b, spec.hidden),
        ffn: token(b, spec.ffn),
        fused: fused.then(|| token(b, 3 * spec.hidden)),
        halves: spec.gated.then(|| token(b, 2 * spec.ffn)),
        relative: positions(b),
    };
    let copies = b.shape.stacks.iter().map(|stack| (stack.first, stack.layers().collect()));
    let mut stacks: Vec<(u16, Vec<u16>)> = copies.collect();
    if b.shape.own || stacks.is_empty() {
        stacks.push((0, spec.order.clone()));
    }
    if let [(_, order)] = &stacks[..] {
        layers(b, &buffers, order, convolution);
    } else {
        // All rows run all of the stacks, each from the embeddings on, and keep what their own made: calls that mix them
        // are rare, and no kernel has to know of them.
        let [start, done] = [(); 2].map(|()| token(b, spec.hidden));
        b.step(StepKind::Copy { x: h, first: 0, out: start }, Scope::All, None);
        for (at, (first, order)) in stacks.iter().enumerate() {
            if at > 0 {
                b.step(StepKind::Copy { x: start, first: 0, out: h }, Scope::All, None);
            }
            layers(b, &buffers, order, convolution);
            let own = b.table(Extent::Tokens, Purpose::Stack(*first));
            let scope = if at == 0 { Scope::All } else { Scope::Only(own) };
            b.step(StepKind::Copy { x: h, first: 0, out: done }, scope, None);
        }
        b.step(StepKind::Copy { x: done, first: 0, out: h }, Scope::All, None);
    }
    if spec.prenorm {
        b.norm(NormSite::Final, h, At::ENCODER);
    }
    h
}

/// The layers of `order`, one after the other, on the residual stream. `convolution` joins the first one's output.
fn layers(b: &mut Builder<'_>, buffers: &Buffers, order: &[u16], convolution: Option<BufferId>) {
    let h = buffers.h;
    for (at, &layer) in order.iter().enumerate() {
        b.turn = order[..at].iter().filter(|l| **l == layer).count() as u16;
        if b.spec.prenorm {
            prenorm::layer(b, buffers, layer);
        } else {
            postnorm(b, buffers, layer);
        }
        if let Some(branch) = convolution.filter(|_| at == 0) {
            b.step(StepKind::Add { a: h, b: branch, out: h }, Scope::All, None);
            b.norm(NormSite::Convolution, h, At::ENCODER);
        }
        b.layer_output(layer, h);
    }
}

/// A norm after each sub-block and its residual.
fn postnorm(b: &mut Builder<'_>, buffers: &Buffers, layer: u16) {
    let (h, branch) = (buffers.h, buffers.branch);
    attention(b, buffers, layer, h);
    let (block, norm) = (BlockSite::Attention(layer), Some(NormSite::AfterAttention(layer)));
    b.block(block, branch, h, norm);
    feed_forward(b, buffers, layer, h);
    let (block, norm) = (BlockSite::Ffn(layer), Some(NormSite::AfterFfn(layer)));
    b.block(block, branch, h, norm);
}

/// Attention of `x` into the branch, its output projection included.
pub(super) fn attention(b: &mut Builder<'_>, buffers: &Buffers, layer: u16, x: BufferId) {
    let (spec, [q, k, v], out) = (b.spec, buffers.qkv, buffers.context);
    let site = |which| LinearSite::Layer(layer, which);
    let places = spec.places.get(usize::from(layer)).copied().unwrap_or_default();
    if let Some(fused) = buffers.fused {
        b.linear(site(LayerLinear::Qkv), x, fused, At::ENCODER);
        for (i, out) in [q, k, v].into_iter().enumerate() {
            let first = i * spec.hidden;
            let kind = match places.rotary {
                Some(theta) if i < 2 => {
                    StepKind::Rotate { x: fused, first, out, heads: spec.heads, theta_bits: theta.to_bits() }
                }
                _ => StepKind::Copy { x: fused, first, out },
            };
            b.step(kind, Scope::All, None);
        }
    } else {
        b.linear(site(LayerLinear::Query), x, q, At::ENCODER);
        b.linear(site(LayerLinear::Key), x, k, At::ENCODER);
        b.linear(site(LayerLinear::Value), x, v, At::ENCODER);
    }
    let kind = StepKind::Attention {
        q,
        k,
        v,
        out,
        heads: spec.heads,
        scale_bits: spec.attention_scale.to_bits(),
        window: places.window,
        relative: buffers.relative.as_ref().map(|positions| project(b, positions, layer)),
        prefix: b.prefixes(layer, x),
    };
    b.step(kind, Scope::All, None);
    b.linear(site(LayerLinear::AttentionOutput), out, buffers.branch, At::ENCODER);
}

/// The feed-forward part of `x` into the branch.
pub(super) fn feed_forward(b: &mut Builder<'_>, buffers: &Buffers, layer: u16, x: BufferId) {
    let (function, out) = (b.spec.activation, buffers.ffn);
    let [up, down] = [LayerLinear::FfnIn, LayerLinear::FfnOut].map(|which| LinearSite::Layer(layer, which));
    if let Some(halves) = buffers.halves {
        b.linear(up, x, halves, At::ENCODER);
        b.step(StepKind::Gate { x: halves, out, function }, Scope::All, None);
    } else {
        b.linear(up, x, out, At::ENCODER);
        b.step(StepKind::Activate { x: out, function }, Scope::All, None);
    }
    b.linear(down, out, buffers.branch, At::ENCODER);
}

/// The embeddings of relative positions, for all layers.
fn positions(b: &mut Builder<'_>) -> Option<Positions> {
    let relative = b.spec.relative?;
    let rows = b.buffer(Extent::Positions, b.spec.weight(relative.table).cols);
    // Changed rows are in what the step gives; the table says whose they are, and gives them blocks of their own.
    b.tables(Site::Relative, OpKind::Rewording, At::ENCODER, Extent::Positions);
    b.step(StepKind::Positions { out: rows, table: relative.table }, Scope::All, None);
    let terms = match relative.terms {
        RelativeTerms::Bias => RelativeBuffers { bias: Some(rows), keys: None, queries: None },
        RelativeTerms::Projected { keys, queries, .. } => {
            if b.spec.norms.contains_key(&NormSite::Positions) {
                b.norm(NormSite::Positions, rows, At::ENCODER);
            }
            let [keys, queries] = [keys, queries].map(|on| on.then(|| b.buffer(Extent::Positions, b.spec.hidden)));
            RelativeBuffers { bias: None, keys, queries }
        }
    };
    Some(Positions { rows, terms })
}

/// The positions' keys and queries of `layer`, by projections of their own or by those of the tokens, adapters included.
fn project(b: &mut Builder<'_>, positions: &Positions, layer: u16) -> RelativeBuffers {
    let shared = matches!(b.spec.relative.map(|r| r.terms), Some(RelativeTerms::Projected { shared: true, .. }));
    let [key, query] = if shared {
        [LayerLinear::Key, LayerLinear::Query]
    } else {
        [LayerLinear::PositionKey, LayerLinear::PositionQuery]
    };
    for (which, out) in [(key, positions.terms.keys), (query, positions.terms.queries)] {
        if let Some(out) = out {
            b.linear(LinearSite::Layer(layer, which), positions.rows, out, At::ENCODER);
        }
    }
    positions.terms
}

/// The convolution over the embeddings, which joins the first layer's output.
fn convolution(b: &mut Builder<'_>, h: BufferId) -> Option<BufferId> {
    let spec = b.spec;
    let function = spec.convolution?;
    let (_, wide) = spec.linear_shape(LinearSite::Convolution)?;
    let (x, out) = (b.buffer(Extent::Tokens, wide), b.buffer(Extent::Tokens, spec.hidden));
    b.step(StepKind::Unfold { x: h, out: x }, Scope::All, None);
    b.linear(LinearSite::Convolution, x, out, At::ENCODER);
    b.step(StepKind::Activate { x: out, function }, Scope::All, None);
    Some(out)
}

/// Rows of the tables, normed, and projected to the hidden width where that is another one.
fn embeddings(b: &mut Builder<'_>) -> BufferId {
    let spec = b.spec;
    let x = b.buffer(Extent::Tokens, spec.embedding);
    let e = spec.embeddings;
    b.step(StepKind::Embed { out: x, word: e.word, position: e.position, token_type: e.token_type }, Scope::All, None);
    if let Some(image) = spec.image {
        patches(b, x, image.width());
    }
    let norm = spec.norms.get(&NormSite::Embeddings).map(|n| spec.weight(n.gamma).cols);
    // ALBERT and ELECTRA norm what they project, DeBERTa what it has projected.
    if norm == Some(spec.embedding) {
        b.norm(NormSite::Embeddings, x, At::ENCODER);
    }
    if !spec.linears.contains_key(&LinearSite::Embedding) {
        b.embeddings(x);
        return x;
    }
    let h = b.buffer(Extent::Tokens, spec.hidden);
    if norm == Some(spec.embedding) {
        b.embeddings(x);
    }
    b.linear(LinearSite::Embedding, x, h, At::ENCODER);
    if norm.is_some_and(|width| width != spec.embedding) {
        b.norm(NormSite::Embeddings, h, At::ENCODER);
        b.embeddings(h);
    }
    h
}

/// The projections of an image's patches join their positions in `x`; the class token has no part in it.
fn patches(b: &mut Builder<'_>, x: BufferId, width: usize) {
    let (pixels, projected) = (b.buffer(Extent::Tokens, width), b.buffer(Extent::Tokens, b.spec.hidden));
    b.step(StepKind::Patches { out: pixels }, Scope::All, None);
    b.linear(LinearSite::Patches, pixels, projected, At::ENCODER);
    let own = Scope::Only(b.table(Extent::Tokens, Purpose::Image));
    b.step(StepKind::Add { a: x, b: projected, out: x }, own, None);
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
