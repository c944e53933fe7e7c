//! Where the library puts its modules in each base.

use crate::names::{self, Part};
use polygraft::ir::{LayerLinear, LinearSite};
use polygraft::model::ModelSpec;

/// The linear layer at `which` of layer `layer`.
pub(super) fn linear(spec: &ModelSpec, layer: u16, which: LayerLinear) -> String {
    names::path(spec.arch, None, Part::Linear(LinearSite::Layer(layer, which)))
}

/// The module that holds the adapters after attention, or after the feed-forward part.
pub(super) fn block(spec: &ModelSpec, layer: u16, attention: bool) -> String {
    let which = if attention { LayerLinear::AttentionOutput } else { LayerLinear::FfnOut };
    parent(&linear(spec, layer, which)).to_owned()
}

/// The module of the layer itself.
pub(super) fn layer(spec: &ModelSpec, layer: u16) -> String {
    parent(&block(spec, layer, false)).to_owned()
}

/// The module of self-attention.
pub(super) fn attention(spec: &ModelSpec, layer: u16) -> String {
    parent(&linear(spec, layer, LayerLinear::Query)).to_owned()
}

/// What a prefix is called among an adapter's prefixes.
pub(super) fn prefix_place(_spec: &ModelSpec) -> &'static str {
    "self_prefix"
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}
