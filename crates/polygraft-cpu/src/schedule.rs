//! Which kernels a Program runs on: runs of canonical steps that one kernel covers, found by a table.
//!
//! A kernel is right when it agrees with the steps that it covers, evaluated one by one: the tests hold every row of
//! [`KERNELS`] to that.

use crate::linear::{Rounding, rounding};
use crate::store::Store;
use polygraft::backend::Precision;
use polygraft::program::{BufferId, Program, Scope, StepKind};
use std::ops::Range;

/// Kernels in the order in which a Program runs them.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Its name in profiles.
    pub(crate) name: &'static str,
    /// The steps that it covers.
    pub(crate) steps: Range<usize>,
    pub(crate) work: Work,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// The step by itself.
    Step,
    /// Linear layers that read one input, and what follows them.
    Linear(Linear),
}

/// Linear layers that read one input, and what follows them.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) products: Vec<Product>,
    pub(crate) then: Then,
    /// The input is there in 8 bits: the kernel before handed it over.
    pub(crate) takes: bool,
    /// The output is left in 8 bits only, for the kernel after.
    pub(crate) hands_over: bool,
}

/// A linear layer and the low-rank updates of its output, by their places in the Program.
#[derive(Debug)]
pub(crate) struct Product {
    pub(crate) step: usize,
    pub(crate) updates: Range<usize>,
}

/// What follows a linear layer, by its place in the Program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    Activate(usize),
    AddNorm { add: usize, norm: usize },
}

/// A part of what a kernel covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A linear layer and any number of low-rank updates of it.
    Linear,
    Activate,
    Add,
    LayerNorm,
}

/// A kernel over several steps.
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    /// The run of steps that it replaces.
    pub(crate) covers: &'static [Part],
    /// Whether the steps hang together as the kernel needs it, given the place of each part.
    fits: fn(&Program, &[usize]) -> bool,
}

/// From the longest to the shortest: the first that fits is taken.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel { name: "linear x3", covers: &[Part::Linear, Part::Linear, Part::Linear], fits: share_input },
    Kernel { name: "linear, add, norm", covers: &[Part::Linear, Part::Add, Part::LayerNorm], fits: residual },
    Kernel { name: "linear, activate", covers: &[Part::Linear, Part::Activate], fits: activated },
    Kernel { name: "linear", covers: &[Part::Linear], fits: |_, _| true },
];

/// Kernels for every step of `program`.
pub(crate) fn schedule(program: &Program, store: &Store, precision: Precision) -> Vec<Pass> {
    let mut passes = Vec::new();
    let mut at = 0;
    while at < program.steps.len() {
        let found = KERNELS.iter().find_map(|kernel| kernel.at(program, at));
        let pass = found.unwrap_or_else(|| {
            let name = program.steps[at].kind.name();
            Pass { name, steps: at..at + 1, work: Work::Step }
        });
        at = pass.steps.end;
        passes.push(pass);
    }
    for index in 1..passes.len() {
        let (before, after) = passes.split_at_mut(index);
        if let (Work::Linear(from), Work::Linear(to)) = (&mut before[index - 1].work, &mut after[0].work)
            && hand_over(program, store, precision, from, to)
        {
            (from.hands_over, to.takes) = (true, true);
        }
    }
    passes
}

