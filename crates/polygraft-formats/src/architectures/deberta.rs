//! DeBERTa v2 and v3 (He et al. 2020, arXiv 2006.03654; 2021, arXiv 2111.09543): `transformers/models/deberta_v2`.
//! Disentangled attention: queries and keys meet embeddings of relative positions; v2 has a convolution besides.

use super::{
    Architecture, DENSE, EMBEDDINGS_NORM, Holds, NORM, OUTPUT, POOLER, POSITION, TOKEN_TYPE, WORD, linear, whole,
};
use crate::base::config::{Convolution, EncoderConfig};
use crate::base::fields::{Common, Fields, Special};
use crate::error::{Result, shown};
use crate::json::Json;
use crate::names::{Param, Part};
use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{Arch, Buckets, HeadInput, HeadKind, HeadTask, RelativeTerms};
use std::collections::BTreeMap;

pub(super) static DEBERTA: Architecture = Architecture {
    model_types: &["deberta-v2"],
    class: "DebertaV2",
    prefix: "deberta.",
    layers: &["encoder.layer."],
    layer: &[
        ("attention.self.query_proj", |l| linear(LinearSite::Layer(l, LayerLinear::Query))),
        ("attention.self.key_proj", |l| linear(LinearSite::Layer(l, LayerLinear::Key))),
        ("attention.self.value_proj", |l| linear(LinearSite::Layer(l, LayerLinear::Value))),
        ("attention.self.pos_key_proj", |l| linear(LinearSite::Layer(l, LayerLinear::PositionKey))),
        ("attention.self.pos_query_proj", |l| linear(LinearSite::Layer(l, LayerLinear::PositionQuery))),
        ("attention.output.dense", |l| linear(LinearSite::Layer(l, LayerLinear::AttentionOutput))),
        ("attention.output.LayerNorm", |l| Part::Norm(NormSite::AfterAttention(l))),
        ("intermediate.dense", |l| linear(LinearSite::Layer(l, LayerLinear::FfnIn))),
        ("output.dense", |l| linear(LinearSite::Layer(l, LayerLinear::FfnOut))),
        ("output.LayerNorm", |l| Part::Norm(NormSite::AfterFfn(l))),
    ],
    modules: &[
        WORD,
        POSITION,
        TOKEN_TYPE,
        ("embeddings.embed_proj", linear(LinearSite::Embedding)),
        EMBEDDINGS_NORM,
        ("encoder.rel_embeddings", Part::Relative),
        ("encoder.LayerNorm", Part::Norm(NormSite::Positions)),
        ("encoder.conv.conv", linear(LinearSite::Convolution)),
        ("encoder.conv.LayerNorm", Part::Norm(NormSite::Convolution)),
    ],
    heads: &[
        (HeadTask::Sequence, "pooler.dense", POOLER),
        (HeadTask::Sequence, "classifier", OUTPUT),
        (HeadTask::Token, "classifier", OUTPUT),
        (HeadTask::Question, "qa_outputs", OUTPUT),
        (HeadTask::MaskedLm, "cls.predictions.transform.dense", DENSE),
        (HeadTask::MaskedLm, "cls.predictions.transform.LayerNorm", NORM),
        (HeadTask::MaskedLm, "cls.predictions.decoder", OUTPUT),
    ],
    tensors: &[("cls.predictions.bias", OUTPUT, Param::Bias)],
    // Pre-training's own heads, and positions that the input does not get: the library leaves them out too.
    nothing: &["embeddings.position_ids", "embeddings.position_embeddings.", "lm_predictions.", "mask_predictions."],
    lora: &["query_proj", "value_proj"],
    config,
    holds,
};

/// With `legacy` false: the language-model head of the authors' code.
pub(super) static DEBERTA_OWN: Architecture = Architecture {
    heads: &[
        (HeadTask::Sequence, "pooler.dense", POOLER),
        (HeadTask::Sequence, "classifier", OUTPUT),
        (HeadTask::Token, "classifier", OUTPUT),
        (HeadTask::Question, "qa_outputs", OUTPUT),
        (HeadTask::MaskedLm, "lm_predictions.lm_head.dense", DENSE),
        (HeadTask::MaskedLm, "lm_predictions.lm_head.LayerNorm", NORM),
        (HeadTask::MaskedLm, "lm_predictions.lm_head", OUTPUT),
    ],
    tensors: &[],
    nothing: &["embeddings.position_ids", "embeddings.position_embeddings.", "cls.predictions.", "mask_predictions."],
    ..DEBERTA
};

fn holds(config: &EncoderConfig, part: Part) -> Holds {
    let own = match config.relative {
        Some((_, RelativeTerms::Projected { keys, queries, shared: false })) => [keys, queries],
        _ => [false; 2],
    };
    let there = match part {
        Part::Linear(LinearSite::Layer(_, LayerLinear::PositionKey)) => own[0],
        Part::Linear(LinearSite::Layer(_, LayerLinear::PositionQuery)) => own[1],
        Part::Linear(LinearSite::Embedding) => config.embedding != config.hidden,
        Part::Norm(NormSite::Positions) => config.positions_norm,
        Part::Linear(LinearSite::Convolution) | Part::Norm(NormSite::Convolution) => config.convolution.is_some(),
        _ => true,
    };
    match (there, part) {
        (false, _) => Holds::Nothing,
        (true, Part::Linear(LinearSite::Embedding)) => Holds::Weight,
        (true, _) => whole(config, part),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "checked ranges; small whole numbers")]
