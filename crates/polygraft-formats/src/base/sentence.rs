//! Sentence-Transformers folders: `modules.json` and what it names.

use super::config::torch_activation;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::source::{Files, SMALL};
use polygraft::model::{Activation, Pooling, SentenceSpec, SentenceStage};

/// A sentence model's parts.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceFolder {
    /// Text to embedding.
    pub spec: SentenceSpec,
    /// Where the transformer lies: empty, or ending in `/`.
    pub transformer: String,
    /// Folder (ending in `/`), inputs and outputs of each `Dense` module, in order.
    pub dense: Vec<Dense>,
}

/// A `Dense` module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dense {
    /// Its folder, ending in `/`.
    pub folder: String,
    /// `in_features`.
    pub inputs: usize,
    /// `out_features`.
    pub outputs: usize,
    /// `bias`.
    pub bias: bool,
}

/// Reads `modules.json`; without one, mean pooling over a plain transformer.
///
/// # Errors
/// [`FormatError::Unsupported`] for a module that this version does not run; [`FormatError::ModelConfig`].
pub fn sentence(files: &dyn Files) -> Result<SentenceFolder> {
    let mut out = SentenceFolder { spec: SentenceSpec::plain(), transformer: String::new(), dense: Vec::new() };
    let mut leaves_out = None;
    if files.has("modules.json") {
        let modules = json(files, "modules.json")?;
        let mut seen_pooling = false;
        for module in modules.items() {
            let kind = module.get("type").and_then(Json::text).unwrap_or_default();
            let path = module.get("path").and_then(Json::text).unwrap_or_default();
            let folder = if path.is_empty() { String::new() } else { format!("{}/", path.trim_end_matches('/')) };
            // Packages moved between versions (`sentence_transformers.models.Pooling`, `….sentence_transformer.modules.…`).
            match kind.rsplit('.').next().unwrap_or_default() {
                _ if !kind.starts_with("sentence_transformers.") => return Err(unknown(kind)),
                "Transformer" => out.transformer = folder,
                "Pooling" => {
                    let file = format!("{folder}config.json");
                    let (pooling, prompt) = pooling(files, &file)?;
                    out.spec.pooling = pooling;
                    leaves_out = (!prompt).then_some(file);
                    seen_pooling = true;
                }
                "Normalize" => out.spec.stages.push(SentenceStage::Normalize),
                "Dense" => {
                    let (dense, activation) = dense(files, &folder)?;
                    let index = u16::try_from(out.dense.len()).unwrap_or(u16::MAX);
                    out.dense.push(dense);
                    out.spec.stages.push(SentenceStage::Dense { index, activation });
                }
                "Dropout" => {}
                _ => return Err(unknown(kind)),
            }
        }
        if !seen_pooling {
            let why = "it names no Pooling module; this version embeds with a Transformer and a Pooling".into();
            return Err(FormatError::Unsupported { file: "modules.json".into(), why });
        }
    }
    if files.has("config_sentence_transformers.json") {
        let config = json(files, "config_sentence_transformers.json")?;
        for (name, text) in config.get("prompts").map(Json::entries).unwrap_or_default() {
            let Some(text) = text.text() else { continue };
            out.spec.prompts.insert(name.clone(), text.to_owned());
        }
        let default = config.get("default_prompt_name").filter(|v| !v.is_empty());
        // A text without a prompt's name gets none here; an empty one is none.
        if let Some(name) = default
            && name.text().and_then(|n| out.spec.prompts.get(n)).is_none_or(|text| !text.is_empty())
        {
            let why = format!(
                "{} would stand before every text that names no prompt, which is not supported: set it to null, and name the prompt where you embed",
                name.brief()
            );
            return Err(FormatError::ModelConfig {
                file: "config_sentence_transformers.json".into(),
                key: "default_prompt_name".into(),
                why,
            });
        }
        if let Some(name) =
            config.get("similarity_fn_name").and_then(Json::text).filter(|n| !matches!(*n, "cosine" | "dot"))
        {
            let why = format!("{:?} is not supported; this version compares with the cosine", shown(name));
            return Err(FormatError::ModelConfig {
                file: "config_sentence_transformers.json".into(),
                key: "similarity_fn_name".into(),
                why,
            });
        }
    }
    if let Some(file) = leaves_out.filter(|_| out.spec.prompts.values().any(|text| !text.is_empty())) {
        let why = "false leaves a prompt's tokens out of the pooling, which is not supported: set it to true if the model was trained so, or take the prompts out of config_sentence_transformers.json".into();
        return Err(FormatError::ModelConfig { file, key: "include_prompt".into(), why });
    }
    let settings = format!("{}sentence_bert_config.json", out.transformer);
    if files.has(&settings) {
        let config = json(files, &settings)?;
        if config.get("do_lower_case").and_then(Json::truth) == Some(true) {
            let why = "lower-casing before the tokenizer is not supported; set it to false where the tokenizer lower-cases itself".into();
            return Err(FormatError::ModelConfig { file: settings, key: "do_lower_case".into(), why });
        }
        out.spec.max_tokens = config.get("max_seq_length").and_then(Json::whole).filter(|n| *n > 2);
    }
    Ok(out)
}