impl Kernel {
    /// The pass that starts at step `start`, if this kernel covers the steps from there on.
    fn at(&self, program: &Program, start: usize) -> Option<Pass> {
        let (mut products, mut places, mut at) = (Vec::new(), Vec::new(), start);
        for part in self.covers {
            let kind = program.steps.get(at)?.kind;
            let is = matches!(
                (part, kind),
                (Part::Linear, StepKind::Linear { .. })
                    | (Part::Activate, StepKind::Activate { .. })
                    | (Part::Add, StepKind::Add { .. })
                    | (Part::LayerNorm, StepKind::LayerNorm { .. })
            );
            if !is {
                return None;
            }
            places.push(at);
            at += 1;
            if let StepKind::Linear { x, out, .. } = kind {
                let step = at - 1;
                let of = |kind| matches!(kind, StepKind::LowRank { x: i, out: o, .. } if (i, o) == (x, out));
                while program.steps.get(at).is_some_and(|s| of(s.kind)) {
                    at += 1;
                }
                products.push(Product { step, updates: step + 1..at });
            }
        }
        if !(self.fits)(program, &places) {
            return None;
        }
        let then = match *self.covers {
            [.., Part::Activate] => Then::Activate(at - 1),
            [.., Part::Add, Part::LayerNorm] => Then::AddNorm { add: at - 2, norm: at - 1 },
            _ => Then::Nothing,
        };
        let work = Work::Linear(Linear { products, then, takes: false, hands_over: false });
        Some(Pass { name: self.name, steps: start..at, work })
    }
}

fn same_scope(program: &Program, places: &[usize]) -> bool {
    places.iter().all(|&p| program.steps[p].scope == program.steps[places[0]].scope)
}

/// Several layers read the same rows of one buffer and write to others.
fn share_input(program: &Program, places: &[usize]) -> bool {
    let input = |p: usize| match program.steps[p].kind {
        StepKind::Linear { x, .. } => Some(x),
        _ => None,
    };
    let outs: Vec<BufferId> = places.iter().map(|&p| program.steps[p].kind.target()).collect();
    let shared = places.iter().all(|&p| input(p) == input(places[0]) && input(p) != Some(outs[0]));
    let apart = outs.iter().enumerate().all(|(i, out)| !outs[..i].contains(out) && input(places[0]) != Some(*out));
    shared && apart && same_scope(program, places)
}

/// The layer's output is added to a buffer, in place, and that is normed, in place.
fn residual(program: &Program, places: &[usize]) -> bool {
    let [linear, add, norm] = [0, 1, 2].map(|i| program.steps[places[i]].kind);
    let (StepKind::Linear { x: input, out: branch, .. }, StepKind::Add { a, b, out: sum }) = (linear, add) else {
        return false;
    };
    let StepKind::LayerNorm { x, out, .. } = norm else { return false };
    let operands = [a, b] == [sum, branch] || [a, b] == [branch, sum];
    operands && branch != sum && input != sum && [x, out] == [sum, sum] && same_scope(program, places)
}

/// The layer's output passes through a function, in place.
fn activated(program: &Program, places: &[usize]) -> bool {
    let [linear, activate] = [0, 1].map(|i| program.steps[places[i]].kind);
    linear.target() == activate.target() && same_scope(program, places)
}

/// Whether what `from` computes is only ever read in 8 bits, by `to`.
fn hand_over(program: &Program, store: &Store, precision: Precision, from: &Linear, to: &Linear) -> bool {
    let (Then::Activate(_), [product]) = (from.then, from.products.as_slice()) else { return false };
    let buffer = program.steps[product.step].kind.target();
    let in_codes = |p: &Product| {
        let step = &program.steps[p.step];
        let StepKind::Linear { x, weight: Some(weight), replaced: None, .. } = step.kind else { return false };
        let quantized = store.panels(weight).is_ok_and(|w| w.is_quantized());
        x == buffer
            && p.updates.is_empty()
            && step.scope == Scope::All
            && quantized
            && rounding(step, precision) == Rounding::Once
    };
    let last = to.products.last().map_or(0, |p| p.step);
    let later = program.steps[last + 1..].iter().find(|s| s.kind.target() == buffer || reads(&s.kind, buffer));
    let gone =
        later.is_none_or(|s| s.scope == Scope::All && matches!(s.kind, StepKind::Linear { out, .. } if out == buffer));
    program.steps[product.step].scope == Scope::All
        && to.products.iter().all(in_codes)
        && gone
        && program.outputs.iter().all(|o| o.buffer != buffer)
}

