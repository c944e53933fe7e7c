//! What a base model is, apart from its numbers: architecture, named sites with their weights, sentence pipeline, heads.

mod attention;
mod head;
mod image;

pub use attention::{Buckets, Places, Relative, RelativeTerms};
pub use head::{HeadInput, HeadKind, HeadSpec, HeadTask};
pub use image::Image;

use crate::ir::{LinearSite, NormSite, Site};
use crate::tensor::Scheme;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Index of a weight in [`ModelSpec::weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightId(pub u32);

/// One weight of the base: what to expect before its bytes arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightInfo {
    /// The tensor's name in the model's file.
    pub name: String,
    /// Outputs (1 for a vector).
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// How it is stored in the file.
    pub scheme: Scheme,
}

/// Pointwise functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activation {
    /// `x/2 · (1 + erf(x/√2))`: BERT's `gelu`.
    Gelu,
    /// The tanh approximation: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `gelu`, cut to −10..10.
    Gelu10,
    /// `x` where positive, `0.01 x` elsewhere.
    LeakyRelu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `max(x, 0)²`.
    Relu2,
    /// `x · tanh(ln(1 + eˣ))`.
    Mish,
    /// `½ (1 + erf((x − μ) / (σ√2)))`, μ 0.707107, σ 0.282095 (MEGA, Ma et al. 2022).
    Laplace,
    /// `x` where positive, `eˣ − 1` elsewhere.
    Elu,
    /// `x`.
    Identity,
}

impl Activation {
    /// All of them, in an order that does not change: their numbers on the wire and on devices.
    pub const ALL: [Self; 15] = [
        Self::Gelu,
        Self::GeluTanh,
        Self::Relu,
        Self::Silu,
        Self::Tanh,
        Self::Sigmoid,
        Self::Identity,
        Self::QuickGelu,
        Self::Gelu10,
        Self::LeakyRelu,
        Self::Relu6,
        Self::Relu2,
        Self::Mish,
        Self::Laplace,
        Self::Elu,
    ];

    /// Reads the name that `transformers` and `torch.nn` use.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => Self::GeluTanh,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "tanh" => Self::Tanh,
            "sigmoid" => Self::Sigmoid,
            "quick_gelu" => Self::QuickGelu,
            "gelu_10" => Self::Gelu10,
            "leaky_relu" => Self::LeakyRelu,
            "relu6" => Self::Relu6,
            "relu2" => Self::Relu2,
            "mish" => Self::Mish,
            "laplace" => Self::Laplace,
            "elu" => Self::Elu,
            "linear" | "identity" => Self::Identity,
            _ => return None,
        })
    }

    /// The definition, in f64 inside where f32 would cost digits.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
    #[allow(clippy::approx_constant, reason = "transformers' own rounding of μ")]
    pub fn eval(self, x: f32) -> f32 {
        match self {
            Self::Gelu => {
                let x = f64::from(x);
                (0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))) as f32
            }
            Self::GeluTanh => {
                let x = f64::from(x);
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                (0.5 * x * (1.0 + inner.tanh())) as f32
            }
            Self::Relu => x.max(0.0),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
            Self::Gelu10 => Self::Gelu.eval(x).clamp(-10.0, 10.0),
            Self::LeakyRelu => x.max(0.01 * x),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Relu2 => x.max(0.0).powi(2),
            Self::Mish => {
                let x = f64::from(x);
                (x * x.exp().ln_1p().tanh()) as f32
            }
            Self::Laplace => {
                // transformers writes μ and σ with six digits, and so does everybody after it.
                #[allow(clippy::approx_constant, reason = "the library's own digits")]
                let z = (f64::from(x) - 0.707_107) / (0.282_095 * std::f64::consts::SQRT_2);
                (0.5 * (1.0 + libm::erf(z))) as f32
            }
            Self::Elu => {
                if x > 0.0 {
                    x
                } else {
                    x.exp_m1()
                }
            }
            Self::Identity => x,
        }
    }
}

/// Base families: whose names the weights have. What a family computes is data in [`ModelSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// `BertModel`.
    Bert,
    /// `RobertaModel`, and `CamembertModel`.
    Roberta,
    /// `XLMRobertaModel`.
    XlmRoberta,
    /// `DistilBertModel`.
    DistilBert,
    /// `ElectraModel`.
    Electra,
    /// `AlbertModel`.
    Albert {
        /// Layers a group.
        inner: u16,
    },
    /// `MPNetModel`.
    MpNet,
    /// `DebertaV2Model`.
    DebertaV2 {
        /// Whether its language-model head is BERT's rather than the authors' own.
        legacy: bool,
    },
    /// `ModernBertModel`.
    ModernBert,
    /// `ViTModel`.
    Vit,
}

