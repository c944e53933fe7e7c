//! The builder: steps, buffers and tables of a Program, with every patch placed at its site.

use super::Shape;
use crate::ir::{BlockSite, LinearSite, NormSite, Site};
use crate::model::{Arch, ModelSpec};
use crate::program::{
    BlockNorm, BufferDesc, BufferId, Extent, HeadKey, OpKind, Output, OutputKind, Prefixes, Program, Purpose, Scope,
    Step, StepKind, TableDesc, TableId,
};

pub(super) struct Builder<'a> {
    pub(super) spec: &'a ModelSpec,
    pub(super) shape: &'a Shape,
    program: Program,
    /// How often the layer that is being planned has run before.
    pub(super) turn: u16,
}

/// Where a step stands: its scope, and the head whose tables its patches come from.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) scope: Scope,
    pub(super) head: Option<HeadKey>,
}

impl At {
    pub(super) const ENCODER: Self = Self { scope: Scope::All, head: None };
}

impl<'a> Builder<'a> {
    pub(super) fn new(spec: &'a ModelSpec, shape: &'a Shape) -> Self {
        let program = Program { steps: Vec::new(), buffers: Vec::new(), tables: Vec::new(), outputs: Vec::new() };
        Self { spec, shape, program, turn: 0 }
    }

    pub(super) fn finish(self) -> Program {
        self.program
    }

    pub(super) fn buffer(&mut self, extent: Extent, width: usize) -> BufferId {
        self.program.buffers.push(BufferDesc { extent, width });
        BufferId(self.program.buffers.len() as u32 - 1)
    }

    pub(super) fn table(&mut self, extent: Extent, purpose: Purpose) -> TableId {
        let desc = TableDesc { extent, purpose };
        let found = self.program.tables.iter().position(|t| *t == desc);
        TableId(found.unwrap_or_else(|| {
            self.program.tables.push(desc);
            self.program.tables.len() - 1
        }) as u32)
    }

    pub(super) fn step(&mut self, kind: StepKind, scope: Scope, origin: Option<Site>) {
        self.program.steps.push(Step { kind, scope, origin });
    }

    pub(super) fn output(&mut self, kind: OutputKind, buffer: BufferId, scope: Scope) {
        self.program.outputs.push(Output { kind, buffer, scope });
    }

    fn extent(&self, buffer: BufferId) -> Extent {
        self.program.buffers[buffer.0 as usize].extent
    }

    fn width(&self, buffer: BufferId) -> usize {
        self.program.buffers[buffer.0 as usize].width
    }

    /// The tables of all patches of kind `op` at `site`, in order of their ordinals.
    pub(super) fn tables(&mut self, site: Site, op: OpKind, at: At, extent: Extent) -> Vec<TableId> {
        let shape = self.shape;
        shape
            .patches
            .iter()
            .filter(|p| matches!(p, Purpose::Patches { site: s, op: o, head, .. } if *s == site && *o == op && *head == at.head))
            .map(|p| self.table(extent, *p))
            .collect()
    }

    /// A linear layer with everything that adapters do to it.
    pub(super) fn linear(&mut self, site: LinearSite, x: BufferId, out: BufferId, at: At) {
        let origin = Site::Linear(site);
        let extent = self.extent(out);
        // A head of another width than the base's runs on the adapter's weights alone.
        let base = self.spec.linears.get(&site).copied().filter(|w| {
            let info = self.spec.weight(w.weight);
            (info.rows, info.cols) == (self.width(out), self.width(x))
        });
        let replaced = self.tables(origin, OpKind::ReplaceLinear, at, extent).first().copied();
        let kind =
            StepKind::Linear { x, out, weight: base.map(|w| w.weight), bias: base.and_then(|w| w.bias), replaced };
        self.step(kind, at.scope, Some(origin));
        for table in self.tables(origin, OpKind::LowRank, at, extent) {
            self.step(StepKind::LowRank { x, out, table }, Scope::Only(table), Some(origin));
        }
        for table in self.tables(origin, OpKind::MixedLowRank, at, extent) {
            self.step(StepKind::MixedLowRank { x, out, table }, Scope::Only(table), Some(origin));
        }
    }

    /// What follows a sub-block: bottlenecks on its output `branch`, and the residual and the norm, which leave the
    /// residual stream `x` as the next reads it.
    pub(super) fn block(&mut self, site: BlockSite, branch: BufferId, x: BufferId, norm: Option<NormSite>) {
        // AdapterHub gives ALBERT's adapters after attention the stream for the output and the output for the stream.
        let swapped = matches!((self.spec.arch, site), (Arch::Albert { .. }, BlockSite::Attention(_)));
        let (h, residual) = if swapped { (x, branch) } else { (branch, x) };
        self.bottlenecks(site, h, residual, norm);
        let purpose = Purpose::Unnormed(site);
        // The rows whose adapters leave the residual and the norm out.
        let scope = if self.shape.patches.contains(&purpose) {
            let table = self.table(Extent::Tokens, purpose);
            Scope::Except(table)
        } else {
            Scope::All
        };
        self.step(StepKind::Add { a: x, b: branch, out: x }, scope, None);
        if let Some(norm) = norm {
            self.norm(norm, x, At { scope, head: None });
        }
        if let (Scope::Except(table), false) = (scope, swapped) {
            self.step(StepKind::Copy { x: branch, first: 0, out: x }, Scope::Only(table), Some(Site::Block(site)));
        }
    }

