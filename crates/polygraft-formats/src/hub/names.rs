//! Where the library puts its modules in each base.

use crate::names::{self, Part};
use polygraft::ir::{LayerLinear, LinearSite};
use polygraft::model::{Arch, ModelSpec};

/// The linear layer at `which` of layer `layer`.
pub(super) fn linear(spec: &ModelSpec, layer: u16, which: LayerLinear) -> String {
    names::path(spec.arch, None, Part::Linear(LinearSite::Layer(layer, which)))
}

/// The module that holds the adapters after attention, or after the feed-forward part.
pub(super) fn block(spec: &ModelSpec, n: u16, attention: bool) -> String {
    let own = if attention { "attention_adapters" } else { "output_adapters" };
    match (spec.arch, attention) {
        (Arch::Albert { .. }, true) => format!("{}.{own}", self::attention(spec, n)),
        (Arch::Vit, false) => format!("{}.output.{own}", layer(spec, n)),
        (Arch::DistilBert | Arch::Albert { .. } | Arch::ModernBert | Arch::Vit, _) => {
            format!("{}.{own}", layer(spec, n))
        }
        // Beside the dense layer.
        (Arch::Bert | Arch::Roberta | Arch::XlmRoberta | Arch::Electra | Arch::MpNet | Arch::DebertaV2 { .. }, _) => {
            let dense = if attention { LayerLinear::AttentionOutput } else { LayerLinear::FfnOut };
            parent(&linear(spec, n, dense)).to_owned()
        }
    }
}

/// Whether the library knows the model by its modules' names alone, and hooks adapters into them.
pub(super) fn hooked(spec: &ModelSpec) -> bool {
    spec.arch == Arch::ModernBert
}

/// The module of the layer itself.
pub(super) fn layer(spec: &ModelSpec, n: u16) -> String {
    names::layer_path(spec.arch, n).trim_end_matches('.').to_owned()
}

/// The module of self-attention.
pub(super) fn attention(spec: &ModelSpec, n: u16) -> String {
    parent(&linear(spec, n, LayerLinear::Query)).to_owned()
}

/// What a prefix is called among an adapter's prefixes.
pub(super) fn prefix_place(spec: &ModelSpec) -> &'static str {
    if spec.arch == Arch::DistilBert { "self" } else { "self_prefix" }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}
