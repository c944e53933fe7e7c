//! MPNet (Song et al. 2020, arXiv 2004.09297): `transformers/models/mpnet`. RoBERTa with a bias by distance in every
//! layer's attention.

use super::{Architecture, EMBEDDINGS_NORM, OUTPUT, POOLER, POSITION, WORD, linear, whole};
use crate::base::config::EncoderConfig;
use crate::base::fields::{Common, Fields, Special};
use crate::error::Result;
use crate::names::{Param, Part};
use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{Activation, Arch, Buckets, HeadInput, HeadKind, HeadTask, RelativeTerms};
use std::collections::BTreeMap;

pub(super) static MPNET: Architecture = Architecture {
    model_types: &["mpnet"],
    class: "MPNet",
    prefix: "mpnet.",
    layers: &["encoder.layer."],
    layer: &[
        ("attention.attn.q", |l| linear(LinearSite::Layer(l, LayerLinear::Query))),
        ("attention.attn.k", |l| linear(LinearSite::Layer(l, LayerLinear::Key))),
        ("attention.attn.v", |l| linear(LinearSite::Layer(l, LayerLinear::Value))),
        ("attention.attn.o", |l| linear(LinearSite::Layer(l, LayerLinear::AttentionOutput))),
        ("attention.LayerNorm", |l| Part::Norm(NormSite::AfterAttention(l))),
        ("intermediate.dense", |l| linear(LinearSite::Layer(l, LayerLinear::FfnIn))),
        ("output.dense", |l| linear(LinearSite::Layer(l, LayerLinear::FfnOut))),
        ("output.LayerNorm", |l| Part::Norm(NormSite::AfterFfn(l))),
    ],
    modules: &[
        WORD,
        POSITION,
        EMBEDDINGS_NORM,
        ("encoder.relative_attention_bias", Part::Relative),
        ("pooler.dense", POOLER),
    ],
    heads: super::roberta::HEADS,
    tensors: &[("lm_head.bias", OUTPUT, Param::Bias)],
    nothing: super::BUFFERS,
    lora: &[],
    config,
    holds: whole,
};

/// The library's own, whatever `pad_token_id` says.
const PADDING: u32 = 1;
/// `max_distance` of the library.
const FAR: u32 = 128;

fn config(f: &Fields<'_>) -> Result<EncoderConfig> {
    let mut c = f.encoder(Arch::MpNet, &Common { vocab: 30527, pad: 1, types: None, ..Common::BERT })?;
    c.specials = [Special::of(c.bos, "bos_token", "<s>", 0), Special::of(c.eos, "eos_token", "</s>", 2)];
    c.pair.separators = 2;
    f.offset(&mut c, PADDING + 1)?;
    let key = "relative_attention_num_buckets";
    let found = f.size(key, 32, 1 << 16)?;
    if found != 32 {
        return Err(f.bad(key, format!("{found}: the library computes 32, whatever this says")));
    }
    c.relative = Some((Buckets::Halves { rows: 32, max: FAR }, RelativeTerms::Bias));
    let dense = |input, activation, norm| HeadKind::dense(input, 1, c.width(), activation, norm);
    c.head_kinds = BTreeMap::from([
        (HeadTask::Sequence, dense(HeadInput::First, Activation::Tanh, false)),
        (HeadTask::Token, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::Question, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::MaskedLm, dense(HeadInput::Tokens, Activation::Gelu, true)),
    ]);
    Ok(c)
}