    /// As [`Builder::block`] in a pre-norm layer, whose sub-block reads `read`. AdapterHub's hooks in ModernBERT give
    /// adapters that for the stream, and at every layer the norm that the last one has between its sub-blocks.
    pub(super) fn prenorm_block(&mut self, site: BlockSite, branch: BufferId, x: BufferId, read: BufferId) {
        if self.spec.arch != Arch::ModernBert {
            return self.block(site, branch, x, None);
        }
        let norm = matches!(site, BlockSite::Attention(_)).then(|| NormSite::BeforeFfn(self.spec.layers - 1));
        self.bottlenecks(site, branch, read, norm);
        self.step(StepKind::Add { a: x, b: branch, out: x }, Scope::All, None);
    }

    /// Bottlenecks that rewrite `h` with the residual `x`; `norm` is the one that follows.
    fn bottlenecks(&mut self, site: BlockSite, h: BufferId, x: BufferId, norm: Option<NormSite>) {
        let origin = Site::Block(site);
        let tables = self.tables(origin, OpKind::Bottleneck, At::ENCODER, Extent::Tokens);
        if tables.is_empty() {
            return;
        }
        let norm = norm.and_then(|n| Some((n, self.spec.norms.get(&n).copied()?))).map(|(site, w)| BlockNorm {
            gamma: w.gamma,
            beta: w.beta,
            eps_bits: self.spec.eps.to_bits(),
            replaced: self.tables(Site::Norm(site), OpKind::ReplaceNorm, At::ENCODER, Extent::Tokens).first().copied(),
        });
        for table in tables {
            let turn = self.turn;
            self.step(StepKind::Bottleneck { h, x, table, norm, turn }, Scope::Only(table), Some(origin));
        }
    }

    /// What adapters do to the finished embeddings.
    pub(super) fn embeddings(&mut self, x: BufferId) {
        // Changed words are in the rows that the embed step gives; its table says whose they are.
        for site in [Site::Word, Site::Position, Site::TokenType] {
            self.tables(site, OpKind::Rewording, At::ENCODER, Extent::Tokens);
        }
        self.tables(Site::Word, OpKind::Prompt, At::ENCODER, Extent::Tokens);
        self.couple(Site::Embeddings, x, At::ENCODER);
        for table in self.tables(Site::Embeddings, OpKind::Prompt, At::ENCODER, Extent::Tokens) {
            self.step(StepKind::Insert { x, table }, Scope::Only(table), Some(Site::Embeddings));
        }
    }

    /// Keys and values in front of rows at `layer`, whose projections read `x`.
    pub(super) fn prefixes(&mut self, layer: u16, x: BufferId) -> Option<Prefixes> {
        let tables = self.tables(Site::Keys(layer), OpKind::Prefix, At::ENCODER, Extent::Tokens);
        tables.first().map(|first| Prefixes { x, first: *first, count: tables.len() as u32 })
    }

    /// Interventions on a layer's output.
    pub(super) fn layer_output(&mut self, layer: u16, x: BufferId) {
        let origin = Site::LayerOutput(layer);
        for table in self.tables(origin, OpKind::Reft, At::ENCODER, Extent::Tokens) {
            self.step(StepKind::Reft { x, table }, Scope::Only(table), Some(origin));
        }
    }

    /// Invertible adapters, on the embeddings or, undone, before a vocabulary head.
    pub(super) fn couple(&mut self, site: Site, x: BufferId, at: At) {
        for table in self.tables(site, OpKind::Coupling, at, Extent::Tokens) {
            let inverse = site == Site::Vocabulary;
            self.step(StepKind::Couple { x, table, inverse }, Scope::Only(table), Some(site));
        }
    }

    /// A layer norm in place, with rows that bring their own.
    pub(super) fn norm(&mut self, site: NormSite, x: BufferId, at: At) {
        self.normed(site, x, x, at);
    }

    /// A layer norm of `x` into `out`, with rows that bring their own.
    pub(super) fn normed(&mut self, site: NormSite, x: BufferId, out: BufferId, at: At) {
        let origin = Site::Norm(site);
        // As above: an adapter's head may have another width than the base's.
        let base = self.spec.norms.get(&site).copied().filter(|w| self.spec.weight(w.gamma).cols == self.width(x));
        let replaced = self.tables(origin, OpKind::ReplaceNorm, at, self.extent(x)).first().copied();
        let kind = StepKind::LayerNorm {
            x,
            out,
            gamma: base.map(|w| w.gamma),
            beta: base.and_then(|w| w.beta),
            eps_bits: self.spec.eps.to_bits(),
            replaced,
        };
        self.step(kind, at.scope, Some(origin));
    }

    /// Offsets of the pooled embedding, then the norm again for the rows that were moved: the others keep their bits.
    pub(super) fn offsets(&mut self, x: BufferId) {
        let tables = self.tables(Site::Pooled, OpKind::Offset, At::ENCODER, Extent::Rows);
        if tables.is_empty() {
            return;
        }
        for table in tables {
            self.step(StepKind::Offset { x, table }, Scope::Only(table), Some(Site::Pooled));
        }
        let shifted = self.table(Extent::Rows, Purpose::Shifted);
        self.step(StepKind::Normalize { x }, Scope::Only(shifted), Some(Site::Pooled));
    }
}
