//! Ops on a sub-block's output: bottleneck adapters (Houlsby et al. 2019; Pfeiffer et al. 2020; He et al. 2022) and what
//! AdapterHub composes of them (fusion, averages, splits).
//!
//! A sub-block (attention, or the feed-forward part) gives `h`, which joins the residual `x` in `LN(h + x)`. A
//! bottleneck rewrites `h` before that. The words are those of `adapters` 1.3 (`methods/bottleneck.py`).

use super::Payload;
use crate::compose::Share;
use crate::model::Activation;
use crate::tensor::Matrix;
use std::ops::Range;
use std::sync::Arc;

/// A number a row of the batch: the mean over its tokens of `sigmoid(x · weight + bias)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// `[width of x]`.
    pub weight: Vec<f32>,
    /// Added to the product.
    pub bias: f32,
}

/// What an adapter's own residual is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// Its input, after a norm that it may run first (`residual_before_ln: false`).
    Input,
    /// The sub-block's output as it came (`true`).
    Branch,
    /// `h + x`, before the norm (`post_add`).
    Sum,
    /// None that the library could name (`post_add` without a norm): the adapter can only stand where another's rules hold.
    Undefined,
}

/// Where a bottleneck takes its input, and what becomes of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Reads `x` rather than `h`, and adds no residual of its own.
    pub parallel: bool,
    /// What it makes is added to `h` as it came: of a parallel adapter, unless another follows that is none.
    pub keeps: bool,
    /// Reads `LN(h + x)`, with the model's own norm (`original_ln_before`).
    pub norm_before: bool,
    /// What is added to its output.
    pub residual: Residual,
    /// The residual is added before the adapter's own norm (`adapter_residual_before_ln`).
    pub residual_inside: bool,
    /// The model's residual and norm follow (`original_ln_after`).
    pub norm_after: bool,
}

/// Scale and shift of an adapter's own layer norm, epsilon 1e-5.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnNorm {
    /// `[hidden]`.
    pub gamma: Vec<f32>,
    /// `[hidden]`.
    pub beta: Vec<f32>,
}

/// `up(f(down(z)))`, a gate, a norm and a residual as [`Rules`] say. Scalings are folded into `up`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bottleneck {
    /// Rows may be empty: `down` and its norm read `z` through it.
    pub norm_before: Option<OwnNorm>,
    /// `[bottleneck, hidden]`.
    pub down: Matrix,
    /// `[bottleneck]`.
    pub down_bias: Vec<f32>,
    /// Between the two.
    pub activation: Activation,
    /// `[hidden, bottleneck]`.
    pub up: Matrix,
    /// `[hidden]`.
    pub up_bias: Vec<f32>,
    /// Multiplies the output; reads `z`.
    pub gate: Option<Gate>,
    /// After the output.
    pub norm_after: Option<OwnNorm>,
    /// Input, residual, what follows.
    pub rules: Rules,
}

/// AdapterFusion (Pfeiffer et al. 2021): attention over the outputs of several bottlenecks, token by token.
#[derive(Debug, Clone, PartialEq)]
pub struct Fusion {
    /// `[hidden, hidden]` and `[hidden]`; the identity when absent.
    pub query: Option<(Matrix, Vec<f32>)>,
    /// As the query.
    pub key: Option<(Matrix, Vec<f32>)>,
    /// `[hidden, hidden]`; the identity when absent.
    pub value: Option<Matrix>,
    /// The query is the sub-block's output as it came, not what the adapters read. Where the last one is parallel, this is
    /// not asked: the query is what it reads.
    pub query_before_norm: bool,
    /// The residual is added to each adapter's output, rather than to their mixture.
    pub residual_before: bool,
    /// Divides the products, the first time in a call ([`Fusion::cooled`]).
    pub temperature: f32,
}

impl Fusion {
    /// What divides the products once the layer has run `turn` times in a call, as a layer does that stands for several:
    /// the library takes a thousandth of the temperature off at each use, down to 1.
    #[must_use]
    pub fn cooled(&self, turn: u16) -> f32 {
        (self.temperature * (1.0 - f32::from(turn) / 1000.0)).max(1.0)
    }
}

