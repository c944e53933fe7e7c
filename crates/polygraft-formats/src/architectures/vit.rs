//! ViT (Dosovitskiy et al. 2020, arXiv 2010.11929): `transformers/models/vit`. Rows are images in patches behind a class
//! token; norms before the sub-blocks, one after the last layer.

use super::{Architecture, Holds, OUTPUT, POOLER, linear, whole};
use crate::base::config::EncoderConfig;
use crate::base::fields::{Common, Fields};
use crate::error::Result;
use crate::json::Json;
use crate::names::{Param, Part};
use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{Arch, HeadInput, HeadKind, HeadTask, Image};
use std::collections::BTreeMap;

pub(super) static VIT: Architecture = Architecture {
    model_types: &["vit"],
    class: "ViT",
    prefix: "vit.",
    layers: &["encoder.layer."],
    layer: &[
        ("layernorm_before", |l| Part::Norm(NormSite::BeforeAttention(l))),
        ("attention.attention.query", |l| linear(LinearSite::Layer(l, LayerLinear::Query))),
        ("attention.attention.key", |l| linear(LinearSite::Layer(l, LayerLinear::Key))),
        ("attention.attention.value", |l| linear(LinearSite::Layer(l, LayerLinear::Value))),
        ("attention.output.dense", |l| linear(LinearSite::Layer(l, LayerLinear::AttentionOutput))),
        ("layernorm_after", |l| Part::Norm(NormSite::BeforeFfn(l))),
        ("intermediate.dense", |l| linear(LinearSite::Layer(l, LayerLinear::FfnIn))),
        ("output.dense", |l| linear(LinearSite::Layer(l, LayerLinear::FfnOut))),
    ],
    modules: &[
        ("embeddings.patch_embeddings.projection", linear(LinearSite::Patches)),
        ("layernorm", Part::Norm(NormSite::Final)),
        ("pooler.dense", POOLER),
    ],
    heads: &[(HeadTask::Sequence, "classifier", OUTPUT)],
    tensors: &[
        ("embeddings.cls_token", Part::Word, Param::Weight),
        ("embeddings.position_embeddings", Part::Position, Param::Weight),
    ],
    // For the reconstruction of masked patches, which is not run.
    nothing: &["embeddings.mask_token", "decoder."],
    lora: &[],
    config,
    holds: |config, part| match part {
        Part::Linear(LinearSite::Layer(_, LayerLinear::AttentionOutput)) => Holds::Both,
        _ => whole(config, part),
    },
};

/// The largest image that is read, in pixels a side.
const MAX_SIDE: usize = 1 << 12;

fn config(f: &Fields<'_>) -> Result<EncoderConfig> {
    f.irrelevant(&["encoder_stride"]);
    let mut c = f.encoder(Arch::Vit, &Common { vocab: 1, types: None, ..Common::BERT })?;
    let image = Image {
        channels: f.size("num_channels", 3, 1 << 10)?,
        size: sides(f, "image_size", 224)?,
        patch: sides(f, "patch_size", 16)?,
    };
    if image.patches() == 0 {
        let [height, width] = image.size;
        return Err(f.bad("patch_size", format!("no patch fits into an image of {height} × {width}")));
    }
    (c.image, c.vocab, c.prenorm) = (Some(image), 1, true);
    (c.positions, c.max_positions) = (image.patches() + 1, image.patches() + 1);
    c.biases.attention = f.flag("qkv_bias", true)?;
    if f.width("pooler_output_size", c.hidden)? != c.hidden {
        return Err(
            f.bad("pooler_output_size", format!("only a pooler of the hidden width, {}, is supported", c.hidden))
        );
    }
    f.only("pooler_act", "tanh")?;
    c.head_kinds = BTreeMap::from([(HeadTask::Sequence, HeadKind::linear(HeadInput::First))]);
    Ok(c)
}

/// Height and width: two numbers, or one for both.
fn sides(f: &Fields<'_>, key: &'static str, default: usize) -> Result<[usize; 2]> {
    let side = |v: &Json| v.whole().filter(|n| (1..=MAX_SIDE).contains(n));
    let found = match f.get(key) {
        None => Some([default; 2]),
        Some(v) => match v.items() {
            [height, width] => side(height).zip(side(width)).map(Into::into),
            _ => side(v).map(|n| [n; 2]),
        },
    };
    found.ok_or_else(|| f.bad(key, format!("neither a number of pixels from 1 to {MAX_SIDE} nor two of them")))
}
