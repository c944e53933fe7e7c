//! `adapter_config.json` of a LoRA: what changes its mathematics, and a refusal of what is not known.

use super::CONFIG;
use super::targets::{Matcher, Pattern, Targets};
use crate::error::{FormatError, Result, shown};
use crate::json::Json;

/// Entries that say nothing about the result: provenance, training, initialisation of what is stored anyway.
const SILENT: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];
/// Entries that this module reads.
const READ: &[&str] = &[
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "modules_to_save",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
];
/// Variants that change the mathematics, with what they are.
const VARIANTS: &[(&str, &str)] = &[
    ("use_dora", "DoRA (weight-decomposed LoRA)"),
    ("use_qalora", "QALoRA"),
    ("target_parameters", "LoRA on bare parameters"),
    ("layer_replication", "layer replication"),
    ("trainable_token_indices", "trainable tokens"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("use_bdlora", "BD-LoRA"),
    ("arrow_config", "Arrow routing"),
    ("velora_config", "VeLoRA"),
    ("monteclora_config", "MonteCLoRA"),
    ("kasa_config", "KaSA"),
    ("megatron_config", "Megatron layers"),
];

/// Which biases travel with the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Biases {
    None,
    OfTargets,
    All,
}

/// What a LoRA's configuration says.
#[derive(Debug)]
pub(crate) struct LoraConfig {
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
    pub(crate) rslora: bool,
    pub(crate) lora_bias: bool,
    pub(crate) bias: Biases,
    pub(crate) rank_pattern: Vec<(Pattern, usize)>,
    pub(crate) alpha_pattern: Vec<(Pattern, f64)>,
    pub(crate) targets: Targets,
    pub(crate) modules_to_save: Vec<String>,
    pub(crate) task: Option<String>,
    pub(crate) base_name: Option<String>,
}

pub(crate) fn bad(key: &str, why: impl Into<String>) -> FormatError {
    FormatError::AdapterConfig { file: CONFIG.into(), key: shown(key), why: why.into() }
}

impl LoraConfig {
    pub(crate) fn parse(json: &Json) -> Result<Self> {
        for (key, value) in json.entries() {
            if value.is_empty() || SILENT.contains(&key.as_str()) || READ.contains(&key.as_str()) {
                continue;
            }
            if let Some((_, what)) = VARIANTS.iter().find(|(name, _)| name == key) {
                return Err(bad(key, format!("{what} is not supported by this version; plain LoRA is")));
            }
            return Err(bad(
                key,
                format!(
                    "this version does not know this entry, and {} may change the result; remove it if it does not",
                    value.brief()
                ),
            ));
        }
        init(json)?;
        let rank = |key: &str, v: &Json| match v.whole() {
            Some(r) if (1..=1 << 16).contains(&r) => Ok(r),
            _ => Err(bad(key, format!("the rank {} is not a whole number of 1 or more", v.brief()))),
        };
        let alpha = |key: &str, v: &Json| match v.number() {
            Some(a) if a.is_finite() => Ok(a),
            _ => Err(bad(key, format!("{} is not a number", v.brief()))),
        };
        let flag = |key: &str| match json.get(key) {
            None => Ok(false),
            Some(v) => v.truth().ok_or_else(|| bad(key, format!("{} is not true or false", v.brief()))),
        };
        let bias = match json.get("bias").map(|b| b.text().unwrap_or_default()) {
            None | Some("none") => Biases::None,
            Some("lora_only") => Biases::OfTargets,
            Some("all") => Biases::All,
            Some(other) => return Err(bad("bias", format!("{:?} is not none, all or lora_only", shown(other)))),
        };
        let patterns = |key: &str| json.get(key).map(Json::entries).unwrap_or_default();
        Ok(Self {
            rank: json.get("r").map_or(Ok(8), |v| rank("r", v))?,
            alpha: json.get("lora_alpha").map_or(Ok(8.0), |v| alpha("lora_alpha", v))?,
            rslora: flag("use_rslora")?,
            lora_bias: flag("lora_bias")?,
            bias,
            rank_pattern: patterns("rank_pattern")
                .iter()
                .map(|(k, v)| Ok((Pattern::new("rank_pattern", k)?, rank("rank_pattern", v)?)))
                .collect::<Result<_>>()?,
            alpha_pattern: patterns("alpha_pattern")
                .iter()
                .map(|(k, v)| Ok((Pattern::new("alpha_pattern", k)?, alpha("alpha_pattern", v)?)))
                .collect::<Result<_>>()?,
            targets: targets(json)?,
            modules_to_save: names("modules_to_save", json.get("modules_to_save"))?,
            task: json.get("task_type").and_then(Json::text).map(str::to_owned),
            base_name: json.get("base_model_name_or_path").and_then(Json::text).map(str::to_owned),
        })
    }

