//! `config.json` of an encoder: every value that shapes the forward pass is checked before anything is allocated.

use crate::error::{FormatError, Result};
use crate::json::Json;
use polygraft::model::{Activation, Arch, HeadKind, HeadTask};
use std::collections::BTreeMap;

/// The limits of a plausible encoder.
const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 16;
const MAX_ROWS: usize = 1 << 24;

/// What `config.json` says, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// File it was read from.
    pub file: String,
    /// Family.
    pub arch: Arch,
    /// `hidden_size`.
    pub hidden: usize,
    /// `num_hidden_layers`.
    pub layers: u16,
    /// `num_attention_heads`.
    pub heads: usize,
    /// `intermediate_size`.
    pub ffn: usize,
    /// `vocab_size`.
    pub vocab: usize,
    /// `max_position_embeddings`: rows of the table.
    pub positions: usize,
    /// `type_vocab_size`: rows of the table, 0 for none.
    pub types: usize,
    /// `layer_norm_eps`.
    pub eps: f32,
    /// `hidden_act`.
    pub activation: Activation,
    /// `architectures`.
    pub architectures: Vec<String>,
    /// `id2label`, in the order of the ids; its length is the number of labels.
    pub labels: Vec<String>,
    /// Whether `id2label` was there.
    pub labels_named: bool,
    /// `tie_word_embeddings`.
    pub tied: bool,
    /// `bos_token_id`, where given.
    pub bos: Option<u32>,
    /// `eos_token_id`, where given.
    pub eos: Option<u32>,
    /// `pad_token_id`.
    pub pad: u32,
    /// The activation of a Sentence-Transformers CrossEncoder.
    pub score_activation: Option<Activation>,
    /// `_name_or_path`, where it is not empty.
    pub name: Option<String>,
}

/// Keys that change the forward pass in ways that are not implemented, with the values that do not.
const FIXED: &[(&str, &[&str])] = &[
    ("position_embedding_type", &["absolute"]),
    ("is_decoder", &[]),
    ("is_encoder_decoder", &[]),
    ("add_cross_attention", &[]),
    ("pruned_heads", &[]),
    ("quantization_config", &[]),
    ("embedding_size", &[]),
    ("adapters", &[]),
];

impl EncoderConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for another `model_type`; [`FormatError::ModelConfig`] for a value.
    #[allow(clippy::cast_possible_truncation, reason = "checked ranges; epsilon is f32 in the forward pass")]
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        let json = Json::parse(file, bytes)?;
        let bad = |key: &str, why: String| FormatError::ModelConfig { file: file.into(), key: key.into(), why };
        let arch = arch(file, &json)?;
        for (key, allowed) in FIXED {
            if let Some(value) =
                json.get(key).filter(|v| !v.is_empty() && !v.text().is_some_and(|t| allowed.contains(&t)))
            {
                return Err(bad(key, format!("{} changes the forward pass and is not supported", value.brief())));
            }
        }
        let roberta = arch != Arch::Bert;
        let size = |key: &str, default: usize, max: usize| match json.get(key) {
            None => Ok(default),
            Some(v) => match v.whole() {
                Some(n) if (1..=max).contains(&n) => Ok(n),
                _ => Err(bad(key, format!("{} is not a whole number from 1 to {max}", v.brief()))),
            },
        };
        let hidden = size("hidden_size", 768, MAX_WIDTH)?;
        let heads = size("num_attention_heads", 12, MAX_WIDTH)?;
        if hidden % heads != 0 {
            return Err(bad("num_attention_heads", format!("{heads} heads do not divide hidden_size {hidden}")));
        }
        let layers = size("num_hidden_layers", 12, MAX_LAYERS)? as u16;
        let types = match json.get("type_vocab_size") {
            Some(Json::Int(0)) => 0,
            _ => size("type_vocab_size", 2, MAX_ROWS)?,
        };
        let token = |key: &str| match json.get(key) {
            None => Ok(None),
            Some(v) => match v.whole() {
                Some(n) if n < MAX_ROWS => Ok(Some(n as u32)),
                _ => Err(bad(key, format!("{} is not a token id", v.brief()))),
            },
        };
        let positions = size("max_position_embeddings", 512, MAX_ROWS)?;
        let vocab = size("vocab_size", if roberta { 50265 } else { 30522 }, MAX_ROWS)?;
        let pad = token("pad_token_id")?.unwrap_or(u32::from(roberta));
        if pad as usize >= vocab {
            return Err(bad("pad_token_id", format!("{pad} is outside the vocabulary of {vocab}")));
        }
        if roberta && positions <= pad as usize + 1 {
            return Err(bad(
                "max_position_embeddings",
                format!("{positions} rows leave no position after the offset {}", pad + 1),
            ));
        }
        let eps = json.get("layer_norm_eps").map_or(Some(1e-12), Json::number).filter(|e| (0.0..1.0).contains(e));
        let eps = eps.ok_or_else(|| bad("layer_norm_eps", "not a number from 0 to 1".into()))? as f32;
        let (labels, labels_named) = labels(file, &json)?;
        Ok(Self {
            arch,
            hidden,
            layers,
            heads,
            ffn: size("intermediate_size", 3072, MAX_WIDTH)?,
            vocab,
            positions,
            types,
            eps,
            activation: activation(file, &json, "hidden_act", "gelu")?,
            architectures: json
                .get("architectures")
                .map(|a| a.items().iter().filter_map(|t| t.text().map(str::to_owned)).collect())
                .unwrap_or_default(),
            labels,
            labels_named,
            tied: json.get("tie_word_embeddings").and_then(Json::truth).unwrap_or(true),
            bos: token("bos_token_id")?,
            eos: token("eos_token_id")?,
            pad,
            score_activation: score_activation(file, &json)?,
            name: json.get("_name_or_path").and_then(Json::text).filter(|t| !t.is_empty()).map(str::to_owned),
            file: file.into(),
        })
    }

    /// What transformers' heads look like on this base.
    #[must_use]
    pub fn head_kinds(&self) -> BTreeMap<HeadTask, HeadKind> {
        crate::names::head_kinds(self.arch, self.hidden, self.activation)
    }

    /// Position id of the first token.
    #[must_use]
    pub fn position_offset(&self) -> u32 {
        match self.arch {
            Arch::Bert => 0,
            Arch::Roberta | Arch::XlmRoberta => self.pad + 1,
        }
    }
}

