//! ModernBERT (Warner et al. 2024, arXiv 2412.13663): `transformers/models/modernbert`. Norms before the sub-blocks,
//! rotated queries and keys, windows in most layers, gated feed-forward parts, few biases.

use super::{Architecture, DENSE, Holds, NORM, OUTPUT, linear, whole};
use crate::base::config::EncoderConfig;
use crate::base::fields::{Common, Fields, Special};
use crate::error::{Result, shown};
use crate::names::Part;
use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{Arch, HeadInput, HeadKind, HeadTask, Places};
use std::collections::BTreeMap;

pub(super) static MODERNBERT: Architecture = Architecture {
    model_types: &["modernbert"],
    class: "ModernBert",
    prefix: "model.",
    layers: &["layers."],
    layer: &[
        ("attn_norm", |l| Part::Norm(NormSite::BeforeAttention(l))),
        ("attn.Wqkv", |l| linear(LinearSite::Layer(l, LayerLinear::Qkv))),
        ("attn.Wo", |l| linear(LinearSite::Layer(l, LayerLinear::AttentionOutput))),
        ("mlp_norm", |l| Part::Norm(NormSite::BeforeFfn(l))),
        ("mlp.Wi", |l| linear(LinearSite::Layer(l, LayerLinear::FfnIn))),
        ("mlp.Wo", |l| linear(LinearSite::Layer(l, LayerLinear::FfnOut))),
    ],
    modules: &[
        ("embeddings.tok_embeddings", Part::Word),
        ("embeddings.norm", Part::Norm(NormSite::Embeddings)),
        ("final_norm", Part::Norm(NormSite::Final)),
    ],
    // Every head has the same hidden layer, of the same name.
    heads: &[
        (HeadTask::Sequence, "head.dense", DENSE),
        (HeadTask::Sequence, "head.norm", NORM),
        (HeadTask::Sequence, "classifier", OUTPUT),
        (HeadTask::Token, "head.dense", DENSE),
        (HeadTask::Token, "head.norm", NORM),
        (HeadTask::Token, "classifier", OUTPUT),
        (HeadTask::Question, "head.dense", DENSE),
        (HeadTask::Question, "head.norm", NORM),
        (HeadTask::Question, "classifier", OUTPUT),
        (HeadTask::MaskedLm, "head.dense", DENSE),
        (HeadTask::MaskedLm, "head.norm", NORM),
        (HeadTask::MaskedLm, "decoder", OUTPUT),
    ],
    tensors: &[],
    nothing: &[],
    lora: &[],
    config,
    holds: |config, part| match part {
        // The embeddings' norm stands before it.
        Part::Norm(NormSite::BeforeAttention(0)) => Holds::Nothing,
        _ => whole(config, part),
    },
};

fn config(f: &Fields<'_>) -> Result<EncoderConfig> {
    f.irrelevant(&[
        "attention_dropout",
        "deterministic_flash_attn",
        "embedding_dropout",
        "initializer_cutoff_factor",
        "layer_norm_eps",
        "mlp_dropout",
        "position_embedding_type",
        "reference_compile",
        "repad_logits_with_grad",
        "sparse_pred_ignore_index",
        "sparse_prediction",
    ]);
    let common = Common {
        layers: ("num_hidden_layers", 22),
        ffn: ("intermediate_size", 1152),
        activation: ("hidden_activation", "gelu"),
        vocab: 50368,
        positions: 8192,
        types: None,
        eps: Some(("norm_eps", 1e-5)),
        pad: 50283,
        ..Common::BERT
    };
    let mut c = f.encoder(Arch::ModernBert, &common)?;
    c.positions = 0;
    let [first, separator] = [f.token("cls_token_id")?, f.token("sep_token_id")?];
    c.specials = [Special::of(first, "cls_token", "[CLS]", 50281), Special::of(separator, "sep_token", "[SEP]", 50282)];
    (c.prenorm, c.gated) = (true, true);
    c.biases.norm = f.flag("norm_bias", false)?;
    c.biases.attention = f.flag("attention_bias", false)?;
    c.biases.ffn = f.flag("mlp_bias", false)?;
    c.biases.head = f.flag("classifier_bias", false)?;
    c.biases.decoder = f.flag("decoder_bias", true)?;
    let head = c.hidden / c.heads;
    if !head.is_multiple_of(2) {
        return Err(f.bad("num_attention_heads", format!("heads of {head} cannot be rotated: the width must be even")));
    }
    c.places = places(f, c.layers)?;
    let input = match f.get("classifier_pooling").map(|v| v.text().unwrap_or_default()) {
        None | Some("cls") => HeadInput::First,
        Some("mean") => HeadInput::Mean,
        Some(other) => {
            return Err(f.bad("classifier_pooling", format!("{:?} is neither cls nor mean", shown(other))));
        }
    };
    let activation = f.activation("classifier_activation", "gelu")?;
    let dense = |input| HeadKind::dense(input, 1, c.width(), activation, true);
    c.head_kinds = BTreeMap::from([
        (HeadTask::Sequence, dense(input)),
        (HeadTask::Token, dense(HeadInput::Tokens)),
        (HeadTask::Question, dense(HeadInput::Tokens)),
        (HeadTask::MaskedLm, dense(HeadInput::Tokens)),
    ]);
    Ok(c)
}

