//! Sites: the named points of a transformer that an adapter may change.

use std::fmt;

/// The linear layers of an encoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerLinear {
    /// Query projection.
    Query,
    /// Key projection.
    Key,
    /// Value projection.
    Value,
    /// Output projection of attention.
    AttentionOutput,
    /// Up projection of the feed-forward part.
    FfnIn,
    /// Down projection of the feed-forward part.
    FfnOut,
    /// Query, key and value projections in one, in this order (ModernBERT).
    Qkv,
    /// Key projection of relative positions (DeBERTa).
    PositionKey,
    /// Query projection of relative positions (DeBERTa).
    PositionQuery,
}

impl LayerLinear {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::FfnIn,
        Self::FfnOut,
        Self::Qkv,
        Self::PositionKey,
        Self::PositionQuery,
    ];
    /// The six of BERT and most others, in the order in which they run.
    pub const SIX: [Self; 6] = [Self::Query, Self::Key, Self::Value, Self::AttentionOutput, Self::FfnIn, Self::FfnOut];

    /// The field's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::AttentionOutput => "attention output",
            Self::FfnIn => "ffn in",
            Self::FfnOut => "ffn out",
            Self::Qkv => "query, key, value",
            Self::PositionKey => "position key",
            Self::PositionQuery => "position query",
        }
    }
}

/// A linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinearSite {
    /// One of an encoder layer's.
    Layer(u16, LayerLinear),
    /// From the embeddings' width to the hidden states' (ALBERT, ELECTRA).
    Embedding,
    /// From an image's patches to hidden states (ViT).
    Patches,
    /// The convolution beside the first layer, as a linear layer over a token and its neighbours (DeBERTa).
    Convolution,
    /// BERT's pooler, first token → tanh.
    Pooler,
    /// A hidden layer of a head, by its place.
    HeadDense(u8),
    /// A head's last layer: one output a label.
    HeadOutput,
    /// A Sentence-Transformers `Dense` module, by its place.
    Sentence(u16),
}

/// A layer norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NormSite {
    /// After the embeddings.
    Embeddings,
    /// Before attention, beside the residual (pre-norm layers).
    BeforeAttention(u16),
    /// After attention and its residual.
    AfterAttention(u16),
    /// Before the feed-forward part, beside the residual (pre-norm layers).
    BeforeFfn(u16),
    /// After the feed-forward part and its residual.
    AfterFfn(u16),
    /// After the last layer (pre-norm encoders).
    Final,
    /// Of the embeddings of relative positions (DeBERTa).
    Positions,
    /// After the convolution and its residual (DeBERTa).
    Convolution,
    /// After a hidden layer of a head and its activation, by the layer's place.
    HeadDense(u8),
}

/// A sub-block of an encoder layer, by its layer: its output before the residual and the norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockSite {
    /// Attention, its output projection included.
    Attention(u16),
    /// The feed-forward part.
    Ffn(u16),
}

/// Where a patch applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// A linear layer's output (or its weights).
    Linear(LinearSite),
    /// A layer norm's scale and shift.
    Norm(NormSite),
    /// A sub-block's output.
    Block(BlockSite),
    /// A layer's output, after its last norm.
    LayerOutput(u16),
    /// The embeddings, after their norm.
    Embeddings,
    /// The word embeddings, before positions and types are added.
    Word,
    /// The position embeddings.
    Position,
    /// The token-type embeddings.
    TokenType,
    /// The embeddings of relative positions (DeBERTa), or their biases by head (MPNet).
    Relative,
    /// A layer's keys and values.
    Keys(u16),
    /// What a vocabulary head's last layer reads.
    Vocabulary,
    /// The sentence embedding, after pooling and the model's own sentence modules.
    Pooled,
}

impl Site {
    /// Whether the site belongs to a head rather than to the encoder.
    #[must_use]
    pub fn is_head(self) -> bool {
        matches!(
            self,
            Self::Linear(LinearSite::HeadDense(_) | LinearSite::HeadOutput) | Self::Norm(NormSite::HeadDense(_))
        )
    }
}

impl fmt::Display for LinearSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(layer, which) => write!(f, "layer {layer} {}", which.name()),
            Self::Embedding => f.write_str("embedding projection"),
            Self::Patches => f.write_str("patches"),
            Self::Convolution => f.write_str("convolution"),
            Self::Pooler => f.write_str("pooler"),
            Self::HeadDense(0) => f.write_str("head dense"),
            Self::HeadDense(index) => write!(f, "head dense {index}"),
            Self::HeadOutput => f.write_str("head output"),
            Self::Sentence(index) => write!(f, "sentence dense {index}"),
        }
    }
}