impl Arch {
    /// The `model_type` of `transformers`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
            Self::DistilBert => "distilbert",
            Self::Electra => "electra",
            Self::Albert { .. } => "albert",
            Self::MpNet => "mpnet",
            Self::DebertaV2 { .. } => "deberta-v2",
            Self::ModernBert => "modernbert",
            Self::Vit => "vit",
        }
    }
}

/// How two texts share a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Separators between them.
    pub separators: usize,
    /// Whether the second text has token type 1.
    pub types: bool,
}

/// A linear layer's weights at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearWeights {
    /// `[outputs, inputs]`.
    pub weight: WeightId,
    /// `[outputs]`.
    pub bias: Option<WeightId>,
}

/// A layer norm's weights at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormWeights {
    /// Scale, `[hidden]`.
    pub gamma: WeightId,
    /// Shift, `[hidden]`, where the norm has one.
    pub beta: Option<WeightId>,
}

/// The three embedding tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingWeights {
    /// `[vocabulary, embedding]`.
    pub word: WeightId,
    /// `[positions, embedding]`, where positions have embeddings.
    pub position: Option<WeightId>,
    /// `[types, embedding]`.
    pub token_type: Option<WeightId>,
}

impl EmbeddingWeights {
    /// The table at a site, where there is one; that of relative positions is no part of the embeddings.
    #[must_use]
    pub fn at(&self, site: Site) -> Option<WeightId> {
        match site {
            Site::Word => Some(self.word),
            Site::Position => self.position,
            Site::TokenType => self.token_type,
            _ => None,
        }
    }

    /// All of them: one to three.
    pub fn ids(&self) -> impl Iterator<Item = WeightId> + use<> {
        [Some(self.word), self.position, self.token_type].into_iter().flatten()
    }
}

/// How token vectors become one vector a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pooling {
    /// Mean over the row's tokens, special tokens included.
    Mean,
    /// The first token.
    Cls,
    /// The last token.
    Last,
    /// Elementwise maximum.
    Max,
    /// Sum over tokens divided by the square root of their number.
    MeanSqrtLen,
}

/// A step after pooling (Sentence-Transformers' modules).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentenceStage {
    /// Linear layer at [`LinearSite::Sentence`] with this index, then the activation.
    Dense {
        /// Which one.
        index: u16,
        /// Pointwise function after it.
        activation: Activation,
    },
    /// Division by the L2 norm.
    Normalize,
}

/// How the model makes sentence embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceSpec {
    /// Pooling over tokens.
    pub pooling: Pooling,
    /// What follows, in order.
    pub stages: Vec<SentenceStage>,
    /// Prompts by name: `query`, `passage` or `document`, others.
    pub prompts: BTreeMap<String, String>,
    /// Tokens a row is cut to, special tokens included; the model's position limit when absent.
    pub max_tokens: Option<usize>,
}

impl SentenceSpec {
    /// Mean pooling and nothing else: what a plain encoder folder gets.
    #[must_use]
    pub fn plain() -> Self {
        Self { pooling: Pooling::Mean, stages: Vec::new(), prompts: BTreeMap::new(), max_tokens: None }
    }
}

/// Special tokens, for building rows and pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// First token of a row: `<s>` or `[CLS]`.
    pub first: u32,
    /// End of a text: `</s>` or `[SEP]`.
    pub separator: u32,
    /// Padding, which also sets RoBERTa's position offset.
    pub pad: u32,
}

/// Who a base is: for the check that an adapter belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fingerprint {
    /// A human name, such as `multilingual-e5-small`.
    pub name: String,
    /// sha256 (hex) of the source's tensors, kept through `quantize`; absent in a library's folder.
    pub lineage: Option<String>,
}

/// A base model without its numbers. Built by one reader a family, read by the planner.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Family.
    pub arch: Arch,
    /// Width of the embedding tables.
    pub embedding: usize,
    /// Width of hidden states.
    pub hidden: usize,
    /// Transformer layers that have weights of their own: the layers of [`LinearSite`] and [`NormSite`].
    pub layers: u16,
    /// The layers in the order in which they run. ALBERT runs few of them many times, with their adapters.
    pub order: Vec<u16>,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Rows of the word table.
    pub vocab: usize,
    /// Longest row: rows of the position table less the offset, where there is one.
    pub max_positions: usize,
    /// Position id of the first token.
    pub position_offset: u32,
    /// Rows of the token-type table.
    pub token_types: usize,
    /// Layer norm epsilon.
    pub eps: f32,
    /// Whether norms stand before each sub-block and after the last layer, rather than after each residual.
    pub prenorm: bool,
    /// Between the feed-forward layers.
    pub activation: Activation,
    /// Whether the first feed-forward layer gives twice the width, and the second half multiplies the activated first.
    pub gated: bool,
    /// Multiplies the products of queries and keys.
    pub attention_scale: f32,
    /// How each layer's attention treats places; empty where embeddings alone do.
    pub places: Vec<Places>,
    /// Embeddings of relative positions.
    pub relative: Option<Relative>,
    /// What rows are where they are images rather than tokens. The word table then has the class token alone.
    pub image: Option<Image>,
    /// After the convolution beside the first layer, where there is one.
    pub convolution: Option<Activation>,
    /// Special token ids.
    pub special: SpecialTokens,
    /// How two texts share a row.
    pub pair: Pair,
    /// Every weight, in file order.
    pub weights: Vec<WeightInfo>,
    /// The embedding tables.
    pub embeddings: EmbeddingWeights,
    /// Linear layers by site: six a layer; pooler, head and sentence layers where the base has them.
    pub linears: BTreeMap<LinearSite, LinearWeights>,
    /// Layer norms by site.
    pub norms: BTreeMap<NormSite, NormWeights>,
    /// The base's own head.
    pub head: Option<HeadSpec>,
    /// What the library's heads for each task look like on this base: adapters bring weights for them.
    pub head_kinds: BTreeMap<HeadTask, HeadKind>,
    /// Whether their hidden layers have biases.
    pub head_biases: bool,
    /// Sentence embeddings.
    pub sentence: SentenceSpec,
    /// Identity.
    pub fingerprint: Fingerprint,
    /// The library's own `config.json`, which a converted model keeps.
    pub config: String,
}

