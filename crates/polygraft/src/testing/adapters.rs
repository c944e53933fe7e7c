//! Random adapters of every kind of change.

use super::{Random, head, store};
use crate::ir::{
    AdapterIr, BaseClaim, BlockSite, Bottleneck, Coupling, Dense, Fusion, Gate, LayerLinear, LinearSite, LowRank,
    MixedLowRank, Mixing, Mlp, Norm, NormSite, Offset, Op, OwnNorm, Patch, Prefix, Prompt, Reft, ReftUnit, Residual,
    RowChange, Rules, Site,
};
use crate::model::{Activation, ModelSpec};
use crate::quant::codes::{Book, Codes, Group};
use crate::tensor::{Matrix, Scheme, Storage};

/// A random adapter: low-rank updates on a random choice of layers, now and then an offset, a replaced bias or norm, a head.
///
/// # Panics
/// Never for a spec made by [`model`].
#[must_use]
pub fn adapter(spec: &ModelSpec, seed: u64) -> AdapterIr {
    let mut r = Random(seed ^ 0xada9);
    let mut patches = Vec::new();
    for layer in 0..spec.layers {
        for which in LayerLinear::ALL {
            let site = LinearSite::Layer(layer, which);
            let Some((rows, cols)) = spec.linear_shape(site) else { continue };
            if r.below(3) > 0 {
                let rank = 1 + r.below(9);
                let bias = (r.below(3) == 0).then(|| r.vec(rows, 0.2));
                let a = store(rank, cols, r.vec(rank * cols, 1.0 / (cols as f32).sqrt()), Scheme::F32);
                let b = store(rows, rank, r.vec(rows * rank, 0.5), Scheme::F32);
                let op = Op::LowRank(LowRank { a, b, bias, scale: 0.25 + r.unit().abs() });
                patches.push(Patch { site: Site::Linear(site), op });
            }
        }
        if r.below(4) == 0 {
            let op = Op::ReplaceNorm(Norm { gamma: None, beta: Some(r.vec(spec.hidden, 0.5)) });
            patches.push(Patch { site: Site::Norm(NormSite::AfterFfn(layer)), op });
        }
    }
    if r.below(3) == 0 {
        let (weight, bias) = (r.vec(spec.hidden * spec.hidden, 0.3), r.vec(spec.hidden, 0.3));
        let weight = Some(store(spec.hidden, spec.hidden, weight, Scheme::F32));
        let site = Site::Linear(LinearSite::Layer(0, LayerLinear::Value));
        patches.push(Patch { site, op: Op::ReplaceLinear(Dense { weight, bias: Some(bias) }) });
    }
    if r.below(2) == 0 {
        let op = Op::Offset(Offset { vector: r.vec(spec.embedding_width(), 0.3), query: None });
        patches.push(Patch { site: Site::Pooled, op });
    }
    let head = (r.below(3) == 0).then(|| head(1 + r.below(3) as u32));
    if let Some(head) = &head {
        let (n, bias) = (head.labels as usize, r.vec(head.labels as usize, 1.0));
        let weight = Some(store(n, spec.hidden, r.vec(n * spec.hidden, 0.3), Scheme::F32));
        let site = Site::Linear(LinearSite::HeadOutput);
        patches.push(Patch { site, op: Op::ReplaceLinear(Dense { weight, bias: Some(bias) }) });
    }
    AdapterIr { head, ..bare(patches) }
}

/// Random low-rank updates of `rank` at the layers `at`, stored as `scheme`: those of a benchmark.
#[must_use]
pub fn lora(spec: &ModelSpec, seed: u64, rank: usize, at: &[LayerLinear], scheme: Scheme) -> AdapterIr {
    let mut r = Random(seed);
    let mut patches = Vec::new();
    for layer in 0..spec.layers {
        for &which in at {
            let site = LinearSite::Layer(layer, which);
            let Some((rows, cols)) = spec.linear_shape(site) else { continue };
            let mut factor = |n: usize, k: usize| store(n, k, r.vec(n * k, 0.5 / (k as f32).sqrt()), scheme);
            let op = Op::LowRank(LowRank { a: factor(rank, cols), b: factor(rows, rank), bias: None, scale: 1.0 });
            patches.push(Patch { site: Site::Linear(site), op });
        }
    }
    bare(patches)
}

fn bare(patches: Vec<Patch>) -> AdapterIr {
    AdapterIr {
        family: "random",
        base: BaseClaim::default(),
        patches,
        head: None,
        language: None,
        fuses: None,
        chains: false,
        rows: RowChange::default(),
        copies: None,
        made_under: None,
        unused: Vec::new(),
        missing: Vec::new(),
    }
}

