//! Random models, adapters and batches for tests of every backend (feature `testing`). Small, odd-shaped, seeded.

use crate::backend::Backend;
use crate::batch::Row;
use crate::compose::Compose;
use crate::error::Result;
use crate::ir::{
    AdapterIr, BaseClaim, BlockSite, Bottleneck, Coupling, Dense, Fusion, Gate, Graft, LayerLinear, LinearSite,
    LowRank, MixedLowRank, Mixing, Mlp, Norm, NormSite, Offset, Op, OwnNorm, Patch, Prefix, Prompt, Reft, ReftUnit,
    Residual, RowChange, Rules, Site,
};
use crate::model::{
    Activation, Arch, EmbeddingWeights, Fingerprint, HeadInput, HeadKind, HeadSpec, HeadTask, LinearWeights, ModelSpec,
    NormWeights, Pair, SentenceSpec, SpecialTokens, WeightId, WeightInfo,
};
use crate::quant::codes::{Book, Codes, Group};
use crate::quant::{q4_0, q8_0};
use crate::session::Session;
use crate::tensor::{Matrix, Scheme, Storage};
use std::collections::BTreeMap;

/// A small deterministic generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n.max(1) as u64) as usize
    }

    /// Uniform in −1..1.
    pub fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `n` numbers of spread `scale`.
    pub fn vec(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.unit() * scale).collect()
    }
}

/// Sizes of a random model.
#[derive(Debug, Clone, Copy)]
pub struct Dims {
    /// Hidden width.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Feed-forward width.
    pub ffn: usize,
    /// Layers.
    pub layers: u16,
    /// Vocabulary.
    pub vocab: usize,
    /// How matrices are stored; vectors and small tables are f32.
    pub scheme: Scheme,
}

/// `values` in blocks or floats of `scheme`.
///
/// # Panics
/// When the shape does not fit the scheme.
#[must_use]
#[allow(clippy::expect_used, reason = "test support")]
pub fn store(rows: usize, cols: usize, values: Vec<f32>, scheme: Scheme) -> Matrix {
    let storage = match scheme {
        Scheme::F32 => Storage::F32(values),
        Scheme::F16 => Storage::F16(values.iter().map(|&x| half::f16::from_f32(x).to_bits()).collect()),
        Scheme::Bf16 => Storage::Bf16(values.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect()),
        Scheme::Q8_0 => {
            let (codes, scales) = q8_0::encode(&values);
            Storage::Q8_0 { codes, scales }
        }
        Scheme::Q4_0 => {
            let (codes, scales) = q4_0::encode(&values);
            Storage::Q4_0 { codes, scales }
        }
        Scheme::Code(bits) => {
            let codes = Codes::encode((rows, cols), &values, bits, Group::Tensor, Book::Median);
            Storage::Code(codes.expect("1, 2, 4 or 8 bits"))
        }
    };
    Matrix::new(rows, cols, storage).expect("shape fits the scheme")
}

/// A random encoder with a pooler and a two-label head, and its weights in order.
#[must_use]
pub fn model(dims: Dims, seed: u64) -> (ModelSpec, Vec<Matrix>) {
    let mut b = Build { random: Random(seed), infos: Vec::new(), weights: Vec::new() };
    let (h, f) = (dims.hidden, dims.ffn);
    let word = b.matrix(dims.vocab, h, 1.0, dims.scheme);
    let position = Some(b.matrix(64, h, 0.3, Scheme::F32));
    let token_type = Some(b.matrix(2, h, 0.3, Scheme::F32));
    let mut norms = BTreeMap::from([(NormSite::Embeddings, b.norm(h))]);
    let mut linears = BTreeMap::new();
    for layer in 0..dims.layers {
        for which in LayerLinear::SIX {
            let (rows, cols) = match which {
                LayerLinear::FfnIn => (f, h),
                LayerLinear::FfnOut => (h, f),
                _ => (h, h),
            };
            linears.insert(LinearSite::Layer(layer, which), b.linear(rows, cols, dims.scheme));
        }
        norms.insert(NormSite::AfterAttention(layer), b.norm(h));
        norms.insert(NormSite::AfterFfn(layer), b.norm(h));
    }
    linears.insert(LinearSite::Pooler, b.linear(h, h, Scheme::F32));
    linears.insert(LinearSite::HeadOutput, b.linear(2, h, Scheme::F32));
    let spec = ModelSpec {
        arch: Arch::Bert,
        embedding: h,
        hidden: h,
        layers: dims.layers,
        order: (0..dims.layers).collect(),
        heads: dims.heads,
        ffn: f,
        vocab: dims.vocab,
        max_positions: 64,
        position_offset: 0,
        token_types: 2,
        eps: 1e-5,
        prenorm: false,
        activation: Activation::Gelu,
        gated: false,
        attention_scale: 1.0 / ((h / dims.heads) as f32).sqrt(),
        places: Vec::new(),
        relative: None,
        image: None,
        convolution: None,
        special: SpecialTokens { first: 0, separator: 2, pad: 1 },
        pair: Pair { separators: 1, types: true },
        weights: b.infos,
        embeddings: EmbeddingWeights { word, position, token_type },
        linears,
        norms,
        head: Some(head(2)),
        head_kinds: BTreeMap::from([(HeadTask::Sequence, head(2).kind)]),
        head_biases: true,
        sentence: SentenceSpec::plain(),
        fingerprint: Fingerprint { name: format!("random-{seed}"), lineage: None },
        config: config(dims),
    };
    (spec, b.weights)
}