impl ModelSpec {
    /// The embedding table at a site, where there is one.
    #[must_use]
    pub fn table(&self, site: Site) -> Option<WeightId> {
        if site == Site::Relative { self.relative.map(|r| r.table) } else { self.embeddings.at(site) }
    }

    /// The description of weight `id`.
    #[must_use]
    pub fn weight(&self, id: WeightId) -> &WeightInfo {
        &self.weights[id.0 as usize]
    }

    /// `[outputs, inputs]` that a linear layer at `site` must have, whether or not the base brings a pooler's weights;
    /// `None` where the base has no such layer: an adapter's head has its own shapes ([`HeadKind::shape`]).
    #[must_use]
    pub fn linear_shape(&self, site: LinearSite) -> Option<(usize, usize)> {
        if let Some(w) = self.linears.get(&site) {
            let info = self.weight(w.weight);
            return Some((info.rows, info.cols));
        }
        match site {
            LinearSite::Pooler => Some((self.hidden, self.hidden)),
            _ => None,
        }
    }

    /// This model with copies of its layers in the place of its layers, numbered anew: copy `i` is of layer `copies[i]`,
    /// whose weights it shares.
    #[must_use]
    pub fn replicated(&self, copies: &[u16]) -> Self {
        let mut out = self.clone();
        out.linears.retain(|site, _| Site::Linear(*site).layer().is_none());
        out.norms.retain(|site, _| site.layer().is_none());
        out.places.clear();
        out.layers = 0;
        out.add_copies(self, 0, copies);
        out.order = (0..out.layers).collect();
        out
    }

    /// Adds copies of layers of `from` under the numbers that begin with `first`. They do not run by themselves.
    pub(crate) fn add_copies(&mut self, from: &Self, first: u16, copies: &[u16]) {
        for (new, &old) in (first..=u16::MAX).zip(copies) {
            let linears = from.linears.iter().filter(|(site, _)| Site::Linear(**site).layer() == Some(old));
            for (site, weights) in linears {
                if let Site::Linear(site) = Site::Linear(*site).at_layer(new) {
                    self.linears.insert(site, *weights);
                }
            }
            for (site, weights) in from.norms.iter().filter(|(site, _)| site.layer() == Some(old)) {
                if let Site::Norm(site) = Site::Norm(*site).at_layer(new) {
                    self.norms.insert(site, *weights);
                }
            }
            if let Some(places) = from.places.get(usize::from(old)) {
                let at = usize::from(new);
                self.places.resize(self.places.len().max(at + 1), Places::default());
                self.places[at] = *places;
            }
            self.layers = self.layers.max(new.saturating_add(1));
        }
    }

    /// Width of a sentence embedding.
    #[must_use]
    pub fn embedding_width(&self) -> usize {
        let dense = self.sentence.stages.iter().rev().find_map(|s| match s {
            SentenceStage::Dense { index, .. } => self.linear_shape(LinearSite::Sentence(*index)),
            SentenceStage::Normalize => None,
        });
        dense.map_or(self.hidden, |(rows, _)| rows)
    }

    /// Tokens a row is cut to by `embed` and `rerank`.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.sentence.max_tokens.map_or(self.max_positions, |m| m.min(self.max_positions))
    }

    /// The prompt put before a query or a document, empty when the model has none.
    #[must_use]
    pub fn prompt(&self, side: Side) -> &str {
        let names: &[&str] = match side {
            Side::Query => &["query"],
            Side::Document => &["passage", "document", "corpus"],
        };
        names.iter().find_map(|n| self.sentence.prompts.get(*n)).map_or("", String::as_str)
    }
}

/// Which side of a ranking a text is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The query.
    Query,
    /// A passage.
    Document,
}
