//! The validator that runs before any backend sees a Program: every width, extent and alias is checked here, once.

use super::{BufferDesc, BufferId, Extent, OutputKind, Program, Purpose, Scope, StepKind, TableId};
use crate::error::{Error, Result};
use crate::model::{ModelSpec, WeightId};

/// Checks `program` against `spec`.
///
/// # Errors
/// [`Error::Program`] naming the step and what does not fit.
pub fn check(program: &Program, spec: &ModelSpec) -> Result<()> {
    for (index, step) in program.steps.iter().enumerate() {
        let checker = Checker { program, spec, index };
        checker.kind(&step.kind)?;
        if let Scope::Only(table) | Scope::Except(table) = step.scope {
            checker.table(table, checker.buffer(step.kind.target())?.extent)?;
        }
    }
    for output in &program.outputs {
        let checker = Checker { program, spec, index: program.steps.len() };
        let buffer = checker.buffer(output.buffer)?;
        let (extent, width) = match output.kind {
            OutputKind::Hidden => (Extent::Tokens, spec.hidden),
            OutputKind::Embedding => (Extent::Rows, spec.embedding_width()),
            OutputKind::Logits(head) => {
                (if head.kind.per_token() { Extent::Tokens } else { Extent::Rows }, head.labels as usize)
            }
        };
        checker.want(buffer.extent == extent && buffer.width == width, "an output's shape")?;
        if let Scope::Only(table) | Scope::Except(table) = output.scope {
            checker.table(table, buffer.extent)?;
        }
    }
    Ok(())
}

impl StepKind {
    /// The buffer that the step writes.
    #[must_use]
    pub fn target(&self) -> BufferId {
        match *self {
            Self::Embed { out, .. }
            | Self::Patches { out }
            | Self::LayerNorm { out, .. }
            | Self::Linear { out, .. }
            | Self::LowRank { out, .. }
            | Self::Attention { out, .. }
            | Self::Add { out, .. }
            | Self::Pool { out, .. }
            | Self::MixedLowRank { out, .. }
            | Self::Copy { out, .. }
            | Self::Positions { out, .. }
            | Self::Rotate { out, .. }
            | Self::Gate { out, .. }
            | Self::Unfold { out, .. } => out,
            Self::Bottleneck { h, .. } => h,
            Self::Insert { x, .. }
            | Self::Couple { x, .. }
            | Self::Reft { x, .. }
            | Self::Offset { x, .. }
            | Self::Activate { x, .. }
            | Self::Normalize { x } => x,
        }
    }

    /// Its name in `explain`, errors and profiles.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embed { .. } => "embed",
            Self::Patches { .. } => "patches",
            Self::LayerNorm { .. } => "layer norm",
            Self::Linear { .. } => "linear",
            Self::LowRank { .. } => "low-rank",
            Self::Offset { .. } => "offset",
            Self::Attention { .. } => "attention",
            Self::Add { .. } => "add",
            Self::Activate { .. } => "activate",
            Self::Pool { .. } => "pool",
            Self::Normalize { .. } => "normalize",
            Self::Bottleneck { .. } => "bottleneck",
            Self::Couple { .. } => "couple",
            Self::Insert { .. } => "insert",
            Self::Reft { .. } => "reft",
            Self::MixedLowRank { .. } => "mixed low-rank",
            Self::Copy { .. } => "copy",
            Self::Positions { .. } => "positions",
            Self::Rotate { .. } => "rotate",
            Self::Gate { .. } => "gate",
            Self::Unfold { .. } => "unfold",
        }
    }
}

struct Checker<'a> {
    program: &'a Program,
    spec: &'a ModelSpec,
    index: usize,
}