fn reads(kind: &StepKind, buffer: BufferId) -> bool {
    match *kind {
        StepKind::Embed { .. } | StepKind::Patches { .. } | StepKind::Positions { .. } => false,
        StepKind::LayerNorm { x, .. }
        | StepKind::Linear { x, .. }
        | StepKind::Pool { x, .. }
        | StepKind::Offset { x, .. }
        | StepKind::Activate { x, .. }
        | StepKind::Normalize { x } => x == buffer,
        StepKind::LowRank { x, out, .. } | StepKind::MixedLowRank { x, out, .. } => x == buffer || out == buffer,
        StepKind::Bottleneck { h, x, .. } => h == buffer || x == buffer,
        StepKind::Insert { x, .. }
        | StepKind::Couple { x, .. }
        | StepKind::Reft { x, .. }
        | StepKind::Copy { x, .. }
        | StepKind::Rotate { x, .. }
        | StepKind::Gate { x, .. }
        | StepKind::Unfold { x, .. } => x == buffer,
        StepKind::Attention { q, k, v, prefix, relative, .. } => {
            let placed = relative.is_some_and(|r| r.ids().any(|id| id == buffer));
            [q, k, v].contains(&buffer) || prefix.is_some_and(|p| p.x == buffer) || placed
        }
        StepKind::Add { a, b, .. } => a == buffer || b == buffer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use polygraft::backend::{Backend, Call, Poll};
    use polygraft::ir::{LowRank, Op, Payload, PayloadId};
    use polygraft::model::{Activation, WeightId};
    use polygraft::program::{
        BufferDesc, Extent, Output, OutputKind, Purpose, Segment, Step, Table, TableDesc, TableId, Tables,
    };
    use polygraft::reference::Reference;
    use polygraft::tensor::{Matrix, Scheme};
    use polygraft::testing::{Random, store};
    use std::sync::Arc;

    /// The steps of one kernel over random numbers.
    struct Case {
        program: Program,
        weights: Vec<Matrix>,
        tables: Tables,
        /// What the kernel writes.
        written: Vec<BufferId>,
    }

    impl Case {
        /// `segments` low-rank runs of rows for each linear layer; inputs and weights of extreme codes when `extreme`.
        fn new(
            kernel: &Kernel,
            (t, k, n): (usize, usize, usize),
            scheme: Scheme,
            segments: usize,
            extreme: bool,
        ) -> Self {
            let mut random = Random((t * k + n * 7 + segments) as u64);
            let program = Program { steps: Vec::new(), buffers: Vec::new(), tables: Vec::new(), outputs: Vec::new() };
            let tables = Tables { ids: (0..t as u32).collect(), ..Tables::default() };
            let mut case = Self { program, weights: Vec::new(), tables, written: Vec::new() };
            case.tables.positions = vec![0; t];
            case.tables.token_types = vec![0; t];
            case.tables.cu_seqlens = vec![0, t as u32];
            let x = case.input(t, k, &mut random, extreme);
            let mut last = x;
            for part in kernel.covers {
                match part {
                    Part::Linear => last = case.linear(x, k, n, scheme, segments, &mut random, extreme),
                    Part::Activate => case.step(StepKind::Activate { x: last, function: Activation::Gelu }),
                    Part::Add => {
                        let h = case.input(t, n, &mut random, false);
                        // Before the kernel's own steps.
                        let embed = case.program.steps.pop().unwrap();
                        case.program.steps.insert(1, embed);
                        case.step(StepKind::Add { a: h, b: last, out: h });
                        case.written.push(h);
                        last = h;
                    }
                    Part::LayerNorm => {
                        let [gamma, beta] = [1.0, 0.0].map(|c| {
                            Some(case.weight(Matrix::vector(random.vec(n, 0.3).into_iter().map(|x| x + c).collect())))
                        });
                        let eps_bits = 1e-5f32.to_bits();
                        case.step(StepKind::LayerNorm { x: last, out: last, gamma, beta, eps_bits, replaced: None });
                    }
                }
            }
            case
        }

        fn weight(&mut self, matrix: Matrix) -> WeightId {
            self.weights.push(matrix);
            WeightId(self.weights.len() as u32 - 1)
        }

        fn buffer(&mut self, width: usize) -> BufferId {
            self.program.buffers.push(BufferDesc { extent: Extent::Tokens, width });
            BufferId(self.program.buffers.len() as u32 - 1)
        }

        fn step(&mut self, kind: StepKind) {
            self.program.steps.push(Step { kind, scope: Scope::All, origin: None });
        }

        fn input(&mut self, t: usize, width: usize, random: &mut Random, extreme: bool) -> BufferId {
            let values = (0..t * width).map(|i| if extreme { [127.0, -127.0][i / 2 % 2] } else { 2.0 * random.unit() });
            let word = self.weight(Matrix::dense(t, width, values.collect()).unwrap());
            let position = Some(self.weight(Matrix::dense(1, width, vec![0.0; width]).unwrap()));
            let out = self.buffer(width);
            self.step(StepKind::Embed { out, word, position, token_type: None });
            out
        }

        #[allow(clippy::too_many_arguments, reason = "one layer's particulars")]
        fn linear(
            &mut self,
            x: BufferId,
            k: usize,
            n: usize,
            scheme: Scheme,
            segments: usize,
            random: &mut Random,
            extreme: bool,
        ) -> BufferId {
            let spread = 1.0 / (k as f32).sqrt();
            // Blocks whose largest code is at the far negative end have code 0 there and 15 elsewhere.
            let values = (0..n * k).map(|i| match (extreme, i % 4) {
                (true, 0 | 1) => -0.008,
                (true, _) => 0.007,
                (false, _) => random.unit() * spread,
            });
            let weight = store(n, k, values.collect(), scheme);
            let weight = Some(self.weight(weight));
            let bias = Some(self.weight(Matrix::vector(random.vec(n, 0.2))));
            let out = self.buffer(n);
            self.step(StepKind::Linear { x, out, weight, bias, replaced: None });
            self.written.push(out);
            if segments > 0 {
                let t = self.tables.ids.len();
                let table = TableId(self.program.tables.len() as u32);
                self.program.tables.push(TableDesc { extent: Extent::Tokens, purpose: Purpose::Shifted });
                let mut own = Table::default();
                for i in 0..segments {
                    let range = i * t / segments..((i + 1) * t / segments).saturating_sub(i % 2);
                    if range.is_empty() {
                        continue;
                    }
                    let rank = 1 + random.below(17);
                    let a = store(rank, k, random.vec(rank * k, spread), Scheme::F32);
                    let b = store(n, rank, random.vec(n * rank, 0.3), Scheme::F32);
                    let bias = (i % 3 == 0).then(|| random.vec(n, 0.3));
                    let id = PayloadId(self.tables.payloads.len() as u64);
                    let op = Op::LowRank(LowRank { a, b, bias, scale: 0.7 });
                    own.segments.push(Segment { range, payload: Some(id.0 as u32), scale: 0.9 });
                    self.tables.payloads.push(Arc::new(Payload { id, op }));
                }
                self.tables.tables.push(own);
                let kind = StepKind::LowRank { x, out, table };
                self.program.steps.push(Step { kind, scope: Scope::Only(table), origin: None });
            }
            out
        }

        fn run<B: Backend>(&self, mut backend: B, precision: Precision) -> (Vec<Vec<f32>>, B) {
            for (i, weight) in self.weights.iter().enumerate() {
                backend.load_weight(WeightId(i as u32), weight.clone()).unwrap();
            }
            let (program, tables) = (Arc::new(self.program.clone()), Arc::new(self.tables.clone()));
            let mut run = backend.begin(Call { program, tables, precision }).unwrap();
            while backend.advance(&mut run, &mut || false).unwrap() != Poll::Done {}
            (self.written.iter().map(|&id| backend.read(&run, id).unwrap()).collect(), backend)
        }
    }

    /// The largest difference, in parts of the largest value.
    fn apart(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
        let peak = b.iter().flatten().fold(1.0f32, |m, x| m.max(x.abs()));
        let pairs = a.iter().flatten().zip(b.iter().flatten());
        pairs.map(|(a, b)| if a.is_finite() { (a - b).abs() } else { f32::INFINITY }).fold(0.0, f32::max) / peak
    }

    #[test]
    fn every_kernel_is_the_steps_that_it_covers() {
        let shapes = [(1, 32, 8), (3, 64, 33), (17, 32, 7), (513, 96, 40), (260, 32, 65)];
        for kernel in KERNELS {
            for shape in shapes {
                for (segments, scheme) in [(0, Scheme::Q4_0), (1, Scheme::Q8_0), (5, Scheme::Q4_0), (2, Scheme::F32)] {
                    let case = Case::new(kernel, shape, scheme, segments, false);
                    let (want, _) = case.run(Reference::new(), Precision::Exact);
                    let (got, cpu) = case.run(Cpu::new(), Precision::Exact);
                    let names: Vec<_> = schedule(&case.program, &cpu.store, Precision::Exact).into_iter().collect();
                    assert!(names.iter().any(|p| p.name == kernel.name), "{}: {names:?}", kernel.name);
                    let what = format!("{} {shape:?} {scheme:?} {segments}", kernel.name);
                    assert!(apart(&got, &want) <= 2e-6, "{what}: {}", apart(&got, &want));
                    let (got, _) = case.run(Cpu::new(), Precision::Fast);
                    assert!(apart(&got, &want) <= 2e-2, "{what}, fast: {}", apart(&got, &want));
                }
            }
        }
    }

    #[test]
    fn extreme_codes_do_not_overflow_in_any_kernel() {
        for kernel in KERNELS {
            for scheme in [Scheme::Q4_0, Scheme::Q8_0] {
                let case = Case::new(kernel, (5, 64, 16), scheme, 0, true);
                let (want, _) = case.run(Reference::new(), Precision::Exact);
                let (got, _) = case.run(Cpu::new(), Precision::Fast);
                // An overflow would be off by more than a half.
                assert!(apart(&got, &want) <= 1e-3, "{} {scheme:?}: {}", kernel.name, apart(&got, &want));
            }
        }
    }

    #[test]
    fn what_only_the_next_layer_reads_is_handed_over_in_codes() {
        let kernel = KERNELS.iter().find(|k| k.covers == [Part::Linear, Part::Activate]).unwrap();
        for t in [1, 3, 17, 513] {
            let mut case = Case::new(kernel, (t, 64, 96), Scheme::Q4_0, 2, false);
            let middle = case.written.pop().unwrap();
            case.linear(middle, 96, 40, Scheme::Q4_0, 0, &mut Random(3), false);
            let handed = |case: &Case, store: &Store, precision| {
                let passes = schedule(&case.program, store, precision);
                passes.iter().any(|p| matches!(&p.work, Work::Linear(l) if l.hands_over))
            };
            let (want, _) = case.run(Reference::new(), Precision::Exact);
            let (got, cpu) = case.run(Cpu::new(), Precision::Fast);
            assert!(handed(&case, &cpu.store, Precision::Fast) && !handed(&case, &cpu.store, Precision::Exact));
            assert!(apart(&got, &want) <= 2e-2, "{t}: {}", apart(&got, &want));
            // Not when someone else reads it.
            case.program.outputs.push(Output { kind: OutputKind::Hidden, buffer: middle, scope: Scope::All });
            assert!(!handed(&case, &cpu.store, Precision::Fast));
        }
    }
}
