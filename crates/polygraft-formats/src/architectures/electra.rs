//! ELECTRA (Clark et al. 2020, arXiv 2003.10555): `transformers/models/electra`. BERT with embeddings of another width.

use super::{
    Architecture, BERT_LAYER, DENSE, EMBEDDINGS_NORM, Holds, NORM, OUTPUT, POSITION, TOKEN_TYPE, WORD, linear, whole,
};
use crate::base::config::EncoderConfig;
use crate::base::fields::{Common, Fields};
use crate::error::Result;
use crate::names::Part;
use polygraft::ir::LinearSite;
use polygraft::model::{Activation, Arch, HeadInput, HeadKind, HeadTask};
use std::collections::BTreeMap;

const PROJECTION: Part = linear(LinearSite::Embedding);

pub(super) static ELECTRA: Architecture = Architecture {
    model_types: &["electra"],
    class: "Electra",
    prefix: "electra.",
    layers: &["encoder.layer."],
    layer: BERT_LAYER,
    modules: &[WORD, POSITION, TOKEN_TYPE, EMBEDDINGS_NORM, ("embeddings_project", PROJECTION)],
    heads: &[
        (HeadTask::Sequence, "classifier.dense", DENSE),
        (HeadTask::Sequence, "classifier.out_proj", OUTPUT),
        (HeadTask::Token, "classifier", OUTPUT),
        (HeadTask::Question, "qa_outputs", OUTPUT),
        (HeadTask::MaskedLm, "generator_predictions.dense", DENSE),
        (HeadTask::MaskedLm, "generator_predictions.LayerNorm", NORM),
        (HeadTask::MaskedLm, "generator_lm_head", OUTPUT),
    ],
    tensors: &[],
    // The discriminator's own head, of pre-training alone.
    nothing: &["embeddings.position_ids", "embeddings.token_type_ids", "discriminator_predictions."],
    lora: &["query", "value"],
    config,
    holds: |config, part| match part {
        PROJECTION if config.embedding == config.hidden => Holds::Nothing,
        _ => whole(config, part),
    },
};

fn config(f: &Fields<'_>) -> Result<EncoderConfig> {
    f.only("position_embedding_type", "absolute")?;
    f.irrelevant(&["summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"]);
    let common = Common { hidden: ("hidden_size", 256), heads: ("num_attention_heads", 4), ..Common::BERT };
    let mut c = f.encoder(Arch::Electra, &Common { ffn: ("intermediate_size", 1024), ..common })?;
    c.embedding = f.width("embedding_size", 128)?;
    c.pair.types = true;
    let dense = |input, width, norm| HeadKind::dense(input, 1, width, Activation::Gelu, norm);
    let embedding = u32::try_from(c.embedding).unwrap_or(u32::MAX);
    c.head_kinds = BTreeMap::from([
        (HeadTask::Sequence, dense(HeadInput::First, c.width(), false)),
        (HeadTask::Token, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::Question, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::MaskedLm, dense(HeadInput::Tokens, embedding, true)),
    ]);
    Ok(c)
}