fn config(f: &Fields<'_>) -> Result<EncoderConfig> {
    f.irrelevant(&["cls_dropout", "pooler_dropout", "attention_head_size_per_layer"]);
    let common = Common {
        hidden: ("hidden_size", 1536),
        layers: ("num_hidden_layers", 24),
        heads: ("num_attention_heads", 24),
        ffn: ("intermediate_size", 6144),
        vocab: 128_100,
        types: Some(0),
        eps: Some(("layer_norm_eps", 1e-7)),
        ..Common::BERT
    };
    let legacy = f.flag("legacy", true)?;
    let mut c = f.encoder(Arch::DebertaV2 { legacy }, &common)?;
    c.specials = [Special::of(None, "cls_token", "[CLS]", 1), Special::of(None, "sep_token", "[SEP]", 2)];
    c.pair.types = c.types > 1;
    c.embedding = f.width("embedding_size", c.hidden)?;
    c.norm_projected = true;
    if !f.flag("position_biased_input", true)? {
        c.positions = 0;
    }
    for (key, want) in [("attention_head_size", c.hidden / c.heads), ("pooler_hidden_size", c.hidden)] {
        let found = f.width(key, want)?;
        if found != want {
            return Err(f.bad(key, format!("{found} is not supported: {want}, as the widths say, is")));
        }
    }
    let kinds = match f.get("pos_att_type") {
        None => Vec::new(),
        Some(Json::Text(text)) => text.to_lowercase().split('|').map(|t| t.trim().to_owned()).collect(),
        Some(list) => list.items().iter().filter_map(Json::text).map(str::to_owned).collect(),
    };
    if let Some(other) = kinds.iter().find(|k| !matches!(k.as_str(), "c2p" | "p2c" | "")) {
        return Err(f.bad("pos_att_type", format!("{:?} is neither c2p nor p2c", shown(other))));
    }
    let [keys, queries] = ["c2p", "p2c"].map(|kind| kinds.iter().any(|k| k == kind));
    let parts = 1 + u8::from(keys) + u8::from(queries);
    c.attention_scale = 1.0 / ((c.hidden / c.heads) as f32 * f32::from(parts)).sqrt();
    relative(f, &mut c, [keys, queries])?;
    if let Some(kernel) = f.whole("conv_kernel_size")?.filter(|k| *k > 0) {
        if kernel.is_multiple_of(2) || kernel > 63 {
            return Err(f.bad("conv_kernel_size", format!("{kernel} is not an odd number below 64")));
        }
        let groups = f.size("conv_groups", 1, c.hidden)?;
        if !c.hidden.is_multiple_of(groups) {
            return Err(f.bad("conv_groups", format!("{groups} groups do not divide {}", c.hidden)));
        }
        c.convolution = Some(Convolution { kernel, groups, activation: f.activation("conv_act", "tanh")? });
    } else {
        f.irrelevant(&["conv_kernel_size", "conv_groups", "conv_act"]);
    }
    let pooled = HeadInput::Pooled(f.activation("pooler_hidden_act", "gelu")?);
    c.head_kinds = BTreeMap::from([
        (HeadTask::Sequence, HeadKind::linear(pooled)),
        (HeadTask::Token, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::Question, HeadKind::linear(HeadInput::Tokens)),
    ]);
    let width = if legacy { u32::try_from(c.embedding).unwrap_or(u32::MAX) } else { c.width() };
    // The authors' head runs the word table, tied or not; where the library ties, it ties the wrong layer and fails.
    if legacy || !c.tied {
        c.head_kinds.insert(HeadTask::MaskedLm, HeadKind::dense(HeadInput::Tokens, 1, width, c.activation, true));
        c.tied |= !legacy;
    }
    Ok(c)
}

/// Embeddings of relative positions.
#[allow(clippy::cast_possible_truncation, reason = "checked ranges")]
fn relative(f: &Fields<'_>, c: &mut EncoderConfig, [keys, queries]: [bool; 2]) -> Result<()> {
    let shared = f.flag("share_att_key", false)?;
    let norm = f.get("norm_rel_ebd").and_then(Json::text).unwrap_or("none").to_lowercase();
    if let Some(other) = norm.split('|').map(str::trim).find(|n| !matches!(*n, "layer_norm" | "none")) {
        return Err(f.bad("norm_rel_ebd", format!("{:?} is neither none nor layer_norm", shown(other))));
    }
    let max = f.whole("max_relative_positions")?.filter(|n| *n > 0).unwrap_or(c.max_positions);
    let buckets = f.whole("position_buckets")?.filter(|n| *n > 0);
    // The norm is there, used or not.
    c.positions_norm = norm.contains("layer_norm");
    if !f.flag("relative_attention", false)? {
        return Ok(());
    }
    let limit = 1 << 20;
    if max > limit || buckets.is_some_and(|b| b > limit || b < 2) {
        return Err(
            f.bad("max_relative_positions", format!("{max} with {buckets:?} buckets are out of all proportion"))
        );
    }
    let log = buckets.map(|b| ((b / 2) as u32, max as u32));
    let rows = Buckets::Signed { span: buckets.unwrap_or(max) as u32, log };
    c.relative = Some((rows, RelativeTerms::Projected { keys, queries, shared }));
    Ok(())
}
