//! The base families, one file each: what transformers calls their parts, and what their configurations mean.

mod albert;
mod bert;
mod deberta;
mod distilbert;
mod electra;
mod modernbert;
mod mpnet;
mod roberta;
mod vit;

use crate::base::config::EncoderConfig;
use crate::base::fields::Fields;
use crate::error::Result;
use crate::names::{Param, Part};
use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{Arch, HeadTask};

/// Names of a base family, without the backbone's prefix.
pub(crate) struct Architecture {
    /// What `model_type` may say.
    pub(crate) model_types: &'static [&'static str],
    /// What its classes' names begin with.
    pub(crate) class: &'static str,
    /// The attribute that holds the backbone inside a model with a head: keys may or may not begin with it.
    pub(crate) prefix: &'static str,
    /// What stands before a layer's number; two of them where layers come in groups.
    pub(crate) layers: &'static [&'static str],
    /// The modules of a layer.
    pub(crate) layer: &'static [LayerModule],
    /// The other modules of the backbone.
    pub(crate) modules: &'static [(&'static str, Part)],
    /// The modules of the heads: a name may serve several tasks.
    pub(crate) heads: &'static [(HeadTask, &'static str, Part)],
    /// Tensors that are not a module's `weight` or `bias`.
    pub(crate) tensors: &'static [(&'static str, Part, Param)],
    /// Tensors that change nothing in an encoder's outputs; a name that ends in a dot stands for all below it.
    pub(crate) nothing: &'static [&'static str],
    /// What PEFT takes where `target_modules` is absent.
    pub(crate) lora: &'static [&'static str],
    /// Reads `config.json`.
    pub(crate) config: fn(&Fields<'_>) -> Result<EncoderConfig>,
    /// What of a part's weight and bias a model of this configuration has.
    pub(crate) holds: fn(&EncoderConfig, Part) -> Holds,
}

/// A module's name inside a layer, and which part it is in layer `n`.
pub(crate) type LayerModule = (&'static str, fn(u16) -> Part);

/// What of a module there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Nothing,
    Weight,
    Both,
}

/// Tables where they have rows, linear layers and norms with a weight, and a bias unless the configuration says otherwise.
pub(crate) fn whole(config: &EncoderConfig, part: Part) -> Holds {
    let biases = config.biases;
    let bias = match part {
        Part::Position if config.positions == 0 => return Holds::Nothing,
        Part::TokenType if config.types == 0 => return Holds::Nothing,
        Part::Relative if config.relative.is_none() => return Holds::Nothing,
        Part::Word | Part::Position | Part::TokenType | Part::Relative => false,
        Part::Norm(_) => biases.norm,
        Part::Linear(LinearSite::Layer(_, LayerLinear::FfnIn | LayerLinear::FfnOut)) => biases.ffn,
        Part::Linear(LinearSite::Layer(..)) => biases.attention,
        Part::Linear(LinearSite::HeadDense(_)) => biases.head,
        Part::Linear(_) => true,
    };
    if bias { Holds::Both } else { Holds::Weight }
}

/// The table: a row an architecture.
pub(crate) fn of(arch: Arch) -> &'static Architecture {
    match arch {
        Arch::Bert => &bert::BERT,
        Arch::Roberta => &roberta::ROBERTA,
        Arch::XlmRoberta => &roberta::XLM_ROBERTA,
        Arch::DistilBert => &distilbert::DISTILBERT,
        Arch::Electra => &electra::ELECTRA,
        Arch::Albert { .. } => &albert::ALBERT,
        Arch::MpNet => &mpnet::MPNET,
        Arch::DebertaV2 { legacy: true } => &deberta::DEBERTA,
        Arch::DebertaV2 { legacy: false } => &deberta::DEBERTA_OWN,
        Arch::ModernBert => &modernbert::MODERNBERT,
        Arch::Vit => &vit::VIT,
    }
}

/// All of them, for what does not know which it has.
pub(crate) const ALL: &[&Architecture] = &[
    &bert::BERT,
    &roberta::ROBERTA,
    &roberta::XLM_ROBERTA,
    &distilbert::DISTILBERT,
    &electra::ELECTRA,
    &albert::ALBERT,
    &mpnet::MPNET,
    &deberta::DEBERTA,
    &modernbert::MODERNBERT,
    &vit::VIT,
];

// What the tables below are written with.
const fn linear(site: LinearSite) -> Part {
    Part::Linear(site)
}
const OUTPUT: Part = linear(LinearSite::HeadOutput);
const DENSE: Part = linear(LinearSite::HeadDense(0));
const POOLER: Part = linear(LinearSite::Pooler);
const NORM: Part = Part::Norm(NormSite::HeadDense(0));

/// `attention.self.query` and the like: a layer of BERT, RoBERTa, ELECTRA.
const BERT_LAYER: &[LayerModule] = &[
    ("attention.self.query", |l| linear(LinearSite::Layer(l, LayerLinear::Query))),
    ("attention.self.key", |l| linear(LinearSite::Layer(l, LayerLinear::Key))),
    ("attention.self.value", |l| linear(LinearSite::Layer(l, LayerLinear::Value))),
    ("attention.output.dense", |l| linear(LinearSite::Layer(l, LayerLinear::AttentionOutput))),
    ("attention.output.LayerNorm", |l| Part::Norm(NormSite::AfterAttention(l))),
    ("intermediate.dense", |l| linear(LinearSite::Layer(l, LayerLinear::FfnIn))),
    ("output.dense", |l| linear(LinearSite::Layer(l, LayerLinear::FfnOut))),
    ("output.LayerNorm", |l| Part::Norm(NormSite::AfterFfn(l))),
];

const WORD: (&str, Part) = ("embeddings.word_embeddings", Part::Word);
const POSITION: (&str, Part) = ("embeddings.position_embeddings", Part::Position);
const TOKEN_TYPE: (&str, Part) = ("embeddings.token_type_embeddings", Part::TokenType);
const EMBEDDINGS_NORM: (&str, Part) = ("embeddings.LayerNorm", Part::Norm(NormSite::Embeddings));

/// Buffers that old releases saved.
const BUFFERS: &[&str] = &["embeddings.position_ids", "embeddings.token_type_ids"];
