//! Random models, adapters and batches for tests of every backend (feature `testing`). Small, odd-shaped, seeded.

use crate::backend::Backend;
use crate::batch::Row;
use crate::compose::Compose;
use crate::error::Result;
use crate::ir::{AdapterIr, Graft, LayerLinear, LinearSite, NormSite};
use crate::model::{
    Activation, Arch, EmbeddingWeights, Fingerprint, HeadInput, HeadKind, HeadSpec, HeadTask, LinearWeights, ModelSpec,
    NormWeights, Pair, SentenceSpec, SpecialTokens, WeightId, WeightInfo,
};
use crate::quant::codes::{Book, Codes, Group};
use crate::quant::{q4_0, q8_0};
use crate::session::Session;
use crate::tensor::{Matrix, Scheme, Storage};
use std::collections::BTreeMap;

mod adapters;

use adapters::coded;
pub use adapters::{adapter, fusion, layered_adapter, lora};

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
