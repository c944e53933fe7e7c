//! Heads saved beside an adapter: `head_config.json` with `heads.H.<place>.*` (flexible, of `…AdapterModel`) or with the
//! tensors of transformers' own class.

use super::config::Settings;
use super::reading::Head;
use super::tensors::Tensors;
use crate::adapter::AdapterOptions;
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::names::{self, Param, Part};
use crate::source::{Files, SMALL};
use polygraft::ir::{Dense, LinearSite, Norm, NormSite, Op, Patch, Site};
use polygraft::model::{Activation, Arch, HeadInput, HeadKind, HeadSpec, HeadTask, ModelSpec};
use polygraft::tensor::Matrix;
use std::collections::BTreeMap;

/// The configuration's name.
const CONFIG: &str = "head_config.json";
const WEIGHTS: [&str; 2] = ["pytorch_model_head.bin", "model_head.safetensors"];

/// A kind of flexible head.
struct Row {
    kind: &'static str,
    task: HeadTask,
    /// Layers, activation, norm and bias where the configuration does not say.
    defaults: (usize, Option<&'static str>, bool, bool),
}

const ROWS: &[Row] = &[
    Row { kind: "classification", task: HeadTask::Sequence, defaults: (2, Some("tanh"), false, true) },
    Row { kind: "multilabel_classification", task: HeadTask::Sequence, defaults: (2, Some("tanh"), false, true) },
    Row { kind: "image_classification", task: HeadTask::Sequence, defaults: (1, Some("tanh"), false, true) },
    Row { kind: "multiple_choice", task: HeadTask::Sequence, defaults: (2, Some("tanh"), false, true) },
    Row { kind: "tagging", task: HeadTask::Token, defaults: (1, Some("tanh"), false, true) },
    Row { kind: "question_answering", task: HeadTask::Question, defaults: (1, Some("tanh"), false, true) },
    Row { kind: "masked_lm", task: HeadTask::MaskedLm, defaults: (2, Some("gelu"), true, true) },
    Row { kind: "causal_lm", task: HeadTask::MaskedLm, defaults: (1, None, false, false) },
];
const READ: &[&str] = &[
    "activation_function",
    "bias",
    "embedding_size",
    "head_type",
    "label2id",
    "layer_norm",
    "layers",
    "num_choices",
    "num_labels",
    "use_pooler",
    "vocab_size",
];
/// Training, and how losses are computed.
const SILENT: &[&str] = &["dropout_prob", "id2label", "multilabel", "shift_labels"];

/// The head of a folder, if it has one.
///
/// # Errors
/// [`FormatError::AdapterConfig`], [`FormatError::AdapterKeys`], [`FormatError::AdapterShape`], and what its files are
/// refused for.
pub(super) fn load(files: &dyn Files, spec: &ModelSpec, options: &AdapterOptions) -> Result<Head> {
    if !files.has(CONFIG) {
        return match WEIGHTS.into_iter().find(|w| files.has(w)) {
            None => Ok(Head::default()),
            Some(weights) => {
                let hint = format!("it says what the head in {weights} is");
                Err(FormatError::FileMissing { file: CONFIG.into(), hint })
            }
        };
    }
    let top = Json::parse(CONFIG, &files.read(CONFIG, SMALL)?)?;
    super::about(CONFIG, &top, spec, options)?;
    let mut tensors = Tensors::open(files, WEIGHTS, "")?;
    let mut head = match top.get("config") {
        Some(config) => flexible(&Settings::new(CONFIG, config.clone()), &top, spec, &mut tensors)?,
        None => fixed(&Settings::new(CONFIG, top.clone()), spec, &mut tensors)?,
    };
    let left = tensors.finish(options.strict)?;
    (head.unused, head.missing) = (left.extra, left.missing);
    Ok(head)
}

/// `[drop, Linear, act] × (layers − 1), drop, Linear`; language models have norms and no dropout.
fn flexible(s: &Settings, top: &Json, spec: &ModelSpec, tensors: &mut Tensors) -> Result<Head> {
    s.only(READ, SILENT)?;
    let kind = s.text("head_type")?.unwrap_or_default();
    let Some(row) = ROWS.iter().find(|r| r.kind == kind) else {
        let why = format!("a head of type {:?} is not supported", shown(kind));
        return Err(s.bad("head_type", why));
    };
    let name = top
        .get("name")
        .and_then(Json::text)
        .ok_or_else(|| s.bad("name", "it is missing: the tensors are named by it"))?;
    tensors.ignore_longer(&format!("heads.{name}"));
    let words = row.task == HeadTask::MaskedLm;
    let (layers, activation, norm, bias) = row.defaults;
    let layers = s.whole("layers", layers)?;
    let has_activation = if s.has("activation_function") {
        s.get("activation_function").is_some_and(|v| !v.is_empty())
    } else {
        activation.is_some()
    };
    let activation = match activation {
        _ if !has_activation => Activation::Identity,
        Some(default) if !s.has("activation_function") => {
            Activation::from_name(default).unwrap_or(Activation::Identity)
        }
        _ => s.activation("activation_function")?,
    };
    let norm = words && s.flag("layer_norm", norm)?;
    let bias = s.flag("bias", bias)?;
    let labels = match kind {
        "multiple_choice" => 1,
        "masked_lm" | "causal_lm" => s.whole("vocab_size", spec.vocab)?,
        _ => s.whole("num_labels", 2)?,
    };
    let width = if words { s.whole("embedding_size", spec.embedding)? } else { spec.hidden };
    let input = match row.task {
        // There is no pooler, and the library hands such a head the states of all tokens.
        HeadTask::Sequence if s.flag("use_pooler", false)? && matches!(spec.arch, Arch::DebertaV2 { .. }) => {
            HeadInput::Tokens
        }
        HeadTask::Sequence if s.flag("use_pooler", false)? => HeadInput::Pooled(Activation::Tanh),
        HeadTask::Sequence => HeadInput::First,
        HeadTask::Token | HeadTask::Question | HeadTask::MaskedLm => HeadInput::Tokens,
    };
    let count = |n: usize, key: &str| u8::try_from(n).map_err(|_| s.bad(key, format!("{n} layers; at most 256")));
    let hidden = count(layers - 1, "layers")?;
    let head = HeadKind::dense(input, hidden, to_u32(width), activation, norm);
    let mut patches = Vec::new();
    let mut place = 0;
    for layer in 0..hidden {
        // Dropouts and functions take places too.
        place += usize::from(!words);
        let inputs = if layer == 0 { spec.hidden } else { width };
        let path = format!("heads.{name}.{place}");
        linear(tensors, &path, LinearSite::HeadDense(layer), (width, inputs), true, &mut patches)?;
        place += 1 + usize::from(has_activation);
        if norm {
            let path = format!("heads.{name}.{place}");
            let gamma = tensors.need(&format!("{path}.weight"), &[width])?;
            let beta = tensors.need(&format!("{path}.bias"), &[width])?;
            let site = Site::Norm(NormSite::HeadDense(layer));
            patches.push(Patch { site, op: Op::ReplaceNorm(Norm { gamma, beta }) });
            place += 1;
        }
    }
    place += usize::from(!words);
    let inputs = if hidden == 0 { spec.hidden } else { width };
    linear(tensors, &format!("heads.{name}.{place}"), LinearSite::HeadOutput, (labels, inputs), bias, &mut patches)?;
    let spec = HeadSpec {
        kind: head,
        task: row.task,
        labels: to_u32(labels),
        label_names: label_names(s),
        // With a head of this kind, the library undoes an invertible adapter before the vocabulary.
        uncouples: words,
        score_activation: None,
    };
    Ok(Head { spec: Some(spec), patches, ..Head::default() })
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn linear(
    tensors: &mut Tensors,
    path: &str,
    site: LinearSite,
    (rows, cols): (usize, usize),
    has_bias: bool,
    patches: &mut Vec<Patch>,
) -> Result<()> {
    let weight = tensors.matrix(&format!("{path}.weight"), rows, cols)?;
    // Zeros and not nothing: nothing would leave the base's own in place.
    let bias = if has_bias { tensors.need(&format!("{path}.bias"), &[rows])? } else { Some(vec![0.0; rows]) };
    if weight.is_some() && bias.is_some() {
        patches.push(Patch { site: Site::Linear(site), op: Op::ReplaceLinear(Dense { weight, bias }) });
    }
    Ok(())
}

/// The names of the outputs in their order.
fn label_names(s: &Settings) -> Vec<String> {
    let entries = s.get("label2id").map(Json::entries).unwrap_or_default();
    let mut pairs: Vec<(usize, &str)> =
        entries.iter().filter_map(|(name, id)| Some((id.whole()?, name.as_str()))).collect();
    pairs.sort_unstable();
    pairs.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// The head of one of transformers' classes; its pooler, if it has one, is the base's.
fn fixed(s: &Settings, spec: &ModelSpec, tensors: &mut Tensors) -> Result<Head> {
    let class = s.text("model_class")?.unwrap_or_default();
    let choice = class.ends_with("ForMultipleChoice");
    let task = if choice { Some(HeadTask::Sequence) } else { names::task_of_architecture(class) };
    let Some(task) = task else {
        return Err(s.bad("model_class", format!("the head of a {:?} is not supported", shown(class))));
    };
    let kind = if choice {
        Some(HeadKind::linear(HeadInput::Pooled(Activation::Tanh)))
    } else {
        spec.head_kinds.get(&task).copied()
    };
    let Some(kind) = kind else {
        return Err(s.bad("model_class", format!("{} has no head for this task", spec.arch.name())));
    };
    let labels = match (choice, task) {
        (true, _) => 1,
        (_, HeadTask::MaskedLm) => spec.vocab,
        (_, HeadTask::Sequence | HeadTask::Token | HeadTask::Question) => s.whole("num_labels", 2)?,
    };
    let mut linears: BTreeMap<LinearSite, Dense> = BTreeMap::new();
    let mut norms: BTreeMap<NormSite, Norm> = BTreeMap::new();
    let paths: Vec<String> = tensors.paths().map(str::to_owned).collect();
    for path in paths {
        if names::does_nothing(spec.arch, &path) {
            tensors.ignore(&path);
            continue;
        }
        // RoBERTa's classifier for tokens has the name of the one for sequences.
        let found = names::tensor(spec.arch, &path);
        match found {
            Some((Part::Linear(site), param)) => {
                let Some((rows, cols)) = kind.shape(site, labels, spec.hidden) else { continue };
                let dense = linears.entry(site).or_insert(Dense { weight: None, bias: None });
                match param {
                    Param::Weight => {
                        dense.weight = tensors.take(&path, &[rows, cols])?.and_then(|v| Matrix::dense(rows, cols, v))
                    }
                    Param::Bias => dense.bias = tensors.take(&path, &[rows])?,
                }
            }
            Some((Part::Norm(site @ NormSite::HeadDense(_)), param)) if kind.has(Site::Norm(site)) => {
                let norm = norms.entry(site).or_insert(Norm { gamma: None, beta: None });
                let values = tensors.take(&path, &[kind.width as usize])?;
                *(if param == Param::Weight { &mut norm.gamma } else { &mut norm.beta }) = values;
            }
            _ => {}
        }
    }
    for site in kind.linears().filter(|s| *s != LinearSite::Pooler) {
        let there = linears.get(&site);
        let biased = spec.head_biases || site == LinearSite::HeadOutput;
        for (gone, param) in [
            (there.is_none_or(|d| d.weight.is_none()), Param::Weight),
            (biased && there.is_none_or(|d| d.bias.is_none()), Param::Bias),
        ] {
            if gone {
                tensors.miss(&format!("{}.{}", names::path(spec.arch, Some(task), Part::Linear(site)), param.name()));
            }
        }
    }
    let mut patches: Vec<Patch> =
        linears.into_iter().map(|(site, op)| Patch { site: Site::Linear(site), op: Op::ReplaceLinear(op) }).collect();
    patches.extend(norms.into_iter().map(|(site, op)| Patch { site: Site::Norm(site), op: Op::ReplaceNorm(op) }));
    let spec = HeadSpec {
        kind,
        task,
        labels: to_u32(labels),
        label_names: label_names(s),
        // Where the library hooks adapters into a model, it undoes an invertible one before any vocabulary.
        uncouples: task == HeadTask::MaskedLm && super::names::hooked(spec),
        score_activation: None,
    };
    Ok(Head { spec: Some(spec), patches, ..Head::default() })
}