/// A random adapter of ops that run layers of their own: bottlenecks of all rules, gated and routed low-rank updates,
/// now and then coupled embeddings, interventions, keys and values in front, virtual tokens.
///
/// # Panics
/// Never for a spec made by [`model`].
#[must_use]
pub fn layered_adapter(spec: &ModelSpec, seed: u64) -> AdapterIr {
    let mut r = Random(seed ^ 0x1a7e);
    let (mut patches, width) = (Vec::new(), spec.hidden);
    let mut rows = RowChange::default();
    if r.below(3) == 0 {
        let half = width / 2;
        let [f, g] = [(width - half, half), (half, width - half)].map(|(from, to)| r.mlp(from, to));
        let activation = r.activation();
        patches.push(Patch { site: Site::Embeddings, op: Op::Coupling(Box::new(Coupling { f, g, activation })) });
    }
    if r.below(4) == 0 {
        let site = if r.below(2) == 0 { Site::Word } else { Site::Embeddings };
        let tokens = 1 + r.below(3);
        patches.push(Patch { site, op: Op::Prompt(Prompt { vectors: r.layer(tokens, width) }) });
        rows = RowChange { virtual_tokens: tokens as u32, after_first: r.below(2) == 0, ..rows };
    }
    let (intervenes, extends) = (r.below(3) == 0, r.below(3) == 0);
    for layer in 0..spec.layers {
        for site in [BlockSite::Attention(layer), BlockSite::Ffn(layer)] {
            if r.below(4) > 0 {
                let op = Op::Bottleneck(Box::new(r.bottleneck(width)));
                patches.push(Patch { site: Site::Block(site), op });
            }
        }
        for which in [LayerLinear::Value, LayerLinear::FfnIn] {
            let site = LinearSite::Layer(layer, which);
            let Some((outputs, inputs)) = spec.linear_shape(site).filter(|_| r.below(3) == 0) else { continue };
            patches.push(Patch { site: Site::Linear(site), op: Op::MixedLowRank(Box::new(r.mixed(outputs, inputs))) });
        }
        if extends {
            let slots = 1 + r.below(5);
            let gates = (r.below(2) == 0).then(|| [r.gate(width), r.gate(width)]);
            let (keys, values) = (r.layer(slots, width), r.layer(slots, width));
            patches.push(Patch { site: Site::Keys(layer), op: Op::Prefix(Box::new(Prefix { keys, values, gates })) });
        }
        if intervenes {
            let mut reft = r.reft(width);
            if rows.virtual_tokens > 0 {
                // Beside virtual tokens, short rows have no last positions to intervene in.
                reft.suffix = 0;
            }
            patches.push(Patch { site: Site::LayerOutput(layer), op: Op::Reft(Box::new(reft)) });
        }
    }
    AdapterIr { rows, ..bare(patches) }
}

/// A random fusion of the adapters `names`.
///
/// # Panics
/// Never for a spec made by [`model`].
#[must_use]
pub fn fusion(spec: &ModelSpec, seed: u64, names: &[&str]) -> AdapterIr {
    let (mut r, width) = (Random(seed ^ 0xf05e), spec.hidden);
    let sites = (0..spec.layers).flat_map(|layer| [BlockSite::Attention(layer), BlockSite::Ffn(layer)]);
    let patches = sites
        .map(|site| {
            let [query, key] = [(); 2].map(|()| (r.below(4) > 0).then(|| (r.layer(width, width), r.vec(width, 0.1))));
            let op = Op::Fusion(Box::new(Fusion {
                query,
                key,
                value: (r.below(4) > 0).then(|| r.layer(width, width)),
                query_before_norm: r.below(2) == 0,
                residual_before: r.below(2) == 0,
                temperature: if r.below(2) == 0 { 1.0 } else { 3.0 },
            }));
            Patch { site: Site::Block(site), op }
        })
        .collect();
    AdapterIr { fuses: Some(names.iter().map(|n| (*n).to_owned()).collect()), ..bare(patches) }
}

impl Random {
    /// A layer that keeps the size of numbers, about.
    fn layer(&mut self, rows: usize, cols: usize) -> Matrix {
        let values = self.vec(rows * cols, 1.2 / (cols as f32).sqrt());
        store(rows, cols, values, Scheme::F32)
    }