/// One member of a [`Blend`]: a bottleneck, or a stack of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// [`Op::Bottleneck`](super::Op::Bottleneck) payloads with the scales of their contributions.
    pub chain: Vec<(Arc<Payload>, f32)>,
    /// A stack runs each member's own rules on what the blend's rules gave; a single adapter does not.
    pub stacked: bool,
    /// Multiplies the output.
    pub weight: f32,
}

/// How the members of a [`Blend`] become one.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// `Σ weight · output`, residuals included: a mix, and AdapterHub's `Average`, whose second division is in the weights.
    Average,
    /// `residual + Σ weight · (output − residual)`: the weighted sum of contributions.
    Sum,
    /// Attention over the members' outputs before gate, norm and residual.
    Fuse(Arc<Payload>),
    /// Each member for its own tokens of the row. Gates are means over the tokens of their member.
    Split {
        /// One a member.
        shares: Arc<[Share]>,
        /// The token that ends the first text.
        separator: u32,
    },
}

/// Several bottlenecks that read one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Blend {
    /// Those of the first member, or the last for a fusion, as in the library.
    pub rules: Rules,
    /// The members.
    pub parts: Vec<Part>,
    /// What becomes of their outputs.
    pub how: How,
}

/// The two halves of a volume-preserving coupling (NICE, Dinh et al. 2015) of the embeddings: `y1 = x1 + F(x2)`,
/// `y2 = x2 + G(y1)`, halves along the width.
#[derive(Debug, Clone, PartialEq)]
pub struct Coupling {
    /// From the second half to the first.
    pub f: Mlp,
    /// From the first half to the second.
    pub g: Mlp,
    /// Between the layers of both.
    pub activation: Activation,
}

/// Two linear layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    /// `[inner, inputs]`.
    pub first: Matrix,
    /// `[inner]`.
    pub first_bias: Vec<f32>,
    /// `[outputs, inner]`.
    pub second: Matrix,
    /// `[outputs]`.
    pub second_bias: Vec<f32>,
}

/// A representation intervention (ReFT, Wu et al. 2024) at some positions of a row:
/// `y = x + (f(W x + b) − R x) R`, or without `R x`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reft {
    /// Positions from the start of a row.
    pub prefix: u32,
    /// Positions from its end; they win where both apply.
    pub suffix: u32,
    /// For the prefix.
    pub first: ReftUnit,
    /// For the suffix; the first's when absent.
    pub last: Option<ReftUnit>,
    /// After the source.
    pub activation: Activation,
    /// Whether `R x` is subtracted.
    pub subtract: bool,
    /// Positions at the end of a row that the suffix does not count: as many as there are virtual tokens, wherever they stand.
    pub uncounted: u32,
}

/// The matrices of one intervention.
#[derive(Debug, Clone, PartialEq)]
pub struct ReftUnit {
    /// `W`, `[rank, hidden]`.
    pub source: Matrix,
    /// `b`, `[rank]`.
    pub bias: Vec<f32>,
    /// `R`, `[rank, hidden]`.
    pub projection: Matrix,
}

/// What a low-rank update depends on besides its token.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixing {
    /// Multiplied by a gate of the row, which reads the layer's input (`use_gating`); by all of them where several adapters
    /// with gates follow one another.
    Gate(Vec<Gate>),
    /// `[experts, rank]`: `softmax(h Rᵀ)`, averaged over the row's tokens, weighs experts whose factors stand side by side
    /// in `B` (`[outputs, experts · rank]`; Lily, Zhong et al. 2025).
    Route(Matrix),
}

/// A low-rank update whose strength is a matter of the whole row.
#[derive(Debug, Clone, PartialEq)]
pub struct MixedLowRank {
    /// The factors; `b` is wider for [`Mixing::Route`].
    pub lora: super::LowRank,
    /// On what it depends.
    pub mixing: Mixing,
}

impl OwnNorm {
    /// The library's default of `torch.nn.LayerNorm`.
    pub const EPS: f32 = 1e-5;
}

impl Gate {
    pub(super) fn bytes(&self) -> usize {
        self.weight.len() * 4 + 4
    }
}

