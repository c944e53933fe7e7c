//! The numbers of a patch, as backends receive them.

use crate::model::Side;
use crate::tensor::Matrix;

/// `scale · (x Aᵀ) Bᵀ + scale · bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// `[rank, inputs]`.
    pub a: Matrix,
    /// `[outputs, rank]`.
    pub b: Matrix,
    /// `[outputs]`; the scale multiplies it too (PEFT `lora_bias`).
    pub bias: Option<Vec<f32>>,
    /// `alpha / rank`, or `alpha / √rank`: the library's own scaling, before any scale of the composition.
    pub scale: f32,
}

/// A vector of the embedding's width.
#[derive(Debug, Clone, PartialEq)]
pub struct Offset {
    /// Added to passages' embeddings, and to queries' when they have none of their own.
    pub vector: Vec<f32>,
    /// Added to queries' embeddings: texts under the query prompt lie elsewhere than texts under the passage prompt.
    pub query: Option<Vec<f32>>,
}

impl Offset {
    /// What is added on `side`.
    #[must_use]
    pub fn on(&self, side: Side) -> &[f32] {
        match side {
            Side::Query => self.query.as_deref().unwrap_or(&self.vector),
            Side::Document => &self.vector,
        }
    }
}

/// A linear layer's own weight and/or bias; what is `None` stays the base's.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// `[outputs, inputs]`.
    pub weight: Option<Matrix>,
    /// `[outputs]`.
    pub bias: Option<Vec<f32>>,
}

/// A layer norm's own scale and/or shift; what is `None` stays the base's.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// `[hidden]`.
    pub gamma: Option<Vec<f32>>,
    /// `[hidden]`.
    pub beta: Option<Vec<f32>>,
}

/// Identity of a payload for as long as a session lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadId(pub u64);

impl PayloadId {
    /// Of a payload that a composition has just made, until a session gives it an identity.
    pub const UNNAMED: Self = Self(0);
}

/// An op's numbers with an identity, shared between session, calls and backends.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// Identity: what a backend keys its packed copy by.
    pub id: PayloadId,
    /// The numbers.
    pub op: super::Op,
}

impl super::Op {
    /// Bytes of numbers held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let vec = |v: &Option<Vec<f32>>| v.as_ref().map_or(0, |v| v.len() * 4);
        match self {
            Self::LowRank(l) => l.a.bytes() + l.b.bytes() + vec(&l.bias),
            Self::Offset(o) => o.vector.len() * 4 + vec(&o.query),
            Self::ReplaceLinear(d) => d.weight.as_ref().map_or(0, Matrix::bytes) + vec(&d.bias),
            Self::ReplaceNorm(n) => vec(&n.gamma) + vec(&n.beta),
            Self::Reweight(change) => change.0.bytes(),
            Self::Bottleneck(b) => b.bytes(),
            // Its members count themselves.
            Self::Blend(_) => 0,
            Self::Fusion(f) => f.bytes(),
            Self::Coupling(c) => c.bytes(),
            Self::Reft(r) => r.bytes(),
            Self::MixedLowRank(m) => m.bytes(),
            Self::Rewording(change) => change.0.bytes(),
            Self::Prompt(p) => p.vectors.bytes(),
            Self::Prefix(p) => p.bytes(),
        }
    }

    /// The op's name in `explain` and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::LowRank(_) => "low-rank",
            Self::Offset(_) => "offset",
            Self::ReplaceLinear(_) => "replace linear",
            Self::ReplaceNorm(_) => "replace norm",
            Self::Reweight(_) => "change of weights",
            Self::Bottleneck(_) => "bottleneck",
            Self::Blend(_) => "blend",
            Self::Fusion(_) => "fusion",
            Self::Coupling(_) => "coupling",
            Self::Reft(_) => "reft",
            Self::MixedLowRank(_) => "mixed low-rank",
            Self::Rewording(_) => "change of words",
            Self::Prompt(_) => "prompt",
            Self::Prefix(_) => "prefix",
        }
    }
}