fn arch(file: &str, json: &Json) -> Result<Arch> {
    let Some(kind) = json.get("model_type").and_then(Json::text) else {
        let why = "it has no model_type: not the config.json of a transformers model".into();
        return Err(FormatError::Unsupported { file: file.into(), why });
    };
    Ok(match kind {
        "bert" => Arch::Bert,
        "roberta" | "camembert" => Arch::Roberta,
        "xlm-roberta" => Arch::XlmRoberta,
        other => {
            let other = crate::error::shown(other);
            let why = format!(
                "model_type {other:?} is not supported; this version loads bert, roberta, camembert and xlm-roberta"
            );
            return Err(FormatError::Unsupported { file: file.into(), why });
        }
    })
}

fn activation(file: &str, json: &Json, key: &str, default: &str) -> Result<Activation> {
    let name = match json.get(key) {
        None => default,
        Some(v) => v.text().unwrap_or(""),
    };
    Activation::from_name(name).ok_or_else(|| FormatError::ModelConfig {
        file: file.into(),
        key: key.into(),
        why: format!("{:?} is not a supported activation", crate::error::shown(name)),
    })
}

/// `id2label` by id; without one, `num_labels` or transformers' default of two.
fn labels(file: &str, json: &Json) -> Result<(Vec<String>, bool)> {
    let bad = |why: String| FormatError::ModelConfig { file: file.into(), key: "id2label".into(), why };
    let Some(map) = json.get("id2label") else {
        let n = json.get("num_labels").and_then(Json::whole).unwrap_or(2).min(MAX_WIDTH);
        return Ok(((0..n).map(|i| format!("LABEL_{i}")).collect(), false));
    };
    let mut out = vec![None; map.entries().len()];
    for (id, label) in map.entries() {
        let slot = id.parse::<usize>().ok().and_then(|i| out.get_mut(i));
        let (Some(slot), Some(label)) = (slot, label.text()) else {
            return Err(bad(format!(
                "{:?} is not a label's number, or its label is not text",
                crate::error::shown(id)
            )));
        };
        *slot = Some(label.to_owned());
    }
    let out: Option<Vec<String>> = out.into_iter().collect();
    match out {
        Some(out) if !out.is_empty() => Ok((out, true)),
        _ => Err(bad("the ids are not 0, 1, 2 …".into())),
    }
}

/// Sentence-Transformers writes a CrossEncoder's activation into `config.json`, under one of two names.
fn score_activation(file: &str, json: &Json) -> Result<Option<Activation>> {
    let nested = json.get("sentence_transformers").and_then(|s| s.get("activation_fn"));
    let Some(value) = nested.or_else(|| json.get("sbert_ce_default_activation_function")) else { return Ok(None) };
    let name = value.text().unwrap_or("");
    torch_activation(name).map(Some).ok_or_else(|| FormatError::ModelConfig {
        file: file.into(),
        key: "sentence_transformers.activation_fn".into(),
        why: format!("{:?} is not a supported activation", crate::error::shown(name)),
    })
}

/// `torch.nn.modules.activation.Sigmoid` and its like, by the last word.
#[must_use]
pub fn torch_activation(path: &str) -> Option<Activation> {
    Some(match path.rsplit('.').next().unwrap_or(path) {
        "Sigmoid" => Activation::Sigmoid,
        "Identity" => Activation::Identity,
        "Tanh" => Activation::Tanh,
        "ReLU" => Activation::Relu,
        "GELU" => Activation::Gelu,
        "SiLU" => Activation::Silu,
        _ => return None,
    })
}
