//! Program: a flat list of canonical steps over symbolic extents. Structure only, no numbers, no device handles.
//!
//! A Program is made once for a base and a *set* of composition shapes, and replayed with new [`Tables`] on every call.
//! The steps alone define meaning (`steps/` has the naive f32 evaluation of each); how a backend schedules them is its own business.

mod check;
mod explain;
mod tables;

pub use check::check;
pub use explain::{Line, explain};
pub use tables::{Relative, Segment, Table, Tables};

use crate::ir::{BlockSite, Site};
use crate::model::{Activation, HeadKind, Pooling, WeightId};

/// What the first dimension of a buffer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extent {
    /// Tokens of the packed batch.
    Tokens,
    /// Rows of the batch.
    Rows,
    /// Relative positions, in blocks: see [`Relative`].
    Positions,
}

/// Index into [`Program::buffers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// Index into [`Tables::tables`] and [`Program::tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);

/// An f32 activation buffer: `[extent, width]`, row major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferDesc {
    /// First dimension.
    pub extent: Extent,
    /// Second dimension.
    pub width: usize,
}

/// What a table is for: checked by the validator, filled on each call by [`crate::batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableDesc {
    /// What its ranges count.
    pub extent: Extent,
    /// Which patches fill it.
    pub purpose: Purpose,
}

/// Why a table exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// The `ordinal`-th patch of kind `op` at `site` of each row's composition.
    Patches {
        /// Where.
        site: Site,
        /// Which kind of op.
        op: OpKind,
        /// Which of several at the same site, in the order of the composition.
        ordinal: u16,
        /// The head that the site belongs to: heads of several shapes may run in one batch.
        head: Option<HeadKey>,
    },
    /// Rows whose composition ends in a head of this shape.
    Head(HeadKey),
    /// Rows that have any offset at [`Site::Pooled`].
    Shifted,
    /// Rows whose adapters leave out the residual and the norm that follow a sub-block.
    Unnormed(BlockSite),
    /// Rows that run the layers that begin with this one: the base's own, or copies.
    Stack(u16),
    /// The tokens that are patches of images.
    Image,
}

/// The shape of a head: rows whose heads have the same shape share its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeadKey {
    /// Kind.
    pub kind: HeadKind,
    /// Outputs.
    pub labels: u32,
}

/// [`crate::ir::Op`] without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpKind {
    /// Low-rank update.
    LowRank,
    /// Offset of the pooled vector.
    Offset,
    /// Replaced linear layer.
    ReplaceLinear,
    /// Replaced layer norm.
    ReplaceNorm,
    /// Changed weights, before they are a replaced linear layer: no step has it.
    Reweight,
    /// Bottleneck adapter, or a blend of several.
    Bottleneck,
    /// Fusion layer, which runs inside a blend: no step has it.
    Fusion,
    /// Coupled embeddings.
    Coupling,
    /// Intervention.
    Reft,
    /// Low-rank update that depends on its row.
    MixedLowRank,
    /// Changed words, which the `Embed` step's rows have: no step has it.
    Rewording,
    /// Virtual tokens.
    Prompt,
    /// Keys and values.
    Prefix,
}

impl crate::ir::Op {
    /// The kind of this op.
    #[must_use]
    pub fn kind(&self) -> OpKind {
        match self {
            Self::LowRank(_) => OpKind::LowRank,
            Self::Offset(_) => OpKind::Offset,
            Self::ReplaceLinear(_) => OpKind::ReplaceLinear,
            Self::ReplaceNorm(_) => OpKind::ReplaceNorm,
            Self::Reweight(_) => OpKind::Reweight,
            Self::Bottleneck(_) | Self::Blend(_) => OpKind::Bottleneck,
            Self::Fusion(_) => OpKind::Fusion,
            Self::Coupling(_) => OpKind::Coupling,
            Self::Reft(_) => OpKind::Reft,
            Self::MixedLowRank(_) => OpKind::MixedLowRank,
            Self::Rewording(_) => OpKind::Rewording,
            Self::Prompt(_) => OpKind::Prompt,
            Self::Prefix(_) => OpKind::Prefix,
        }
    }
}

/// Which rows of its output a step computes. Rows outside are left as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All.
    All,
    /// The ranges of a table, whose payloads are ignored.
    Only(TableId),
    /// All but the ranges of a table.
    Except(TableId),
}

