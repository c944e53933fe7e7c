//! BERT (Devlin et al. 2018, arXiv 1810.04805): `transformers/models/bert`.

use super::{
    Architecture, BERT_LAYER, DENSE, EMBEDDINGS_NORM, NORM, OUTPUT, POOLER, POSITION, TOKEN_TYPE, WORD, whole,
};
use crate::base::config::EncoderConfig;
use crate::base::fields::{Common, Fields};
use crate::error::Result;
use crate::names::Param;
use polygraft::model::{Activation, Arch, HeadInput, HeadKind, HeadTask};
use std::collections::BTreeMap;

pub(super) static BERT: Architecture = Architecture {
    model_types: &["bert"],
    class: "Bert",
    prefix: "bert.",
    layers: &["encoder.layer."],
    layer: BERT_LAYER,
    modules: &[WORD, POSITION, TOKEN_TYPE, EMBEDDINGS_NORM, ("pooler.dense", POOLER)],
    heads: &[
        (HeadTask::Sequence, "classifier", OUTPUT),
        (HeadTask::Token, "classifier", OUTPUT),
        (HeadTask::Question, "qa_outputs", OUTPUT),
        (HeadTask::MaskedLm, "cls.predictions.transform.dense", DENSE),
        (HeadTask::MaskedLm, "cls.predictions.transform.LayerNorm", NORM),
        (HeadTask::MaskedLm, "cls.predictions.decoder", OUTPUT),
    ],
    // The output bias is kept beside the decoder as well as in it.
    tensors: &[("cls.predictions.bias", OUTPUT, Param::Bias)],
    nothing: &["embeddings.position_ids", "embeddings.token_type_ids", "cls.seq_relationship."],
    lora: &["query", "value"],
    config,
    holds: whole,
};

fn config(f: &Fields<'_>) -> Result<EncoderConfig> {
    f.only("position_embedding_type", "absolute")?;
    let mut c = f.encoder(Arch::Bert, &Common::BERT)?;
    c.pair.types = true;
    c.head_kinds = BTreeMap::from([
        (HeadTask::Sequence, HeadKind::linear(HeadInput::Pooled(Activation::Tanh))),
        (HeadTask::Token, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::Question, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::MaskedLm, HeadKind::dense(HeadInput::Tokens, 1, c.width(), c.activation, true)),
    ]);
    Ok(c)
}