/// Which layers look how far and with which rotation, as transformers 4 wrote it (every how many layers, two thetas), or as
/// 5 does (`layer_types`, `rope_parameters`), which counts before the other where a file has both.
#[allow(clippy::cast_possible_truncation, reason = "bases are f32 in the library; checked ranges")]
fn places(f: &Fields<'_>, layers: u16) -> Result<Vec<Places>> {
    let theta = |key| f.number(key).map(|t| t.map(|t| t as f32).filter(|t| *t > 0.0 && t.is_finite()));
    let mut global = theta("global_rope_theta")?.unwrap_or(160_000.0);
    let mut local = if f.is_null("local_rope_theta") { global } else { theta("local_rope_theta")?.unwrap_or(10_000.0) };
    if let Some(rope) = f.get("rope_parameters") {
        let bad = |why: String| f.bad("rope_parameters", why);
        for (kind, entry) in rope.entries() {
            let theta = match kind.as_str() {
                "full_attention" => &mut global,
                "sliding_attention" => &mut local,
                other => {
                    return Err(bad(format!("{:?} is neither full_attention nor sliding_attention", shown(other))));
                }
            };
            for (key, value) in entry.entries() {
                match key.as_str() {
                    "rope_type" | "type" if value.text() == Some("default") => {}
                    "rope_theta" => {
                        let number = value.number().map(|t| t as f32).filter(|t| *t > 0.0 && t.is_finite());
                        *theta = number.ok_or_else(|| bad(format!("rope_theta {} is no base", value.brief())))?;
                    }
                    _ if value.is_empty() => {}
                    key => {
                        let why =
                            format!("{:?} {} is not supported: only rope_type default is", shown(key), value.brief());
                        return Err(bad(why));
                    }
                }
            }
        }
    }
    let window = f.size("local_attention", 128, 1 << 24)? as u32 / 2;
    let every = f.size("global_attn_every_n_layers", 3, 1024)?;
    let place = |slides: bool| match slides {
        false => Places { rotary: Some(global), window: None },
        true => Places { rotary: Some(local), window: Some(window) },
    };
    let Some(types) = f.get("layer_types").filter(|v| !v.is_empty()) else {
        return Ok((0..layers).map(|l| place(!usize::from(l).is_multiple_of(every))).collect());
    };
    if types.items().len() != usize::from(layers) {
        return Err(f.bad("layer_types", format!("it has {} entries for {layers} layers", types.items().len())));
    }
    let each = types.items().iter().map(|v| match v.text() {
        Some("full_attention") => Ok(place(false)),
        Some("sliding_attention") => Ok(place(true)),
        _ => Err(f.bad("layer_types", format!("{} is neither full_attention nor sliding_attention", v.brief()))),
    });
    each.collect()
}
