//! AdapterIr: every adapter method as a list of patches, a patch being an op at a site
//! (after "Towards a Unified View of Parameter-Efficient Transfer Learning", He et al. 2022).

mod block;
mod check;
mod payload;
mod reweight;
mod rows;
mod site;

pub use block::{
    Blend, Bottleneck, Coupling, Fusion, Gate, How, MixedLowRank, Mixing, Mlp, OwnNorm, Part, Reft, ReftUnit, Residual,
    Rules,
};
pub use check::{Graft, LoadReport, Verdict, check};
pub use payload::{Dense, LowRank, Norm, Offset, Payload, PayloadId};
pub use reweight::{Layer, Meeting, Reweigh, Reweight, fold};
pub use rows::{Positions, Prefix, Prompt, Reword, Rewording, RowChange, Stands};
pub use site::{BlockSite, LayerLinear, LinearSite, NormSite, Site};

use crate::model::HeadSpec;

/// One change to the forward pass: `op` at `site`.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// Where.
    pub site: Site,
    /// What.
    pub op: Op,
}

/// What a patch does at its site. What is larger than a low-rank update, of which a session may hold thousands, is boxed.
/// An op is added here, in [`Payload`]'s file and in `plan/place.rs`; the compiler lists the rest.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Adds `scale · (x Aᵀ) Bᵀ` to a linear layer's output (LoRA, Hu et al. 2021).
    LowRank(LowRank),
    /// Adds a vector to the pooled sentence embedding, which is then normalised again (language vectors).
    Offset(Offset),
    /// Runs the adapter's own weight and/or bias in place of the base's (PEFT `modules_to_save`, `bias`; heads).
    ReplaceLinear(Dense),
    /// Runs the adapter's own scale and/or shift in place of the base's.
    ReplaceNorm(Norm),
    /// Runs a layer whose weight is a function of the base's: rotations, masks, sparse and dense deltas. A composition
    /// turns it into [`Op::ReplaceLinear`] before anything runs.
    Reweight(Reweight),
    /// Rewrites a sub-block's output through a bottleneck.
    Bottleneck(Box<Bottleneck>),
    /// Several bottlenecks on one input: what a composition makes of them.
    Blend(Blend),
    /// The attention over several bottlenecks that a fusion adapter brings; runs inside a [`Blend`].
    Fusion(Box<Fusion>),
    /// Couples the halves of the embeddings (invertible adapters), and undoes it before a vocabulary head.
    Coupling(Box<Coupling>),
    /// Intervenes at some positions of a layer's output.
    Reft(Box<Reft>),
    /// A low-rank update with a gate or routed experts.
    MixedLowRank(Box<MixedLowRank>),
    /// Changes word embeddings as they are gathered.
    Rewording(Rewording),
    /// Virtual tokens.
    Prompt(Prompt),
    /// Keys and values in front of a row's own.
    Prefix(Box<Prefix>),
}

impl Op {
    /// Whether a scale other than 1 has a meaning: the op adds a contribution.
    #[must_use]
    pub fn is_additive(&self) -> bool {
        match self {
            Self::LowRank(_) | Self::Offset(_) | Self::Bottleneck(_) | Self::Reft(_) | Self::MixedLowRank(_) => true,
            Self::Rewording(Rewording(change)) => change.meeting() == Meeting::Adds,
            Self::Prompt(_) | Self::Prefix(_) => false,
            Self::ReplaceLinear(_) | Self::ReplaceNorm(_) | Self::Blend(_) | Self::Fusion(_) | Self::Coupling(_) => {
                false
            }
            Self::Reweight(Reweight(change)) => change.meeting() == Meeting::Adds,
        }
    }
}

/// What an adapter says about the base it was made for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BaseClaim {
    /// Name or path as the library wrote it: informational.
    pub name: Option<String>,
    /// Lineage hash, in our own formats.
    pub lineage: Option<String>,
}

/// An adapter, whatever library saved it.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterIr {
    /// Row of the family table that read it, such as `peft-lora`.
    pub family: &'static str,
    /// What it was made for.
    pub base: BaseClaim,
    /// The changes, in a stable order.
    pub patches: Vec<Patch>,
    /// The head that travels with it. Its layers are patches at head sites.
    pub head: Option<HeadSpec>,
    /// In a stack, its low-rank updates read what the one before made (AdapterHub), rather than adding up with it (PEFT).
    pub chains: bool,
    /// What it makes of a row's shape.
    pub rows: RowChange,
    /// Copies of the base's layers that run in the place of its layers: which layer each is a copy of. Its patches' sites
    /// number the copies.
    pub copies: Option<Vec<u16>>,
    /// A fusion's adapters, by the names under which it was stored; its patches are [`Op::Fusion`] at sub-blocks.
    pub fuses: Option<Vec<String>>,
    /// BCP 47 tag, when the adapter is a language's.
    pub language: Option<String>,
    /// The composition under which a language vector was made, when it says so.
    pub made_under: Option<String>,
    /// Tensors that the reader found and did not use (`strict: false` only).
    pub unused: Vec<String>,
    /// Tensors that the config promises and the file lacks (`strict: false` only).
    pub missing: Vec<String>,
}