/// What transformers would write for it.
fn config(dims: Dims) -> String {
    let Dims { hidden, layers, heads, ffn, vocab, .. } = dims;
    let entries = [
        ("hidden_size", hidden),
        ("num_hidden_layers", usize::from(layers)),
        ("num_attention_heads", heads),
        ("intermediate_size", ffn),
        ("vocab_size", vocab),
        ("max_position_embeddings", 64),
        ("pad_token_id", 1),
        ("bos_token_id", 0),
        ("eos_token_id", 2),
    ];
    let entries: Vec<String> = entries.iter().map(|(key, n)| format!("{key:?}: {n}")).collect();
    format!(r#"{{"model_type": "bert", "layer_norm_eps": 1e-5, {}}}"#, entries.join(", "))
}

fn head(labels: u32) -> HeadSpec {
    let (kind, task) = (HeadKind::linear(HeadInput::Pooled(Activation::Tanh)), HeadTask::Sequence);
    HeadSpec { kind, task, labels, label_names: Vec::new(), uncouples: false, score_activation: None }
}

struct Build {
    random: Random,
    infos: Vec<WeightInfo>,
    weights: Vec<Matrix>,
}

impl Build {
    fn push(&mut self, matrix: Matrix) -> WeightId {
        let id = WeightId(self.weights.len() as u32);
        self.infos.push(WeightInfo {
            name: format!("w{}", id.0),
            rows: matrix.rows(),
            cols: matrix.cols(),
            scheme: matrix.scheme(),
        });
        self.weights.push(matrix);
        id
    }

    fn matrix(&mut self, rows: usize, cols: usize, scale: f32, scheme: Scheme) -> WeightId {
        let values = self.random.vec(rows * cols, scale);
        self.push(store(rows, cols, values, scheme))
    }

    fn vector(&mut self, n: usize, center: f32) -> WeightId {
        let values = self.random.vec(n, 0.3).into_iter().map(|x| x + center).collect();
        self.push(Matrix::vector(values))
    }

    fn linear(&mut self, rows: usize, cols: usize, scheme: Scheme) -> LinearWeights {
        let weight = self.matrix(rows, cols, 1.7 / (cols as f32).sqrt(), scheme);
        LinearWeights { weight, bias: Some(self.vector(rows, 0.0)) }
    }

    fn norm(&mut self, n: usize) -> NormWeights {
        NormWeights { gamma: self.vector(n, 1.0), beta: Some(self.vector(n, 0.0)) }
    }
}

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
fn coded(adapter: &mut AdapterIr, seed: usize) {
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

/// Grafts random adapters: `a`, `b` and `c` of [`adapter`], `d`, `e` and `f` of [`layered_adapter`], `b` and `e` in codes,
/// and a fusion of `d` and `e`.
///
/// # Errors
/// Never for a spec made by [`model`].
pub fn graft<B: Backend>(session: &mut Session<B>, seed: u64) -> Result<()> {
    for (i, name) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        let make = if i < 3 { adapter } else { layered_adapter };
        let mut adapter = make(session.spec(), seed + i as u64);
        if i % 3 == 1 {
            coded(&mut adapter, seed as usize);
        }
        session.graft(name, adapter, Graft::default())?;
    }
    // Copies of layers, in another order than the layers.
    let copies = vec![session.spec().layers - 1, 0, session.spec().layers - 1];
    let of_copies = adapter(&session.spec().replicated(&copies), seed + 9);
    session.graft("g", AdapterIr { copies: Some(copies), ..of_copies }, Graft::default())?;
    let fusion = fusion(session.spec(), seed, &["d", "e"]);
    session.graft("fusion", fusion, Graft::default())?;
    Ok(())
}

/// Compositions of [`graft`]'s adapters that have a meaning: two that replace the same weights cannot stand together.
pub fn compositions<B: Backend>(session: &mut Session<B>) -> Vec<Compose> {
    let known = COMPOSITIONS.iter().filter_map(|text| text.parse::<Compose>().ok());
    known.filter(|compose| session.resolve(compose).is_ok()).collect()
}

const COMPOSITIONS: [&str; 38] = [
    "base",
    "a",
    "b",
    "c",
    "a:0",
    "b:0.5",
    "stack(a, b)",
    "stack(a, b, c)",
    "sum(b:0.5, c:-0.25)",
    "mix(a:2, c)",
    "d",
    "e:0.5",
    "f",
    "g",
    "g:0.5",
    "d:0",
    "stack(d, e)",
    "stack(a, d, e)",
    "stack(f, e, d)",
    "average(d:0.3, e)",
    "average(d, e, f)",
    "mix(d:0.5, e:-0.25)",
    "mix(a, d)",
    "average(stack(d, f), e)",
    "fuse(d, e)",
    "fuse(stack(f, d), e)",
    "stack(f, fuse(d, e))",
    "stack(fuse(d, e), f)",
    "split(d:1, e:*)",
    "stack(f, split(d:1, stack(e, f):*))",
    "split(stack(d):1, stack(e, f):*)",
    "average(split(stack(d):1, stack(e):*), f)",
    "mix(split(stack(d):1, stack(f):*), e:0.5)",
    "average(split(d:1, f:*), split(e:*, d:1))",
    "stack(d, average(split(stack(e, f):1, d:*):0.3, f))",
    "average(split(d:1, average(e, split(f:*)):*), e)",
    "stack(d, mix(e, f:0.5))",
    "stack(split(a:1, b:*), d)",
];

/// A random row of `len` tokens.
#[must_use]
pub fn row(spec: &ModelSpec, len: usize, random: &mut Random) -> Row {
    Row {
        ids: (0..len).map(|_| random.below(spec.vocab) as u32).collect(),
        token_types: (0..len).map(|_| random.below(spec.token_types.max(1)) as u32).collect(),
        pixels: Vec::new(),
    }
}
