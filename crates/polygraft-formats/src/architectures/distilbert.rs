//! DistilBERT (Sanh et al. 2019, arXiv 1910.01108): `transformers/models/distilbert`. No token types, and other names.

use super::{Architecture, DENSE, EMBEDDINGS_NORM, NORM, OUTPUT, POSITION, WORD, linear, whole};
use crate::base::config::EncoderConfig;
use crate::base::fields::{Common, Fields};
use crate::error::Result;
use crate::names::Part;
use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{Activation, Arch, HeadInput, HeadKind, HeadTask};
use std::collections::BTreeMap;

pub(super) static DISTILBERT: Architecture = Architecture {
    model_types: &["distilbert"],
    class: "DistilBert",
    prefix: "distilbert.",
    layers: &["transformer.layer."],
    layer: &[
        ("attention.q_lin", |l| linear(LinearSite::Layer(l, LayerLinear::Query))),
        ("attention.k_lin", |l| linear(LinearSite::Layer(l, LayerLinear::Key))),
        ("attention.v_lin", |l| linear(LinearSite::Layer(l, LayerLinear::Value))),
        ("attention.out_lin", |l| linear(LinearSite::Layer(l, LayerLinear::AttentionOutput))),
        ("sa_layer_norm", |l| Part::Norm(NormSite::AfterAttention(l))),
        ("ffn.lin1", |l| linear(LinearSite::Layer(l, LayerLinear::FfnIn))),
        ("ffn.lin2", |l| linear(LinearSite::Layer(l, LayerLinear::FfnOut))),
        ("output_layer_norm", |l| Part::Norm(NormSite::AfterFfn(l))),
    ],
    modules: &[WORD, POSITION, EMBEDDINGS_NORM],
    heads: &[
        (HeadTask::Sequence, "pre_classifier", DENSE),
        (HeadTask::Sequence, "classifier", OUTPUT),
        (HeadTask::Token, "classifier", OUTPUT),
        (HeadTask::Question, "qa_outputs", OUTPUT),
        (HeadTask::MaskedLm, "vocab_transform", DENSE),
        (HeadTask::MaskedLm, "vocab_layer_norm", NORM),
        (HeadTask::MaskedLm, "vocab_projector", OUTPUT),
    ],
    tensors: &[],
    nothing: super::BUFFERS,
    lora: &[],
    config,
    holds: whole,
};

fn config(f: &Fields<'_>) -> Result<EncoderConfig> {
    f.irrelevant(&["dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout", "tie_weights_"]);
    // Sinusoids are made once and stored in the table like any others.
    f.irrelevant(&["sinusoidal_pos_embds"]);
    let common = Common {
        hidden: ("dim", 768),
        layers: ("n_layers", 6),
        heads: ("n_heads", 12),
        ffn: ("hidden_dim", 3072),
        activation: ("activation", "gelu"),
        types: None,
        eps: None,
        ..Common::BERT
    };
    let mut c = f.encoder(Arch::DistilBert, &common)?;
    let dense = |input, activation, norm| HeadKind::dense(input, 1, c.width(), activation, norm);
    c.head_kinds = BTreeMap::from([
        (HeadTask::Sequence, dense(HeadInput::First, Activation::Relu, false)),
        (HeadTask::Token, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::Question, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::MaskedLm, dense(HeadInput::Tokens, c.activation, true)),
    ]);
    Ok(c)
}