fn unknown(kind: &str) -> FormatError {
    let why = format!(
        "the module {:?} is not supported; this version runs Transformer, Pooling, Dense and Normalize",
        shown(kind)
    );
    FormatError::Unsupported { file: "modules.json".into(), why }
}

fn json(files: &dyn Files, name: &str) -> Result<Json> {
    Json::parse(name, &files.read(name, SMALL)?)
}

/// How it pools, and whether a prompt's tokens are pooled too.
fn pooling(files: &dyn Files, file: &str) -> Result<(Pooling, bool)> {
    const MODES: [(&str, &str, Option<Pooling>); 7] = [
        ("pooling_mode_mean_tokens", "mean", Some(Pooling::Mean)),
        ("pooling_mode_cls_token", "cls", Some(Pooling::Cls)),
        ("pooling_mode_lasttoken", "lasttoken", Some(Pooling::Last)),
        ("pooling_mode_max_tokens", "max", Some(Pooling::Max)),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Some(Pooling::MeanSqrtLen)),
        ("pooling_mode_weightedmean_tokens", "weightedmean", None),
        ("pooling_mode", "", None),
    ];
    let config = json(files, file)?;
    let prompt = config.get("include_prompt").and_then(Json::truth).unwrap_or(true);
    let mode = config.get("pooling_mode").and_then(Json::text);
    let on: Vec<_> = MODES
        .iter()
        .filter(|(key, short, _)| {
            config.get(key).and_then(Json::truth) == Some(true) || (mode == Some(short) && !short.is_empty())
        })
        .collect();
    match on.as_slice() {
        [(_, _, Some(pooling))] => Ok((*pooling, prompt)),
        [] if mode.is_none() => Ok((Pooling::Mean, prompt)),
        _ => {
            let names: Vec<&str> = on.iter().map(|(key, _, _)| *key).collect();
            let why = format!(
                "one of mean, cls, last, max, mean_sqrt_len is supported, this asks for {}",
                names.join(" and ")
            );
            Err(FormatError::ModelConfig { file: file.into(), key: "pooling_mode".into(), why })
        }
    }
}

fn dense(files: &dyn Files, folder: &str) -> Result<(Dense, Activation)> {
    let file = format!("{folder}config.json");
    let config = json(files, &file)?;
    let bad = |key: &str, why: String| FormatError::ModelConfig { file: file.clone(), key: key.into(), why };
    let size = |key: &str| {
        config
            .get(key)
            .and_then(Json::whole)
            .filter(|n| (1..=1 << 16).contains(n))
            .ok_or_else(|| bad(key, "not a width".into()))
    };
    let name = config.get("activation_function").and_then(Json::text).unwrap_or("torch.nn.modules.activation.Tanh");
    let activation = torch_activation(name)
        .ok_or_else(|| bad("activation_function", format!("{:?} is not a supported activation", shown(name))))?;
    let bias = config.get("bias").and_then(Json::truth).unwrap_or(true);
    Ok((
        Dense { folder: folder.into(), inputs: size("in_features")?, outputs: size("out_features")?, bias },
        activation,
    ))
}