impl Bottleneck {
    pub(super) fn bytes(&self) -> usize {
        let norm = |n: &Option<OwnNorm>| n.as_ref().map_or(0, |n| (n.gamma.len() + n.beta.len()) * 4);
        let vectors = (self.down_bias.len() + self.up_bias.len()) * 4;
        let gate = self.gate.as_ref().map_or(0, Gate::bytes);
        self.down.bytes() + self.up.bytes() + vectors + gate + norm(&self.norm_before) + norm(&self.norm_after)
    }
}

impl Fusion {
    pub(super) fn bytes(&self) -> usize {
        let pair = |p: &Option<(Matrix, Vec<f32>)>| p.as_ref().map_or(0, |(m, v)| m.bytes() + v.len() * 4);
        pair(&self.query) + pair(&self.key) + self.value.as_ref().map_or(0, Matrix::bytes)
    }
}

impl Blend {
    /// Its members' payloads, and its fusion's.
    pub fn payloads(&self) -> impl Iterator<Item = &Arc<Payload>> {
        let fusion = if let How::Fuse(fusion) = &self.how { Some(fusion) } else { None };
        self.parts.iter().flat_map(|p| p.chain.iter().map(|(payload, _)| payload)).chain(fusion)
    }
}

impl Blend {
    /// Tells blends of the same members apart from all others: identities and the bits of numbers.
    #[must_use]
    pub fn key(&self) -> Vec<u64> {
        let Rules { parallel, keeps, norm_before, residual, residual_inside, norm_after } = self.rules;
        let flags = [parallel, keeps, norm_before, residual_inside, norm_after];
        let flags = flags.iter().fold(residual as u64, |n, flag| n * 2 + u64::from(*flag));
        let how = match &self.how {
            How::Average => vec![0],
            How::Sum => vec![1],
            How::Fuse(fusion) => vec![2, fusion.id.0],
            How::Split { shares, separator } => {
                let share = |share: &Share| match share {
                    Share::Rest => u64::MAX,
                    Share::Segment => u64::MAX - 1,
                    Share::Tokens(n) => u64::from(*n),
                };
                [3, u64::from(*separator)].into_iter().chain(shares.iter().map(share)).collect()
            }
        };
        let mut out = vec![flags, how.len() as u64];
        out.extend(how);
        for part in &self.parts {
            out.extend([u64::MAX, u64::from(part.stacked), u64::from(part.weight.to_bits())]);
            out.extend(part.chain.iter().flat_map(|(p, scale)| [p.id.0, u64::from(scale.to_bits())]));
        }
        out
    }
}

impl Mlp {
    fn bytes(&self) -> usize {
        self.first.bytes() + self.second.bytes() + (self.first_bias.len() + self.second_bias.len()) * 4
    }
}

impl Coupling {
    pub(super) fn bytes(&self) -> usize {
        self.f.bytes() + self.g.bytes()
    }
}

impl Reft {
    /// Positions of a row of `n` that the first unit and the last one are for: the suffix wins where both apply. None for a
    /// row shorter than the suffix.
    #[must_use]
    pub fn positions(&self, n: usize) -> Option<([Range<usize>; 2], Range<usize>)> {
        let prefix = (self.prefix as usize).min(n);
        let end = n.checked_sub(self.uncounted as usize)?;
        let start = end.checked_sub(self.suffix as usize)?;
        Some(([0..prefix.min(start), end.min(prefix)..prefix], start..end))
    }

    pub(super) fn bytes(&self) -> usize {
        let unit = |u: &ReftUnit| u.source.bytes() + u.projection.bytes() + u.bias.len() * 4;
        unit(&self.first) + self.last.as_ref().map_or(0, unit)
    }
}

impl MixedLowRank {
    pub(super) fn bytes(&self) -> usize {
        let mixing = match &self.mixing {
            Mixing::Gate(gates) => gates.iter().map(Gate::bytes).sum(),
            Mixing::Route(router) => router.bytes(),
        };
        self.lora.a.bytes() + self.lora.b.bytes() + self.lora.bias.as_ref().map_or(0, |b| b.len() * 4) + mixing
    }
}
