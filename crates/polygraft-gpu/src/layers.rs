//! The layers that an adapter's op runs itself, as `project` reads them from the arena.

use crate::arena::Span;
use crate::failed;
use crate::matrix::Placed;
use crate::params::NONE;
use polygraft::Result;
use polygraft::ir::{Coupling, Gate, MixedLowRank, Mixing, Mlp, Op, OwnNorm, Reft};
use polygraft::tensor::Matrix;

/// A linear layer in the arena.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    weight: Placed,
    bias: Option<Span>,
}

/// All that an op runs. Which layer stands where is a matter of its kind; the functions below say.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    list: Vec<Layer>,
    /// Scale and shift of norms.
    norms: Vec<[Span; 2]>,
    /// Rows of the width of a token, padded to fours: where, and how many.
    rows: Vec<(Span, u32)>,
    /// Fours that a token needs between two layers, or for its gates.
    pub(crate) inner: u32,
}

/// What a launch needs of a layer for some rows: where the weight is, its form and book, bias, inputs, outputs, scale.
pub(crate) type Args = [u32; 7];

impl Layer {
    pub(crate) fn args(&self, scale: f32) -> Args {
        let bias = self.bias.map_or(NONE, |b| b.start);
        let ([at, form, book], Placed { inputs, outputs, .. }) = (self.weight.words(), self.weight);
        [at, form, book, bias, inputs, outputs, scale.to_bits()]
    }
}

impl Layers {
    pub(crate) fn layer(&self, index: usize) -> Result<Layer> {
        self.list.get(index).copied().ok_or_else(|| failed("an op without one of its layers".into()))
    }

    /// Scale and shift of a norm.
    pub(crate) fn norm(&self, index: usize) -> Result<Args> {
        let found = self.norms.get(index).ok_or_else(|| failed("an op without one of its norms".into()))?;
        Ok([found[0].start, found[1].start, 0, 0, 0, 0, 0])
    }

    /// Where rows begin, and how many there are.
    pub(crate) fn rows(&self, index: usize) -> Result<(u32, u32)> {
        let found = self.rows.get(index).ok_or_else(|| failed("an op without its rows".into()))?;
        Ok((found.0.start, found.1))
    }

    /// Rows that it puts in front of a row's keys.
    pub(crate) fn slots(&self) -> usize {
        self.rows.first().map_or(0, |(_, n)| *n as usize)
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        let layers = self.list.iter().flat_map(|l| l.weight.spans().chain(l.bias));
        let rows = self.rows.iter().map(|(span, _)| *span);
        layers.chain(self.norms.iter().flatten().copied()).chain(rows)
    }
}

/// Puts numbers into the arena.
pub(crate) struct Upload<'p> {
    put: &'p mut dyn FnMut(&[u32]) -> Result<Span>,
    out: Layers,
}

impl<'p> Upload<'p> {
    pub(crate) fn new(put: &'p mut dyn FnMut(&[u32]) -> Result<Span>) -> Self {
        Self { put, out: Layers::default() }
    }

    /// The layers of `op`: of a bottleneck down, up and gate; of a fusion those that it has of query, key and value; of a
    /// coupling both of `F` and both of `G`; of an intervention source, projection and its transpose, first and last; of
    /// a low-rank update A, gate or router, and B of each expert; of a prefix one with both gates. `None` for ops that run
    /// none.
    pub(crate) fn layers(mut self, op: &Op) -> Result<Option<Layers>> {
        match op {
            Op::Bottleneck(b) => {
                self.inner(b.down.rows());
                self.matrix(&b.down, Some(&b.down_bias))?;
                self.matrix(&b.up, Some(&b.up_bias))?;
                b.gate.as_ref().map_or(Ok(()), |g| self.gates(std::slice::from_ref(g)))?;
                [&b.norm_before, &b.norm_after].into_iter().flatten().try_for_each(|n| self.norm(n))?;
            }
            Op::Fusion(f) => {
                for (matrix, bias) in [&f.query, &f.key].into_iter().flatten() {
                    self.matrix(matrix, Some(bias))?;
                }
                f.value.as_ref().map_or(Ok(()), |v| self.matrix(v, None))?;
            }
            // Its members come along by themselves.
            Op::Blend(_) => {}
            Op::Coupling(c) => self.coupling(c)?,
            Op::Reft(r) => self.reft(r)?,
            Op::MixedLowRank(m) => self.mixed(m)?,
            Op::LowRank(_) | Op::Offset(_) | Op::ReplaceLinear(_) | Op::ReplaceNorm(_) => return Ok(None),
            Op::Prompt(p) => self.rows(&p.vectors)?,
            Op::Prefix(p) => {
                self.rows(&p.keys)?;
                self.rows(&p.values)?;
                p.gates.as_ref().map_or(Ok(()), |gates| self.gates(gates))?;
            }
            // Rows of the table were changed when they were gathered.
            Op::Rewording(_) => {}
            Op::Reweight(_) => return Ok(None),
        }
        Ok(Some(self.out))
    }

