//! The layers of a pre-norm encoder (ModernBERT, ViT): each sub-block reads a norm of the residual stream, and what it
//! makes is added to the stream as it was.

use super::encoder::{Buffers, attention, feed_forward};
use super::place::{At, Builder};
use crate::ir::{BlockSite, NormSite};
use crate::program::{BufferId, Extent};

pub(super) fn layer(b: &mut Builder<'_>, buffers: &Buffers, layer: u16) {
    let (h, branch) = (buffers.h, buffers.branch);
    let x = normed(b, h, NormSite::BeforeAttention(layer));
    attention(b, buffers, layer, x);
    b.prenorm_block(BlockSite::Attention(layer), branch, h, x);
    let x = normed(b, h, NormSite::BeforeFfn(layer));
    feed_forward(b, buffers, layer, x);
    b.prenorm_block(BlockSite::Ffn(layer), branch, h, x);
}

/// The norm of `h`, or `h` where the layer has no norm there: ModernBERT's first has its embeddings' norm before it.
fn normed(b: &mut Builder<'_>, h: BufferId, site: NormSite) -> BufferId {
    if !b.spec.norms.contains_key(&site) {
        return h;
    }
    let out = b.buffer(Extent::Tokens, b.spec.hidden);
    b.normed(site, h, out, At::ENCODER);
    out
}
