//! From placed tensors to a [`ModelSpec`]: what must be there, and what the sites are.

use super::config::EncoderConfig;
use super::layout::Slot;
use super::sentence::{Dense, SentenceFolder};
use crate::architectures::{self, Holds};
use crate::container::{Dtype, Header};
use crate::error::{FormatError, Result};
use crate::names::{self, Param, Part};
use polygraft::ir::LinearSite;
use polygraft::model::{
    Arch, EmbeddingWeights, Fingerprint, HeadInput, HeadKind, HeadSpec, HeadTask, LinearWeights, ModelSpec,
    NormWeights, Relative, SentenceSpec, SentenceStage, SpecialTokens, WeightId, WeightInfo,
};
use std::collections::BTreeMap;

/// A tensor that has found its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) id: WeightId,
    pub(crate) rows: usize,
}

/// The modules that the configuration and the head need, with whether their bias may be absent.
pub(crate) fn needed(config: &EncoderConfig, folder: &SentenceFolder, head: Option<HeadTask>) -> Vec<(Part, bool)> {
    let mut parts: Vec<Part> = vec![Part::Word, Part::Position, Part::TokenType, Part::Relative];
    parts.extend(names::backbone(config.arch, config.layers).into_iter().map(|(_, part)| part));
    let tied = |site| site == LinearSite::HeadOutput && head.is_some_and(|task| tied(config, task));
    let mut out = Vec::new();
    if let Some(kind) = head.and_then(|task| config.head_kinds.get(&task)) {
        parts.extend(kind.linears().filter(|s| !tied(*s)).map(Part::Linear));
        parts.extend(kind.norms().map(Part::Norm));
        out.extend(kind.linears().filter(|s| tied(*s)).map(|s| (Part::Linear(s), !config.biases.decoder)));
    }
    let decoder = |part| part == Part::Linear(LinearSite::HeadOutput) && head == Some(HeadTask::MaskedLm);
    out.extend(parts.into_iter().filter_map(|part| match (architectures::of(config.arch).holds)(config, part) {
        Holds::Nothing => None,
        Holds::Weight => Some((part, true)),
        Holds::Both => Some((part, decoder(part) && !config.biases.decoder)),
    }));
    for (i, dense) in folder.dense.iter().enumerate() {
        let site = LinearSite::Sentence(u16::try_from(i).unwrap_or(u16::MAX));
        out.push((Part::Linear(site), !dense.bias));
    }
    out
}

/// Whether the head's output layer is the word table, with a bias of its own.
pub(crate) fn tied(config: &EncoderConfig, task: HeadTask) -> bool {
    task == HeadTask::MaskedLm && config.tied
}

/// Names of tensors that are needed and not there.
pub(crate) fn missing(
    config: &EncoderConfig,
    folder: &SentenceFolder,
    head: Option<HeadTask>,
    placed: &BTreeMap<Slot, Placed>,
) -> Vec<String> {
    let mut out = Vec::new();
    for (part, no_bias) in needed(config, folder, head) {
        let tied = part == Part::Linear(LinearSite::HeadOutput) && head.is_some_and(|task| tied(config, task));
        for param in [Param::Weight, Param::Bias] {
            let optional = if param == Param::Bias { no_bias } else { tied };
            if !optional && !placed.contains_key(&Slot { part, param }) {
                out.push(names::tensor_name(config.arch, head, part, param));
            }
        }
    }
    out
}

/// The `Dense` modules of a converted model, whose shapes are those of its tensors.
pub(crate) fn own_dense(file: &str, header: &Header, spec: &SentenceSpec) -> Result<Vec<Dense>> {
    let count = spec.stages.iter().filter(|s| matches!(s, SentenceStage::Dense { .. })).count();
    (0..count)
        .map(|i| {
            let name = format!("sentence.{i}.weight");
            let info = header.get(&name).filter(|t| t.shape.len() == 2);
            let info = info.ok_or_else(|| FormatError::ModelKeys {
                file: file.into(),
                missing: vec![name.clone()],
                extra: Vec::new(),
            })?;
            let inputs = if info.dtype == Dtype::U8 { info.shape[1] * 2 } else { info.shape[1] };
            let bias = header.get(&format!("sentence.{i}.bias")).is_some();
            Ok(Dense { folder: String::new(), inputs, outputs: info.shape[0], bias })
        })
        .collect()
}