impl Checker<'_> {
    fn want(&self, ok: bool, what: &str) -> Result<()> {
        if ok {
            return Ok(());
        }
        let step = self.program.steps.get(self.index).map_or("outputs", |s| s.kind.name());
        Err(Error::Program(format!("step {} ({step}): {what} does not fit", self.index)))
    }

    fn buffer(&self, id: BufferId) -> Result<BufferDesc> {
        let found = self.program.buffers.get(id.0 as usize).copied();
        self.want(found.is_some_and(|b| b.width > 0), "a buffer")?;
        found.ok_or_else(|| Error::Program("a buffer is missing".into()))
    }

    fn weight(&self, id: WeightId, rows: usize, cols: usize) -> Result<()> {
        let fits = self.spec.weights.get(id.0 as usize).is_some_and(|w| w.rows == rows && w.cols == cols);
        self.want(fits, "a weight's shape")
    }

    fn table(&self, id: TableId, extent: Extent) -> Result<()> {
        let fits = self.program.tables.get(id.0 as usize).is_some_and(|t| t.extent == extent);
        self.want(fits, "a table's extent")
    }

    fn payload_table(&self, id: TableId, extent: Extent) -> Result<()> {
        self.table(id, extent)?;
        let patches = matches!(self.program.tables[id.0 as usize].purpose, Purpose::Patches { .. });
        self.want(patches, "a table without payloads")
    }

    /// Two buffers of one extent whose widths are as `fits` says.
    fn columns(&self, x: BufferId, out: BufferId, fits: impl Fn(usize, usize) -> bool) -> Result<()> {
        self.want(x != out, "input and output must differ, which")?;
        let (x, out) = (self.buffer(x)?, self.buffer(out)?);
        self.want(x.extent == out.extent && fits(x.width, out.width), "the shape")
    }

    fn kind(&self, kind: &StepKind) -> Result<()> {
        match *kind {
            StepKind::Embed { out, word, position, token_type } => {
                let out = self.buffer(out)?;
                self.want(out.extent == Extent::Tokens && out.width == self.spec.embedding, "the shape")?;
                self.weight(word, self.spec.vocab, out.width)?;
                let table = |id: WeightId| self.spec.weights.get(id.0 as usize).is_some_and(|w| w.cols == out.width);
                self.want(position.is_none_or(table), "the position table")?;
                token_type.map_or(Ok(()), |t| self.weight(t, self.spec.token_types, out.width))
            }
            StepKind::Patches { out } => {
                let width = self.spec.image.map(|image| image.width());
                let out = self.buffer(out)?;
                self.want(out.extent == Extent::Tokens && Some(out.width) == width, "the shape")
            }
            StepKind::LayerNorm { x, out, gamma, beta, replaced, .. } => {
                let (x, out) = (self.buffer(x)?, self.buffer(out)?);
                self.want(x == out, "input and output")?;
                self.want(gamma.is_some() || beta.is_none() && replaced.is_some(), "the weights")?;
                for id in [gamma, beta].into_iter().flatten() {
                    self.weight(id, 1, x.width)?;
                }
                replaced.map_or(Ok(()), |t| self.payload_table(t, x.extent))
            }
            StepKind::Linear { x, out, weight, bias, replaced } => {
                self.want(x != out, "input and output must differ, which")?;
                let (x, out) = (self.buffer(x)?, self.buffer(out)?);
                self.want(x.extent == out.extent, "the extent")?;
                self.want(weight.is_some() || replaced.is_some(), "the weights")?;
                weight.map_or(Ok(()), |w| self.weight(w, out.width, x.width))?;
                bias.map_or(Ok(()), |b| self.weight(b, 1, out.width))?;
                replaced.map_or(Ok(()), |t| self.payload_table(t, x.extent))
            }
            StepKind::LowRank { x, out, table } | StepKind::MixedLowRank { x, out, table } => {
                self.want(x != out, "input and output must differ, which")?;
                let (x, out) = (self.buffer(x)?, self.buffer(out)?);
                self.want(x.extent == out.extent, "the extent")?;
                self.payload_table(table, x.extent)
            }
            StepKind::Bottleneck { h, x, table, norm, turn: _ } => {
                self.want(x != h, "input and output must differ, which")?;
                let (x, h) = (self.buffer(x)?, self.buffer(h)?);
                self.want(x == h && h.extent == Extent::Tokens, "the shape")?;
                if let Some(norm) = norm {
                    self.weight(norm.gamma, 1, h.width)?;
                    norm.beta.map_or(Ok(()), |b| self.weight(b, 1, h.width))?;
                    norm.replaced.map_or(Ok(()), |t| self.payload_table(t, h.extent))?;
                }
                self.payload_table(table, h.extent)
            }
            StepKind::Copy { x, first, out } => self.columns(x, out, |x, out| first + out <= x),
            StepKind::Rotate { x, first, out, heads, .. } => {
                self.want(self.buffer(out)?.extent == Extent::Tokens, "the extent")?;
                self.columns(x, out, |x, out| first + out <= x && heads > 0 && out.is_multiple_of(2 * heads))
            }
            StepKind::Gate { x, out, .. } => self.columns(x, out, |x, out| x == 2 * out),
            StepKind::Unfold { x, out } => {
                self.want(self.buffer(out)?.extent == Extent::Tokens, "the extent")?;
                self.columns(x, out, |x, out| out.is_multiple_of(x) && (out / x) % 2 == 1)
            }
            StepKind::Positions { out, table } => {
                let (out, relative) = (self.buffer(out)?, self.spec.relative);
                self.want(out.extent == Extent::Positions && relative.is_some(), "the extent")?;
                self.weight(table, relative.map_or(0, |r| r.buckets.rows() as usize), out.width)
            }
            StepKind::Insert { x, table } | StepKind::Couple { x, table, .. } | StepKind::Reft { x, table } => {
                let x = self.buffer(x)?;
                self.want(x.extent == Extent::Tokens, "the extent")?;
                self.payload_table(table, x.extent)
            }
            StepKind::Offset { x, table } => self.payload_table(table, self.buffer(x)?.extent),
            StepKind::Attention { q, k, v, out, heads, prefix, relative, .. } => {
                self.want(![q, k, v].contains(&out), "input and output must differ, which")?;
                let shape = self.buffer(out)?;
                self.want(shape.extent == Extent::Tokens && heads > 0 && shape.width % heads == 0, "the shape")?;
                for id in [q, k, v] {
                    self.want(self.buffer(id)? == shape, "the shape")?;
                }
                for id in relative.into_iter().flat_map(super::RelativeBuffers::ids) {
                    let width = if relative.and_then(|r| r.bias) == Some(id) { heads } else { shape.width };
                    let want = BufferDesc { extent: Extent::Positions, width };
                    self.want(self.buffer(id)? == want, "the relative positions")?;
                }
                let Some(prefix) = prefix else { return Ok(()) };
                self.want(self.buffer(prefix.x)?.extent == Extent::Tokens, "the prefix's input")?;
                self.want(prefix.tables().all(|t| (t.0 as usize) < self.program.tables.len()), "a table")?;
                prefix.tables().try_for_each(|t| self.payload_table(t, Extent::Tokens))
            }
            StepKind::Add { a, b, out } => {
                let shape = self.buffer(out)?;
                self.want(self.buffer(a)? == shape && self.buffer(b)? == shape, "the shape")
            }
            StepKind::Activate { x, .. } | StepKind::Normalize { x } => self.buffer(x).map(|_| ()),
            StepKind::Pool { x, out, .. } => {
                let (x, out) = (self.buffer(x)?, self.buffer(out)?);
                self.want(x.extent == Extent::Tokens && out.extent == Extent::Rows && x.width == out.width, "the shape")
            }
        }
    }
}
