//! ALBERT (Lan et al. 2019, arXiv 1909.11942): `transformers/models/albert`. Narrow embeddings that are projected, and
//! groups of layers that run many times: their weights and adapters are there once.

use super::{Architecture, DENSE, EMBEDDINGS_NORM, NORM, OUTPUT, POOLER, POSITION, TOKEN_TYPE, WORD, linear, whole};
use crate::base::config::EncoderConfig;
use crate::base::fields::{Common, Fields};
use crate::error::Result;
use crate::names::{Param, Part};
use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{Activation, Arch, HeadInput, HeadKind, HeadTask};
use std::collections::BTreeMap;

pub(super) static ALBERT: Architecture = Architecture {
    model_types: &["albert"],
    class: "Albert",
    prefix: "albert.",
    layers: &["encoder.albert_layer_groups.", "albert_layers."],
    layer: &[
        ("attention.query", |l| linear(LinearSite::Layer(l, LayerLinear::Query))),
        ("attention.key", |l| linear(LinearSite::Layer(l, LayerLinear::Key))),
        ("attention.value", |l| linear(LinearSite::Layer(l, LayerLinear::Value))),
        ("attention.dense", |l| linear(LinearSite::Layer(l, LayerLinear::AttentionOutput))),
        ("attention.LayerNorm", |l| Part::Norm(NormSite::AfterAttention(l))),
        ("ffn", |l| linear(LinearSite::Layer(l, LayerLinear::FfnIn))),
        ("ffn_output", |l| linear(LinearSite::Layer(l, LayerLinear::FfnOut))),
        ("full_layer_layer_norm", |l| Part::Norm(NormSite::AfterFfn(l))),
    ],
    modules: &[
        WORD,
        POSITION,
        TOKEN_TYPE,
        EMBEDDINGS_NORM,
        ("encoder.embedding_hidden_mapping_in", linear(LinearSite::Embedding)),
        ("pooler", POOLER),
    ],
    heads: &[
        (HeadTask::Sequence, "classifier", OUTPUT),
        (HeadTask::Token, "classifier", OUTPUT),
        (HeadTask::Question, "qa_outputs", OUTPUT),
        (HeadTask::MaskedLm, "predictions.dense", DENSE),
        (HeadTask::MaskedLm, "predictions.LayerNorm", NORM),
        (HeadTask::MaskedLm, "predictions.decoder", OUTPUT),
    ],
    tensors: &[("predictions.bias", OUTPUT, Param::Bias)],
    nothing: &["embeddings.position_ids", "embeddings.token_type_ids", "sop_classifier."],
    lora: &[],
    config,
    holds: whole,
};

#[allow(clippy::cast_possible_truncation, reason = "checked ranges")]
fn config(f: &Fields<'_>) -> Result<EncoderConfig> {
    f.only("position_embedding_type", "absolute")?;
    f.irrelevant(&[
        "classifier_dropout_prob",
        "down_scale_factor",
        "gap_size",
        "net_structure_type",
        "num_memory_blocks",
    ]);
    let common = Common {
        hidden: ("hidden_size", 4096),
        heads: ("num_attention_heads", 64),
        ffn: ("intermediate_size", 16384),
        vocab: 30000,
        activation: ("hidden_act", "gelu_new"),
        ..Common::BERT
    };
    let groups = f.size("num_hidden_groups", 1, 1024)?;
    let inner = f.size("inner_group_num", 1, 64)?;
    let mut c = f.encoder(Arch::Albert { inner: inner as u16 }, &common)?;
    // As the library counts: repetition i runs the whole of group ⌊i / (repetitions / groups)⌋.
    let repetitions = usize::from(c.layers);
    if groups > repetitions {
        return Err(f.bad("num_hidden_groups", format!("{groups} groups for {repetitions} layers")));
    }
    let group = |i: usize| (i as f64 / (repetitions as f64 / groups as f64)) as usize;
    c.order = (0..repetitions).flat_map(|i| (0..inner).map(move |j| (group(i) * inner + j) as u16)).collect();
    c.layers = (groups * inner) as u16;
    c.embedding = f.width("embedding_size", 128)?;
    c.pair.types = true;
    let embedding = u32::try_from(c.embedding).unwrap_or(u32::MAX);
    c.head_kinds = BTreeMap::from([
        (HeadTask::Sequence, HeadKind::linear(HeadInput::Pooled(Activation::Tanh))),
        (HeadTask::Token, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::Question, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::MaskedLm, HeadKind::dense(HeadInput::Tokens, 1, embedding, c.activation, true)),
    ]);
    Ok(c)
}
