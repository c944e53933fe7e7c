//! `config.json` of an encoder: every value that shapes the forward pass is checked before anything is allocated.

use super::fields::{Fields, Special};
use crate::architectures;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use polygraft::model::{Activation, Arch, Buckets, HeadKind, HeadTask, Image, Pair, Places, RelativeTerms};
use std::collections::BTreeMap;

/// What `config.json` says, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// File it was read from.
    pub file: String,
    /// The file itself.
    pub text: String,
    /// Family.
    pub arch: Arch,
    /// Width of the embedding tables.
    pub embedding: usize,
    /// Width of hidden states.
    pub hidden: usize,
    /// Layers that have weights of their own.
    pub layers: u16,
    /// The layers in the order in which they run.
    pub order: Vec<u16>,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Rows of the word table.
    pub vocab: usize,
    /// Rows of the position table, 0 for none.
    pub positions: usize,
    /// Position id of the first token.
    pub position_offset: u32,
    /// Longest row.
    pub max_positions: usize,
    /// Rows of the token-type table, 0 for none.
    pub types: usize,
    /// Layer norm epsilon.
    pub eps: f32,
    /// Whether the embeddings' norm follows their projection.
    pub norm_projected: bool,
    /// Whether norms stand before the sub-blocks.
    pub prenorm: bool,
    /// Between the feed-forward layers.
    pub activation: Activation,
    /// Whether the feed-forward part is gated.
    pub gated: bool,
    /// Multiplies the products of queries and keys.
    pub attention_scale: f32,
    /// How each layer's attention treats places; empty where embeddings alone do.
    pub places: Vec<Places>,
    /// Embeddings of relative positions.
    pub relative: Option<(Buckets, RelativeTerms)>,
    /// Whether they are normed.
    pub positions_norm: bool,
    /// What rows are where they are images.
    pub image: Option<Image>,
    /// The convolution beside the first layer.
    pub convolution: Option<Convolution>,
    /// Which modules have biases.
    pub biases: Biases,
    /// What transformers' heads look like on this base.
    pub head_kinds: BTreeMap<HeadTask, HeadKind>,
    /// `architectures`.
    pub architectures: Vec<String>,
    /// `id2label`, in the order of the ids; its length is the number of labels.
    pub labels: Vec<String>,
    /// Whether `id2label` was there.
    pub labels_named: bool,
    /// `tie_word_embeddings`.
    pub tied: bool,
    /// `bos_token_id`, where given.
    pub bos: Option<u32>,
    /// `eos_token_id`, where given.
    pub eos: Option<u32>,
    /// `pad_token_id`.
    pub pad: u32,
    /// The tokens that begin a row and end a text.
    pub specials: [Special; 2],
    /// How two texts share a row.
    pub pair: Pair,
    /// The activation of a Sentence-Transformers CrossEncoder.
    pub score_activation: Option<Activation>,
    /// `_name_or_path`, where it is not empty.
    pub name: Option<String>,
}

/// A convolution along the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Tokens that it sees: odd.
    pub kernel: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// After it.
    pub activation: Activation,
}

/// Which modules have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// Norms.
    pub norm: bool,
    /// Attention's projections.
    pub attention: bool,
    /// The feed-forward layers.
    pub ffn: bool,
    /// The hidden layers of heads.
    pub head: bool,
    /// A language model's output layer.
    pub decoder: bool,
}

impl Biases {
    /// All of them.
    pub const ALL: Self = Self { norm: true, attention: true, ffn: true, head: true, decoder: true };
}

impl EncoderConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for another `model_type`; [`FormatError::ModelConfig`] for a value, or an entry
    /// that nobody knows.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        let json = Json::parse(file, bytes)?;
        let unsupported = |why: String| FormatError::Unsupported { file: file.into(), why };
        let text = String::from_utf8_lossy(bytes);
        let fields = Fields::new(file, &json, &text);
        let Some(kind) = fields.get("model_type").and_then(Json::text) else {
            return Err(unsupported("it has no model_type: not the config.json of a transformers model".into()));
        };
        let found = architectures::ALL.iter().find(|a| a.model_types.contains(&kind)).ok_or_else(|| {
            let known: Vec<&str> = architectures::ALL.iter().flat_map(|a| a.model_types).copied().collect();
            let why = format!("model_type {:?} is not supported; this version loads {}", shown(kind), known.join(", "));
            unsupported(why)
        })?;
        let config = (found.config)(&fields)?;
        fields.finish()?;
        Ok(config)
    }

    /// The hidden width, as heads count it.
    #[must_use]
    pub fn width(&self) -> u32 {
        u32::try_from(self.hidden).unwrap_or(u32::MAX)
    }
}

/// `torch.nn.modules.activation.Sigmoid` and its like, by the last word.
#[must_use]
pub fn torch_activation(path: &str) -> Option<Activation> {
    Some(match path.rsplit('.').next().unwrap_or(path) {
        "Sigmoid" => Activation::Sigmoid,
        "Identity" => Activation::Identity,
        "Tanh" => Activation::Tanh,
        "ReLU" => Activation::Relu,
        "GELU" => Activation::Gelu,
        "SiLU" => Activation::Silu,
        _ => return None,
    })
}