/// One canonical step. Shapes: `T` tokens, `R` rows of the batch, widths from the buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// `out[t] = word[id[t]] + position[pos[t]] + type[tt[t]]`, in this order.
    Embed {
        /// `[T, E]`.
        out: BufferId,
        /// Word table.
        word: WeightId,
        /// Position table.
        position: Option<WeightId>,
        /// Token-type table.
        token_type: Option<WeightId>,
    },
    /// `out = `[`Tables::pixels`]: the patches of images.
    Patches {
        /// `[T, numbers of a patch]`.
        out: BufferId,
    },
    /// `out = (x − mean) / √(var + eps) · gamma + beta`, population variance.
    LayerNorm {
        /// `[n, H]`.
        x: BufferId,
        /// `[n, H]`; may be `x`.
        out: BufferId,
        /// Scale. `None`: every row in scope has a replacement.
        gamma: Option<WeightId>,
        /// Shift. `None`: none, but for rows whose replacement has one.
        beta: Option<WeightId>,
        /// Epsilon, as bits, so that a Program hashes.
        eps_bits: u32,
        /// Rows that run an adapter's own scale and shift.
        replaced: Option<TableId>,
    },
    /// `out = x Wᵀ + b`.
    Linear {
        /// `[n, K]`.
        x: BufferId,
        /// `[n, N]`; not `x`.
        out: BufferId,
        /// `[N, K]`. `None`: every row in scope has a replacement.
        weight: Option<WeightId>,
        /// `[N]`.
        bias: Option<WeightId>,
        /// Rows that run an adapter's own weight and/or bias.
        replaced: Option<TableId>,
    },
    /// `out += scale · ((x Aᵀ) Bᵀ + bias)` for the rows of a table.
    LowRank {
        /// `[n, K]`: the input of the linear layer it patches.
        x: BufferId,
        /// `[n, N]`: that layer's output, updated in place.
        out: BufferId,
        /// Ranges with payloads.
        table: TableId,
    },
    /// `x += scale · vector` for the rows of a table.
    Offset {
        /// `[n, N]`, in place.
        x: BufferId,
        /// Ranges with payloads.
        table: TableId,
    },
    /// Softmax attention inside each row: `out = softmax(q kᵀ · scale) v`, head by head.
    Attention {
        /// `[T, H]`.
        q: BufferId,
        /// `[T, H]`.
        k: BufferId,
        /// `[T, H]`.
        v: BufferId,
        /// `[T, H]`; none of the inputs.
        out: BufferId,
        /// Number of heads; `H` divides by it.
        heads: usize,
        /// Multiplies the products, as bits.
        scale_bits: u32,
        /// Keys further away than this are not seen; keys that a prefix puts in front are.
        window: Option<u32>,
        /// What relative positions add to the products.
        relative: Option<RelativeBuffers>,
        /// Keys and values in front of the row's own, for the rows of a table.
        prefix: Option<Prefixes>,
    },
    /// `out = a + b`.
    Add {
        /// `[n, N]`.
        a: BufferId,
        /// `[n, N]`.
        b: BufferId,
        /// `[n, N]`; may be `a` or `b`.
        out: BufferId,
    },
    /// `x = f(x)`, pointwise, in place.
    Activate {
        /// `[n, N]`.
        x: BufferId,
        /// Which function.
        function: Activation,
    },
    /// Tokens of a row to one vector.
    Pool {
        /// `[T, H]`.
        x: BufferId,
        /// `[R, H]`.
        out: BufferId,
        /// How.
        pooling: Pooling,
    },
    /// `h` rewritten by bottleneck adapters, in place, for the rows of a table.
    Bottleneck {
        /// `[T, H]`: what a sub-block made.
        h: BufferId,
        /// `[T, H]`: the residual stream.
        x: BufferId,
        /// Ranges with payloads.
        table: TableId,
        /// The norm that follows the sub-block, where one does.
        norm: Option<BlockNorm>,
        /// How often the layer has run before in the call: layers may share their weights.
        turn: u16,
    },
    /// Virtual tokens: rows of a table's payloads in place of `x`'s, one payload row a token.
    Insert {
        /// `[T, E]`.
        x: BufferId,
        /// Ranges with payloads, of virtual tokens alone.
        table: TableId,
    },
    /// The halves of `x` coupled, in place, for the rows of a table.
    Couple {
        /// `[T, H]`.
        x: BufferId,
        /// Ranges with payloads.
        table: TableId,
        /// Undoes the coupling.
        inverse: bool,
    },
    /// Interventions at some positions of the rows of a table, in place.
    Reft {
        /// `[T, H]`.
        x: BufferId,
        /// Ranges with payloads.
        table: TableId,
    },
    /// A low-rank update whose strength depends on the whole row, for the rows of a table.
    MixedLowRank {
        /// `[T, K]`: the input of the linear layer it patches.
        x: BufferId,
        /// `[T, N]`: that layer's output, updated in place.
        out: BufferId,
        /// Ranges with payloads.
        table: TableId,
    },
    /// `out = x[first..]`: some of the columns.
    Copy {
        /// `[n, K]`.
        x: BufferId,
        /// The first column.
        first: usize,
        /// `[n, N]`; not `x`.
        out: BufferId,
    },
    /// `out = table[bucket]`: the embeddings of the call's relative positions.
    Positions {
        /// `[P, N]`.
        out: BufferId,
        /// `[buckets, N]`.
        table: WeightId,
    },
    /// Columns of `x` rotated by the token's position, head by head: of each head of width `d`, column `i` and column
    /// `i + d/2` turn by `position · θ^(−2i/d)`.
    Rotate {
        /// `[T, K]`.
        x: BufferId,
        /// The first column.
        first: usize,
        /// `[T, N]`; not `x`.
        out: BufferId,
        /// Number of heads; `N` divides by twice that.
        heads: usize,
        /// The base θ, as bits.
        theta_bits: u32,
    },
    /// `out = f(x[..N]) · x[N..]`.
    Gate {
        /// `[n, 2N]`.
        x: BufferId,
        /// `[n, N]`; not `x`.
        out: BufferId,
        /// Which function.
        function: Activation,
    },
    /// A token and its neighbours side by side, zeros beyond the row's ends: `out[t] = (x[t − r], …, x[t + r])`.
    Unfold {
        /// `[T, N]`.
        x: BufferId,
        /// `[T, (2r + 1) N]`; not `x`.
        out: BufferId,
    },
    /// `x = x / max(‖x‖₂, 1e-12)`, in place.
    Normalize {
        /// `[n, N]`.
        x: BufferId,
    },
}