    fn inner(&mut self, width: usize) {
        self.out.inner = self.out.inner.max(width.div_ceil(4) as u32);
    }

    /// A layer of `outputs × inputs` numbers, each `at` its output and input.
    fn layer(
        &mut self,
        outputs: usize,
        inputs: usize,
        bias: Option<&[f32]>,
        at: impl Fn(usize, usize) -> f32,
    ) -> Result<()> {
        let weight = Placed::of(self.put, outputs, inputs, at)?;
        self.with(weight, bias)
    }

    fn matrix(&mut self, matrix: &Matrix, bias: Option<&[f32]>) -> Result<()> {
        let weight = Placed::put(self.put, matrix)?;
        self.with(weight, bias)
    }

    fn with(&mut self, weight: Placed, bias: Option<&[f32]>) -> Result<()> {
        let bias = bias.map(|b| self.floats(b)).transpose()?;
        self.out.list.push(Layer { weight, bias });
        Ok(())
    }

    fn floats(&mut self, values: &[f32]) -> Result<Span> {
        (self.put)(bytemuck::cast_slice(values))
    }

    /// One layer with a number for each gate.
    fn gates(&mut self, gates: &[Gate]) -> Result<()> {
        self.inner(gates.len());
        let bias: Vec<f32> = gates.iter().map(|g| g.bias).collect();
        let inputs = gates.first().map_or(0, |g| g.weight.len());
        self.layer(gates.len(), inputs, Some(&bias), |output, input| gates[output].weight[input])
    }

    fn rows(&mut self, matrix: &Matrix) -> Result<()> {
        let stride = matrix.cols().next_multiple_of(4);
        let mut values = vec![0.0; matrix.rows() * stride];
        for (row, to) in values.chunks_exact_mut(stride).enumerate() {
            matrix.decode_row(row, &mut to[..matrix.cols()]);
        }
        let span = self.floats(&values)?;
        self.out.rows.push((span, matrix.rows() as u32));
        Ok(())
    }

    fn norm(&mut self, norm: &OwnNorm) -> Result<()> {
        let both = [self.floats(&norm.gamma)?, self.floats(&norm.beta)?];
        self.out.norms.push(both);
        Ok(())
    }

    /// Both read whole tokens and write whole tokens, with zeros for the half that is not theirs: halves need not begin
    /// at a multiple of four.
    fn coupling(&mut self, coupling: &Coupling) -> Result<()> {
        let half = coupling.f.second.rows();
        self.inner(coupling.f.first.rows().max(coupling.g.first.rows()));
        let width = half + coupling.g.second.rows();
        let mut both = |mlp: &Mlp, from: usize, to: usize| {
            let (first, second) = (mlp.first.to_f32(), mlp.second.to_f32());
            let (inputs, inner, outputs) = (mlp.first.cols(), mlp.first.rows(), mlp.second.rows());
            let inside = |at: usize, start: usize, n: usize| at.checked_sub(start).filter(|at| *at < n);
            self.layer(inner, width, Some(&mlp.first_bias), |output, input| {
                inside(input, from, inputs).map_or(0.0, |i| first[output * inputs + i])
            })?;
            let mut bias = vec![0.0; width];
            bias[to..to + outputs].copy_from_slice(&mlp.second_bias);
            self.layer(width, inner, Some(&bias), |output, input| {
                inside(output, to, outputs).map_or(0.0, |o| second[o * inner + input])
            })
        };
        both(&coupling.f, half, 0)?;
        both(&coupling.g, 0, half)
    }

    fn reft(&mut self, reft: &Reft) -> Result<()> {
        for unit in std::iter::once(&reft.first).chain(&reft.last) {
            self.inner(unit.source.rows());
            self.matrix(&unit.source, Some(&unit.bias))?;
            self.matrix(&unit.projection, None)?;
            let (values, cols) = (unit.projection.to_f32(), unit.projection.cols());
            self.layer(cols, unit.projection.rows(), None, |output, input| values[input * cols + output])?;
        }
        Ok(())
    }

    fn mixed(&mut self, own: &MixedLowRank) -> Result<()> {
        let (lora, bias) = (&own.lora, own.lora.bias.as_deref());
        self.inner(lora.a.rows().max(lora.b.cols() / lora.a.rows().max(1)));
        self.matrix(&lora.a, None)?;
        match &own.mixing {
            Mixing::Gate(gates) => self.gates(gates)?,
            Mixing::Route(router) => self.matrix(router, None)?,
        }
        let (values, rank, cols) = (lora.b.to_f32(), lora.a.rows(), lora.b.cols());
        for expert in 0..cols / rank.max(1) {
            // Shares add up to one, so that each expert may bring the whole bias.
            self.layer(lora.b.rows(), rank, bias, |output, input| values[output * cols + expert * rank + input])?;
        }
        Ok(())
    }
}