impl fmt::Display for NormSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embeddings => f.write_str("embeddings norm"),
            Self::BeforeAttention(layer) => write!(f, "layer {layer} norm before attention"),
            Self::AfterAttention(layer) => write!(f, "layer {layer} norm after attention"),
            Self::BeforeFfn(layer) => write!(f, "layer {layer} norm before ffn"),
            Self::AfterFfn(layer) => write!(f, "layer {layer} norm after ffn"),
            Self::Final => f.write_str("final norm"),
            Self::Positions => f.write_str("positions norm"),
            Self::Convolution => f.write_str("convolution norm"),
            Self::HeadDense(0) => f.write_str("head norm"),
            Self::HeadDense(index) => write!(f, "head norm {index}"),
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear(site) => site.fmt(f),
            Self::Norm(site) => site.fmt(f),
            Self::Block(BlockSite::Attention(layer)) => write!(f, "layer {layer} attention"),
            Self::Block(BlockSite::Ffn(layer)) => write!(f, "layer {layer} ffn"),
            Self::LayerOutput(layer) => write!(f, "layer {layer} output"),
            Self::Word => f.write_str("word embeddings"),
            Self::Position => f.write_str("position embeddings"),
            Self::TokenType => f.write_str("token-type embeddings"),
            Self::Relative => f.write_str("relative-position embeddings"),
            Self::Keys(layer) => write!(f, "layer {layer} keys and values"),
            Self::Embeddings => f.write_str("embeddings"),
            Self::Vocabulary => f.write_str("vocabulary head input"),
            Self::Pooled => f.write_str("pooled embedding"),
        }
    }
}

impl Site {
    /// The encoder layer that the site is in.
    #[must_use]
    pub fn layer(self) -> Option<u16> {
        match self {
            Self::Linear(LinearSite::Layer(layer, _))
            | Self::Block(BlockSite::Attention(layer) | BlockSite::Ffn(layer))
            | Self::LayerOutput(layer)
            | Self::Keys(layer) => Some(layer),
            Self::Norm(site) => site.layer(),
            Self::Linear(_)
            | Self::Word
            | Self::Position
            | Self::TokenType
            | Self::Relative
            | Self::Embeddings
            | Self::Vocabulary
            | Self::Pooled => None,
        }
    }
}

impl Site {
    /// The same site of layer `layer`, where the site is in one.
    #[must_use]
    pub fn at_layer(self, layer: u16) -> Self {
        match self {
            Self::Linear(LinearSite::Layer(_, which)) => Self::Linear(LinearSite::Layer(layer, which)),
            Self::Block(BlockSite::Attention(_)) => Self::Block(BlockSite::Attention(layer)),
            Self::Block(BlockSite::Ffn(_)) => Self::Block(BlockSite::Ffn(layer)),
            Self::LayerOutput(_) => Self::LayerOutput(layer),
            Self::Keys(_) => Self::Keys(layer),
            Self::Norm(NormSite::BeforeAttention(_)) => Self::Norm(NormSite::BeforeAttention(layer)),
            Self::Norm(NormSite::AfterAttention(_)) => Self::Norm(NormSite::AfterAttention(layer)),
            Self::Norm(NormSite::BeforeFfn(_)) => Self::Norm(NormSite::BeforeFfn(layer)),
            Self::Norm(NormSite::AfterFfn(_)) => Self::Norm(NormSite::AfterFfn(layer)),
            Self::Linear(_)
            | Self::Norm(_)
            | Self::Word
            | Self::Position
            | Self::TokenType
            | Self::Relative
            | Self::Embeddings
            | Self::Vocabulary
            | Self::Pooled => self,
        }
    }
}

impl NormSite {
    /// The encoder layer that the norm is in.
    #[must_use]
    pub fn layer(self) -> Option<u16> {
        match self {
            Self::BeforeAttention(layer)
            | Self::AfterAttention(layer)
            | Self::BeforeFfn(layer)
            | Self::AfterFfn(layer) => Some(layer),
            Self::Embeddings | Self::Final | Self::Positions | Self::Convolution | Self::HeadDense(_) => None,
        }
    }
}
