//! Heads as data: what a head reads, its hidden layers, and the task that it was made for.

use super::Activation;
use crate::ir::{LinearSite, NormSite, Site};

/// What a head's first layer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeadInput {
    /// The row's first token.
    First,
    /// The row's first token through the pooler ([`LinearSite::Pooler`]) and this function.
    Pooled(Activation),
    /// The mean of the row's tokens.
    Mean,
    /// Every token by itself: one row of logits a token.
    Tokens,
}

/// What a head computes: `input → [Linear(width) → activation → norm?] × hidden → Linear(labels)`.
///
/// Its layers are at [`LinearSite::HeadDense`], [`NormSite::HeadDense`] and [`LinearSite::HeadOutput`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadKind {
    /// What it reads.
    pub input: HeadInput,
    /// Number of hidden layers.
    pub hidden: u8,
    /// Outputs of each hidden layer; 0 without one.
    pub width: u32,
    /// After each hidden layer.
    pub activation: Activation,
    /// Whether a layer norm follows each activation.
    pub norm: bool,
}

impl HeadKind {
    /// The output layer alone.
    #[must_use]
    pub const fn linear(input: HeadInput) -> Self {
        Self { input, hidden: 0, width: 0, activation: Activation::Identity, norm: false }
    }

    /// With `hidden` layers of `width` outputs, each followed by `activation` and, if `norm`, by a layer norm.
    #[must_use]
    pub const fn dense(input: HeadInput, hidden: u8, width: u32, activation: Activation, norm: bool) -> Self {
        if hidden == 0 { Self::linear(input) } else { Self { input, hidden, width, activation, norm } }
    }

    /// Whether there is one row of logits a token, rather than one a row.
    #[must_use]
    pub fn per_token(self) -> bool {
        self.input == HeadInput::Tokens
    }

    /// The head's linear layers in the order in which they run.
    pub fn linears(self) -> impl Iterator<Item = LinearSite> {
        let pooler = matches!(self.input, HeadInput::Pooled(_)).then_some(LinearSite::Pooler);
        pooler.into_iter().chain((0..self.hidden).map(LinearSite::HeadDense)).chain([LinearSite::HeadOutput])
    }

    /// The head's layer norms.
    pub fn norms(self) -> impl Iterator<Item = NormSite> {
        (0..if self.norm { self.hidden } else { 0 }).map(NormSite::HeadDense)
    }

    /// `[outputs, inputs]` of the head's linear layer at `site` over hidden states of `hidden` numbers, for `labels`
    /// outputs; `None` where the head has no such layer.
    #[must_use]
    pub fn shape(self, site: LinearSite, labels: usize, hidden: usize) -> Option<(usize, usize)> {
        let width = self.width as usize;
        match site {
            LinearSite::HeadDense(0) if self.hidden > 0 => Some((width, hidden)),
            LinearSite::HeadDense(i) if i < self.hidden => Some((width, width)),
            LinearSite::HeadOutput => Some((labels, if self.hidden > 0 { width } else { hidden })),
            LinearSite::Pooler if matches!(self.input, HeadInput::Pooled(_)) => Some((hidden, hidden)),
            LinearSite::HeadDense(_)
            | LinearSite::Layer(..)
            | LinearSite::Embedding
            | LinearSite::Patches
            | LinearSite::Convolution
            | LinearSite::Pooler
            | LinearSite::Sentence(_) => None,
        }
    }

    /// Whether the head has a layer at `site`, a pooler included.
    #[must_use]
    pub fn has(self, site: Site) -> bool {
        match site {
            Site::Linear(linear) => self.shape(linear, 1, 1).is_some(),
            Site::Norm(NormSite::HeadDense(i)) => self.norm && i < self.hidden,
            _ => false,
        }
    }
}

/// What a head is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeadTask {
    /// One row of logits a row: classification, regression, ranking.
    Sequence,
    /// One row of logits a token: tagging.
    Token,
    /// Where an answer begins and ends: two logits a token.
    Question,
    /// The vocabulary, a token.
    MaskedLm,
}

impl HeadTask {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sequence, Self::Token, Self::Question, Self::MaskedLm];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequence => "sequence classification",
            Self::Token => "token classification",
            Self::Question => "question answering",
            Self::MaskedLm => "masked language model",
        }
    }
}

/// A head: of the base, or one that travels with an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadSpec {
    /// Its shape.
    pub kind: HeadKind,
    /// Its purpose.
    pub task: HeadTask,
    /// Outputs.
    pub labels: u32,
    /// Names of the outputs, when the config has them.
    pub label_names: Vec<String>,
    /// An invertible adapter's coupling is undone before the last layer (AdapterHub's flexible language-model heads).
    pub uncouples: bool,
    /// What a cross-encoder's score passes through, when the model says so (Sentence-Transformers' `activation_fn`).
    pub score_activation: Option<Activation>,
}
