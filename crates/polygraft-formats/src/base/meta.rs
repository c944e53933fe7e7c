//! What a converted model says about itself in its safetensors metadata, under `polygraft`.

use crate::error::{FormatError, Result};
use polygraft::model::{Activation, Pooling, SentenceSpec, SentenceStage, SpecialTokens};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The metadata key.
pub const KEY: &str = "polygraft";
/// The version of this layout.
pub const FORMAT: u32 = 1;

/// The entry, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// [`FORMAT`].
    pub format: u32,
    /// `model`.
    pub kind: String,
    /// What it is called.
    pub name: String,
    /// Set when it cannot be recomputed from the norms and biases, because a merge changed the weights alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// `[first, separator, pad]`.
    pub special: [u32; 3],
    /// Text to embedding.
    pub sentence: Sentence,
}

/// [`SentenceSpec`], written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentence {
    /// `mean`, `cls`, `last`, `max`, `mean_sqrt_len`.
    pub pooling: String,
    /// `normalize`, or `dense:ACTIVATION` with its weights under `sentence.PLACE`.
    pub stages: Vec<String>,
    /// Prompts by name.
    pub prompts: BTreeMap<String, String>,
    /// Longest row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
}

const POOLINGS: [(&str, Pooling); 5] = [
    ("mean", Pooling::Mean),
    ("cls", Pooling::Cls),
    ("last", Pooling::Last),
    ("max", Pooling::Max),
    ("mean_sqrt_len", Pooling::MeanSqrtLen),
];

const ACTIVATIONS: [(&str, Activation); 7] = [
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("identity", Activation::Identity),
];

/// The name that [`Activation::from_name`] reads back.
#[must_use]
pub fn activation_name(activation: Activation) -> &'static str {
    ACTIVATIONS.iter().find(|(_, a)| *a == activation).map_or("identity", |(name, _)| name)
}

impl Meta {
    /// Parses the entry.
    ///
    /// # Errors
    /// [`FormatError::Json`]; [`FormatError::Unsupported`] for a later version.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let meta: Self = serde_json::from_str(text).map_err(|e| crate::json::problem(file, text.as_bytes(), &e))?;
        if meta.format != FORMAT || meta.kind != "model" {
            let why = format!(
                "it is a {} of format {}; this version reads models of format {FORMAT}: update polygraft, or convert again",
                crate::error::shown(&meta.kind),
                meta.format
            );
            return Err(FormatError::Unsupported { file: file.into(), why });
        }
        Ok(meta)
    }

    /// The special tokens.
    #[must_use]
    pub fn special(&self) -> SpecialTokens {
        let [first, separator, pad] = self.special;
        SpecialTokens { first, separator, pad }
    }
}

impl Sentence {
    /// Writes a spec down.
    #[must_use]
    pub fn write(spec: &SentenceSpec) -> Self {
        let stage = |s: &SentenceStage| match s {
            SentenceStage::Normalize => "normalize".to_owned(),
            SentenceStage::Dense { activation, .. } => format!("dense:{}", activation_name(*activation)),
        };
        Self {
            pooling: POOLINGS.iter().find(|(_, p)| *p == spec.pooling).map_or("mean", |(name, _)| name).to_owned(),
            stages: spec.stages.iter().map(stage).collect(),
            prompts: spec.prompts.clone(),
            max_tokens: spec.max_tokens,
        }
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`FormatError::ModelConfig`] for a word that this version does not know.
    pub fn read(&self, file: &str) -> Result<SentenceSpec> {
        let bad = |key: &str, word: &str| FormatError::ModelConfig {
            file: file.into(),
            key: key.into(),
            why: format!("{:?} is not known to this version", crate::error::shown(word)),
        };
        let pooling = POOLINGS.iter().find(|(name, _)| *name == self.pooling).map(|(_, p)| *p);
        let mut dense = 0u16;
        let mut stages = Vec::new();
        for word in &self.stages {
            stages.push(match word.split_once(':') {
                None if word == "normalize" => SentenceStage::Normalize,
                Some(("dense", name)) => {
                    let activation = Activation::from_name(name).ok_or_else(|| bad("sentence.stages", word))?;
                    dense += 1;
                    SentenceStage::Dense { index: dense - 1, activation }
                }
                _ => return Err(bad("sentence.stages", word)),
            });
        }
        Ok(SentenceSpec {
            pooling: pooling.ok_or_else(|| bad("sentence.pooling", &self.pooling))?,
            stages,
            prompts: self.prompts.clone(),
            max_tokens: self.max_tokens,
        })
    }
}
