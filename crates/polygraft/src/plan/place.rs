//! The builder: steps, buffers and tables of a Program, with every patch placed at its site.

use super::Shape;
use crate::ir::{LinearSite, NormSite, Site};
use crate::model::ModelSpec;
use crate::program::{
    BufferDesc, BufferId, Extent, HeadKey, OpKind, Output, OutputKind, Program, Purpose, Scope, Step, StepKind,
    TableDesc, TableId,
};

pub(super) struct Builder<'a> {
    pub(super) spec: &'a ModelSpec,
    pub(super) shape: &'a Shape,
    program: Program,
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
        Self { spec, shape, program }
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
    fn tables(&mut self, site: Site, op: OpKind, at: At, extent: Extent) -> Vec<TableId> {
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
    }

    /// A layer norm in place, with rows that bring their own.
    pub(super) fn norm(&mut self, site: NormSite, x: BufferId, at: At) {
        let origin = Site::Norm(site);
        // As above: an adapter's head may have another width than the base's.
        let base = self.spec.norms.get(&site).copied().filter(|w| self.spec.weight(w.gamma).cols == self.width(x));
        let replaced = self.tables(origin, OpKind::ReplaceNorm, at, self.extent(x)).first().copied();
        let kind = StepKind::LayerNorm {
            x,
            out: x,
            gamma: base.map(|w| w.gamma),
            beta: base.map(|w| w.beta),
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