/// Keys and values that some rows have in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefixes {
    /// What the projections read, `[T, H]`: gates read it.
    pub x: BufferId,
    /// The first of `count` tables in a row, each with its payloads; a later one's keys stand before an earlier one's.
    pub first: TableId,
    /// How many.
    pub count: u32,
}

impl Prefixes {
    /// The tables, in the order of the composition.
    pub fn tables(self) -> impl DoubleEndedIterator<Item = TableId> {
        (self.first.0..self.first.0 + self.count).map(TableId)
    }
}

/// What relative positions add to the product of query `i` and key `j` of a row, at the place `p` that
/// [`Relative::place`] gives: `(q·k + q·keys[p] + k·queries[p]) · scale + bias[p]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelativeBuffers {
    /// `[P, heads]`.
    pub bias: Option<BufferId>,
    /// `[P, H]`.
    pub keys: Option<BufferId>,
    /// `[P, H]`.
    pub queries: Option<BufferId>,
}

impl RelativeBuffers {
    /// Those that are there.
    pub fn ids(self) -> impl Iterator<Item = BufferId> {
        [self.bias, self.keys, self.queries].into_iter().flatten()
    }
}

/// A norm that adapters of a sub-block may run before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockNorm {
    /// Scale, `[1, H]`.
    pub gamma: WeightId,
    /// Shift, `[1, H]`, where the norm has one.
    pub beta: Option<WeightId>,
    /// Epsilon, as bits.
    pub eps_bits: u32,
    /// Rows that run an adapter's own scale and shift.
    pub replaced: Option<TableId>,
}

/// A step with its scope and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    /// What runs.
    pub kind: StepKind,
    /// For which rows of its output.
    pub scope: Scope,
    /// The site it stands for, so that `explain`, errors and profiles speak the user's names.
    pub origin: Option<Site>,
}

/// What a Program leaves for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Output {
    /// Which.
    pub kind: OutputKind,
    /// Where it stands when the Program ends.
    pub buffer: BufferId,
    /// Rows that have it.
    pub scope: Scope,
}

/// The outputs that a caller may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutputKind {
    /// Last hidden states, `[T, H]`.
    Hidden,
    /// L2-normalised sentence embedding, `[R, E]`.
    Embedding,
    /// A head's logits, `[R, labels]` or `[T, labels]`.
    Logits(HeadKey),
}

/// A straight list of steps over buffers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    /// In order.
    pub steps: Vec<Step>,
    /// Activation buffers; contents do not outlive a call.
    pub buffers: Vec<BufferDesc>,
    /// What each call's tables are for.
    pub tables: Vec<TableDesc>,
    /// What stays.
    pub outputs: Vec<Output>,
}
