//! RoBERTa (Liu et al. 2019, arXiv 1907.11692), XLM-RoBERTa and CamemBERT, which differ in their vocabularies:
//! `transformers/models/{roberta,xlm_roberta,camembert}`.

use super::{
    Architecture, BERT_LAYER, BUFFERS, DENSE, EMBEDDINGS_NORM, NORM, OUTPUT, POOLER, POSITION, TOKEN_TYPE, WORD, whole,
};
use crate::base::config::EncoderConfig;
use crate::base::fields::{Common, Fields, Special};
use crate::error::Result;
use crate::names::{Param, Part};
use polygraft::model::{Activation, Arch, HeadInput, HeadKind, HeadTask};
use std::collections::BTreeMap;

/// MPNet has the same.
pub(super) const HEADS: &[(HeadTask, &str, Part)] = &[
    (HeadTask::Sequence, "classifier.dense", DENSE),
    (HeadTask::Sequence, "classifier.out_proj", OUTPUT),
    (HeadTask::Token, "classifier", OUTPUT),
    (HeadTask::Question, "qa_outputs", OUTPUT),
    (HeadTask::MaskedLm, "lm_head.dense", DENSE),
    (HeadTask::MaskedLm, "lm_head.layer_norm", NORM),
    (HeadTask::MaskedLm, "lm_head.decoder", OUTPUT),
];

pub(super) static ROBERTA: Architecture = Architecture {
    model_types: &["roberta", "camembert"],
    class: "Roberta",
    prefix: "roberta.",
    layers: &["encoder.layer."],
    layer: BERT_LAYER,
    modules: &[WORD, POSITION, TOKEN_TYPE, EMBEDDINGS_NORM, ("pooler.dense", POOLER)],
    heads: HEADS,
    tensors: &[("lm_head.bias", OUTPUT, Param::Bias)],
    nothing: BUFFERS,
    lora: &["query", "value"],
    config: |f| config(f, Arch::Roberta),
    holds: whole,
};

pub(super) static XLM_ROBERTA: Architecture = Architecture {
    model_types: &["xlm-roberta"],
    class: "XLMRoberta",
    config: |f| config(f, Arch::XlmRoberta),
    ..ROBERTA
};

fn config(f: &Fields<'_>, arch: Arch) -> Result<EncoderConfig> {
    f.only("position_embedding_type", "absolute")?;
    let mut c = f.encoder(arch, &Common { vocab: 50265, pad: 1, ..Common::BERT })?;
    c.specials = [Special::of(c.bos, "bos_token", "<s>", 0), Special::of(c.eos, "eos_token", "</s>", 2)];
    c.pair.separators = 2;
    let offset = c.pad + 1;
    f.offset(&mut c, offset)?;
    let dense = |input, activation, norm| HeadKind::dense(input, 1, c.width(), activation, norm);
    c.head_kinds = BTreeMap::from([
        (HeadTask::Sequence, dense(HeadInput::First, Activation::Tanh, false)),
        (HeadTask::Token, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::Question, HeadKind::linear(HeadInput::Tokens)),
        // The erf GELU, whatever `hidden_act` says.
        (HeadTask::MaskedLm, dense(HeadInput::Tokens, Activation::Gelu, true)),
    ]);
    Ok(c)
}