    /// Rank and scale of the update at `module`, a dotted path in the wrapped model.
    ///
    /// `alpha / r`, or `alpha / √r` for rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732).
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "ranks are small; the scale is f32 in the IR"
    )]
    pub(crate) fn scale(&self, module: &str) -> Result<(usize, f32)> {
        let rank = first(&self.rank_pattern, module)?.unwrap_or(self.rank);
        let alpha = first(&self.alpha_pattern, module)?.unwrap_or(self.alpha);
        let r = rank as f64;
        Ok((rank, (alpha / if self.rslora { r.sqrt() } else { r }) as f32))
    }
}

/// PEFT tries the patterns in the order of the file.
fn first<T: Copy>(patterns: &[(Pattern, T)], module: &str) -> Result<Option<T>> {
    for (pattern, value) in patterns {
        if pattern.ends(module)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// Initialisations that change the base as well as the adapter leave an adapter that fits no stored base.
fn init(json: &Json) -> Result<()> {
    let key = "init_lora_weights";
    match json.get(key) {
        None | Some(Json::Bool(_)) => Ok(()),
        Some(Json::Text(name)) => match name.as_str() {
            "gaussian" | "eva" | "orthogonal" | "lora_ga" | "mica" => Ok(()),
            other => {
                let why = format!(
                    "{:?} changed the base's own weights before training; save it in Python with path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
                    shown(other)
                );
                Err(bad(key, why))
            }
        },
        Some(other) => Err(bad(key, format!("{} is not an initialisation", other.brief()))),
    }
}

fn targets(json: &Json) -> Result<Targets> {
    let matcher = |key: &str| match json.get(key) {
        None => Ok(None),
        Some(Json::Text(t)) if key == "target_modules" && t.eq_ignore_ascii_case("all-linear") => {
            Ok(Some(Matcher::AllLinear))
        }
        Some(Json::Text(t)) => Pattern::new(key, t).map(|p| Some(Matcher::Regex(Box::new(p)))),
        Some(list @ Json::List(_)) => {
            names(key, Some(list)).map(|n| if n.is_empty() { None } else { Some(Matcher::Names(n)) })
        }
        Some(other) => Err(bad(key, format!("{} is neither a list of names nor a pattern", other.brief()))),
    };
    let layers = match json.get("layers_to_transform") {
        None => None,
        Some(v) => {
            let list = if let Json::List(items) = v { items.clone() } else { vec![v.clone()] };
            let list: Option<Vec<usize>> = list.iter().map(Json::whole).collect();
            let list = list.ok_or_else(|| bad("layers_to_transform", format!("{} is not layer numbers", v.brief())))?;
            if list.is_empty() { None } else { Some(list) }
        }
    };
    let pattern = match json.get("layers_pattern") {
        Some(Json::Text(t)) => vec![t.clone()],
        other => names("layers_pattern", other)?,
    };
    let layer_patterns = pattern
        .iter()
        .map(|p| Pattern::new("layers_pattern", &format!(r"(?:^|.*?\.){p}\.(\d+)\.")))
        .collect::<Result<_>>()?;
    Ok(Targets { include: matcher("target_modules")?, exclude: matcher("exclude_modules")?, layers, layer_patterns })
}

fn names(key: &str, value: Option<&Json>) -> Result<Vec<String>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let list: Option<Vec<String>> = value.items().iter().map(|v| v.text().map(str::to_owned)).collect();
    match (value, list) {
        (Json::List(_), Some(list)) => Ok(list),
        _ => Err(bad(key, format!("{} is not a list of names", value.brief()))),
    }
}