    fn activation(&mut self) -> Activation {
        let all = [Activation::Relu, Activation::Gelu, Activation::Tanh, Activation::Sigmoid, Activation::Silu];
        all[self.below(all.len())]
    }

    fn gate(&mut self, width: usize) -> Gate {
        Gate { weight: self.vec(width, 0.5), bias: self.unit() }
    }

    fn own_norm(&mut self, width: usize) -> OwnNorm {
        OwnNorm { gamma: self.vec(width, 0.3).iter().map(|x| x + 1.0).collect(), beta: self.vec(width, 0.3) }
    }

    fn mlp(&mut self, inputs: usize, outputs: usize) -> Mlp {
        let inner = 1 + self.below(9);
        let (first, second) = (self.layer(inner, inputs), self.layer(outputs, inner));
        Mlp { first, first_bias: self.vec(inner, 0.3), second, second_bias: self.vec(outputs, 0.3) }
    }

    fn bottleneck(&mut self, width: usize) -> Bottleneck {
        // Some are wider than what they read.
        let inner = if self.below(8) == 0 { width + 3 } else { 1 + self.below(13) };
        let parallel = self.below(5) == 0;
        let residual = [Residual::Input, Residual::Branch, Residual::Sum][self.below(3)];
        Bottleneck {
            norm_before: (self.below(4) == 0).then(|| self.own_norm(width)),
            down: self.layer(inner, width),
            down_bias: self.vec(inner, 0.3),
            activation: self.activation(),
            up: self.layer(width, inner),
            up_bias: self.vec(width, 0.3),
            gate: (self.below(3) == 0).then(|| self.gate(width)),
            norm_after: (self.below(4) == 0).then(|| self.own_norm(width)),
            rules: Rules {
                parallel,
                keeps: parallel,
                norm_before: self.below(2) == 0,
                residual,
                residual_inside: self.below(2) == 0,
                norm_after: self.below(4) > 0,
            },
        }
    }

    fn mixed(&mut self, outputs: usize, inputs: usize) -> MixedLowRank {
        let (rank, experts) = (1 + self.below(6), 1 + self.below(5));
        let (mixing, wide) = if self.below(2) == 0 {
            (Mixing::Gate((0..experts.div_ceil(2)).map(|_| self.gate(inputs)).collect()), rank)
        } else {
            (Mixing::Route(self.layer(experts, rank)), rank * experts)
        };
        let bias = (self.below(2) == 0).then(|| self.vec(outputs, 0.2));
        let (a, b) = (self.layer(rank, inputs), self.layer(outputs, wide));
        MixedLowRank { lora: LowRank { a, b, bias, scale: 0.25 + self.unit().abs() }, mixing }
    }

    fn reft(&mut self, width: usize) -> Reft {
        let rank = 1 + self.below(5);
        let mut unit = || ReftUnit {
            source: self.layer(rank, width),
            bias: self.vec(rank, 0.3),
            projection: self.layer(rank, width),
        };
        let (first, second) = (unit(), unit());
        Reft {
            prefix: self.below(4) as u32,
            suffix: self.below(4) as u32,
            first,
            last: (self.below(2) == 0).then_some(second),
            activation: self.activation(),
            subtract: self.below(2) == 0,
            uncounted: 0,
        }
    }
}

/// Brings the matrices of low-rank updates and bottlenecks into codes, of other bits and groups each.
pub(super) fn coded(adapter: &mut AdapterIr, seed: usize) {
    let hows = [
        (1, Group::Tensor),
        (1, Group::Block(32)),
        (2, Group::Row),
        (4, Group::Tensor),
        (1, Group::Row),
        (8, Group::Tensor),
        (4, Group::Block(6)),
    ];
    let mut next = hows.iter().cycle().skip(seed % hows.len());
    for patch in &mut adapter.patches {
        let factors = match &mut patch.op {
            Op::LowRank(lora) => [&mut lora.a, &mut lora.b],
            Op::MixedLowRank(mixed) => [&mut mixed.lora.a, &mut mixed.lora.b],
            Op::Bottleneck(bottleneck) => [&mut bottleneck.down, &mut bottleneck.up],
            _ => continue,
        };
        for matrix in factors {
            let (shape, values) = ((matrix.rows(), matrix.cols()), matrix.to_f32());
            let codes = next.next().and_then(|&(bits, group)| Codes::encode(shape, &values, bits, group, Book::Median));
            if let Some(coded) = codes.and_then(|codes| Matrix::new(shape.0, shape.1, Storage::Code(codes))) {
                *matrix = coded;
            }
        }
    }
}