/// Puts the spec together; every needed tensor has been placed.
pub(crate) fn spec(
    config: EncoderConfig,
    sentence: SentenceSpec,
    head: Option<HeadTask>,
    special: SpecialTokens,
    weights: Vec<WeightInfo>,
    placed: &BTreeMap<Slot, Placed>,
    fingerprint: Fingerprint,
) -> Result<ModelSpec> {
    let bad = |key: &str, why: String| FormatError::ModelConfig { file: config.file.clone(), key: key.into(), why };
    let at = |part, param| placed.get(&Slot { part, param }).map(|p| p.id);
    let gone = || bad("tensors", "the weights are incomplete".into());
    let mut linears = BTreeMap::new();
    let mut norms = BTreeMap::new();
    for Slot { part, param } in placed.keys() {
        match (*part, *param) {
            (Part::Linear(site), Param::Weight) => {
                let weight = at(*part, Param::Weight).ok_or_else(gone)?;
                linears.insert(site, LinearWeights { weight, bias: at(*part, Param::Bias) });
            }
            (Part::Norm(site), Param::Weight) => {
                let gamma = at(*part, Param::Weight).ok_or_else(gone)?;
                norms.insert(site, NormWeights { gamma, beta: at(*part, Param::Bias) });
            }
            _ => {}
        }
    }
    let word = at(Part::Word, Param::Weight).ok_or_else(gone)?;
    let output = Part::Linear(LinearSite::HeadOutput);
    if head.is_some_and(|task| tied(&config, task)) {
        linears.insert(LinearSite::HeadOutput, LinearWeights { weight: word, bias: at(output, Param::Bias) });
    }
    let table = at(Part::Relative, Param::Weight);
    let relative = config.relative.zip(table).map(|((buckets, terms), table)| Relative { table, buckets, terms });
    let embeddings = EmbeddingWeights {
        word,
        position: at(Part::Position, Param::Weight),
        token_type: at(Part::TokenType, Param::Weight),
    };
    let head = head.map(|task| head_spec(&config, task, placed)).transpose()?;
    check_widths(&config, &sentence, &linears, &weights)?;
    Ok(ModelSpec {
        arch: config.arch,
        embedding: config.embedding,
        hidden: config.hidden,
        layers: config.layers,
        order: config.order,
        heads: config.heads,
        ffn: config.ffn,
        vocab: config.vocab,
        max_positions: config.max_positions,
        position_offset: config.position_offset,
        token_types: config.types,
        eps: config.eps,
        prenorm: config.prenorm,
        activation: config.activation,
        gated: config.gated,
        attention_scale: config.attention_scale,
        places: config.places,
        relative,
        image: config.image,
        convolution: config.convolution.map(|c| c.activation),
        special,
        pair: config.pair,
        weights,
        embeddings,
        linears,
        norms,
        head,
        head_kinds: config.head_kinds,
        head_biases: config.biases.head,
        sentence,
        fingerprint,
        config: config.text,
    })
}

fn head_spec(config: &EncoderConfig, task: HeadTask, placed: &BTreeMap<Slot, Placed>) -> Result<HeadSpec> {
    let kind = config.head_kinds.get(&task).copied().unwrap_or(HeadKind::linear(HeadInput::Tokens));
    let rows = |param| placed.get(&Slot { part: Part::Linear(LinearSite::HeadOutput), param }).map(|p| p.rows);
    let bias = rows(Param::Bias);
    let labels = rows(Param::Weight).or(bias).unwrap_or_default();
    let expected = if task == HeadTask::MaskedLm { config.vocab } else { config.labels.len() };
    if labels != expected || bias.is_some_and(|b| b != labels) {
        return Err(FormatError::ModelShape {
            file: config.file.clone(),
            tensor: names::path(config.arch, Some(task), Part::Linear(LinearSite::HeadOutput)),
            expected: format!("{expected} labels, as the configuration says"),
            found: format!("{labels} in its weight, {} in its bias", bias.unwrap_or(labels)),
        });
    }
    let named = config.labels_named && matches!(task, HeadTask::Sequence | HeadTask::Token);
    Ok(HeadSpec {
        kind,
        task,
        labels: u32::try_from(labels).unwrap_or(u32::MAX),
        // AdapterHub hooks its adapters into this model, and there undoes an invertible one before any vocabulary.
        uncouples: config.arch == Arch::ModernBert && task == HeadTask::MaskedLm,
        label_names: if named { config.labels.clone() } else { Vec::new() },
        score_activation: config.score_activation,
    })
}

/// A `Dense` module's inputs are the outputs of what comes before it.
fn check_widths(
    config: &EncoderConfig,
    sentence: &SentenceSpec,
    linears: &BTreeMap<LinearSite, LinearWeights>,
    weights: &[WeightInfo],
) -> Result<()> {
    let mut width = config.hidden;
    for stage in &sentence.stages {
        let SentenceStage::Dense { index, .. } = stage else { continue };
        let Some(info) = linears.get(&LinearSite::Sentence(*index)).map(|l| &weights[l.weight.0 as usize]) else {
            continue;
        };
        if info.cols != width {
            let why = format!("Dense module {index} takes {} inputs and gets {width}", info.cols);
            return Err(FormatError::ModelConfig { file: "modules.json".into(), key: "in_features".into(), why });
        }
        width = info.rows;
    }
    Ok(())
}
