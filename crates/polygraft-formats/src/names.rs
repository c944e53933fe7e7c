//! What transformers calls the parts of BERT and RoBERTa: one table for base models and for adapters.

use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{Activation, Arch, HeadInput, HeadKind, HeadTask};
use std::collections::BTreeMap;

/// A module that holds weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Word embeddings `[vocab, hidden]`.
    Word,
    /// Position embeddings `[positions, hidden]`.
    Position,
    /// Token-type embeddings `[types, hidden]`.
    TokenType,
    /// A layer norm.
    Norm(NormSite),
    /// A linear layer.
    Linear(LinearSite),
}

/// Which of a module's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Param {
    /// `weight`: a matrix, or a norm's γ.
    Weight,
    /// `bias`: a vector, or a norm's β.
    Bias,
}

impl Param {
    /// The last word of the tensor's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Bias => "bias",
        }
    }
}

/// The task of a class of transformers, by its name in `architectures`.
#[must_use]
pub fn task_of_architecture(name: &str) -> Option<HeadTask> {
    let (_, tail) = name.split_once("For")?;
    Some(match tail {
        "SequenceClassification" => HeadTask::Sequence,
        "TokenClassification" => HeadTask::Token,
        "QuestionAnswering" => HeadTask::Question,
        "MaskedLM" | "PreTraining" => HeadTask::MaskedLm,
        _ => return None,
    })
}

/// The task of a head by PEFT's `task_type`.
#[must_use]
pub fn task_of_peft(task: &str) -> Option<HeadTask> {
    Some(match task {
        "SEQ_CLS" => HeadTask::Sequence,
        "TOKEN_CLS" => HeadTask::Token,
        "QUESTION_ANS" => HeadTask::Question,
        _ => return None,
    })
}

/// What transformers' heads look like on a base of `hidden` numbers a token.
#[must_use]
pub fn head_kinds(arch: Arch, hidden: usize, activation: Activation) -> BTreeMap<HeadTask, HeadKind> {
    let width = u32::try_from(hidden).unwrap_or(u32::MAX);
    let dense = |input, activation, norm| HeadKind::dense(input, 1, width, activation, norm);
    let (sequence, inside) = match arch {
        Arch::Bert => (HeadKind::linear(HeadInput::Pooled(Activation::Tanh)), activation),
        // Its head for the vocabulary has the erf GELU, whatever `hidden_act` says.
        Arch::Roberta | Arch::XlmRoberta => (dense(HeadInput::First, Activation::Tanh, false), Activation::Gelu),
    };
    BTreeMap::from([
        (HeadTask::Sequence, sequence),
        (HeadTask::Token, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::Question, HeadKind::linear(HeadInput::Tokens)),
        (HeadTask::MaskedLm, dense(HeadInput::Tokens, inside, true)),
    ])
}

/// The attribute that holds the backbone inside a model with a head: keys may or may not begin with it.
#[must_use]
pub fn backbone_prefix(arch: Arch) -> &'static str {
    match arch {
        Arch::Bert => "bert.",
        Arch::Roberta | Arch::XlmRoberta => "roberta.",
    }
}

const LAYER: [(&str, LayerLinear); 6] = [
    ("attention.self.query", LayerLinear::Query),
    ("attention.self.key", LayerLinear::Key),
    ("attention.self.value", LayerLinear::Value),
    ("attention.output.dense", LayerLinear::AttentionOutput),
    ("intermediate.dense", LayerLinear::FfnIn),
    ("output.dense", LayerLinear::FfnOut),
];

/// The module of the backbone or of a head at `path`, written without the backbone's prefix.
#[must_use]
pub fn part(arch: Arch, path: &str) -> Option<Part> {
    if let Some(rest) = path.strip_prefix("encoder.layer.") {
        let (number, rest) = rest.split_once('.')?;
        // "01" would be a second name for layer 1.
        let layer: u16 = number.parse().ok().filter(|n: &u16| n.to_string() == number)?;
        return match rest {
            "attention.output.LayerNorm" => Some(Part::Norm(NormSite::AfterAttention(layer))),
            "output.LayerNorm" => Some(Part::Norm(NormSite::AfterFfn(layer))),
            _ => LAYER.iter().find(|(name, _)| *name == rest).map(|(_, l)| Part::Linear(LinearSite::Layer(layer, *l))),
        };
    }
    Some(match (path, arch) {
        ("embeddings.word_embeddings", _) => Part::Word,
        ("embeddings.position_embeddings", _) => Part::Position,
        ("embeddings.token_type_embeddings", _) => Part::TokenType,
        ("embeddings.LayerNorm", _) => Part::Norm(NormSite::Embeddings),
        ("pooler.dense", _) => Part::Linear(LinearSite::Pooler),
        ("classifier" | "qa_outputs", _) => Part::Linear(LinearSite::HeadOutput),
        ("cls.predictions.transform.dense", Arch::Bert)
        | ("classifier.dense" | "lm_head.dense", Arch::Roberta | Arch::XlmRoberta) => {
            Part::Linear(LinearSite::HeadDense(0))
        }
        ("cls.predictions.decoder", Arch::Bert)
        | ("classifier.out_proj" | "lm_head.decoder", Arch::Roberta | Arch::XlmRoberta) => {
            Part::Linear(LinearSite::HeadOutput)
        }
        ("cls.predictions.transform.LayerNorm", Arch::Bert)
        | ("lm_head.layer_norm", Arch::Roberta | Arch::XlmRoberta) => Part::Norm(NormSite::HeadDense(0)),
        _ => return None,
    })
}

/// Tensor name → module and parameter: the backbone's prefix and the oldest names of norms are understood.
#[must_use]
pub fn tensor(arch: Arch, name: &str) -> Option<(Part, Param)> {
    let name = name.strip_prefix(backbone_prefix(arch)).unwrap_or(name);
    // A masked-LM head keeps its output bias beside the decoder as well as in it.
    if matches!((name, arch), ("cls.predictions.bias", Arch::Bert) | ("lm_head.bias", Arch::Roberta | Arch::XlmRoberta))
    {
        return Some((Part::Linear(LinearSite::HeadOutput), Param::Bias));
    }
    let (path, last) = name.rsplit_once('.')?;
    let part = part(arch, path)?;
    let param = match (last, part) {
        ("weight", _) | ("gamma", Part::Norm(_)) => Param::Weight,
        ("bias", Part::Norm(_) | Part::Linear(_)) | ("beta", Part::Norm(_)) => Param::Bias,
        _ => return None,
    };
    Some((part, param))
}

/// Buffers and heads that change nothing in an encoder's outputs.
#[must_use]
pub fn does_nothing(arch: Arch, name: &str) -> bool {
    let bare = name.strip_prefix(backbone_prefix(arch)).unwrap_or(name);
    matches!(bare, "embeddings.position_ids" | "embeddings.token_type_ids") || bare.starts_with("cls.seq_relationship.")
}

/// The task of the head that a set of tensor names shows; `classifier` alone is told apart by `hint`.
#[must_use]
pub fn head_task<'a>(arch: Arch, names: impl Iterator<Item = &'a str>, hint: Option<HeadTask>) -> Option<HeadTask> {
    let mut found = None;
    for name in names {
        if name.starts_with("qa_outputs.") {
            return Some(HeadTask::Question);
        }
        if name.starts_with("cls.predictions.") || name.starts_with("lm_head.") {
            return Some(HeadTask::MaskedLm);
        }
        if name.starts_with("classifier.out_proj.") && arch != Arch::Bert {
            return Some(HeadTask::Sequence);
        }
        if name == "classifier.weight" {
            found = Some(match arch {
                Arch::Bert => hint.filter(|h| *h == HeadTask::Token).unwrap_or(HeadTask::Sequence),
                Arch::Roberta | Arch::XlmRoberta => HeadTask::Token,
            });
        }
    }
    found
}

/// Every linear layer and norm of a backbone, with its path in transformers (without the prefix).
#[must_use]
pub fn backbone(layers: u16) -> Vec<(String, Part)> {
    let mut out = vec![("embeddings.LayerNorm".to_owned(), Part::Norm(NormSite::Embeddings))];
    for i in 0..layers {
        for (name, which) in LAYER {
            out.push((format!("encoder.layer.{i}.{name}"), Part::Linear(LinearSite::Layer(i, which))));
        }
        for (name, site) in [("attention.output", NormSite::AfterAttention(i)), ("output", NormSite::AfterFfn(i))] {
            out.push((format!("encoder.layer.{i}.{name}.LayerNorm"), Part::Norm(site)));
        }
    }
    out
}

/// The name under which a converted model stores a module.
#[must_use]
pub fn path(arch: Arch, head: Option<HeadTask>, part: Part) -> String {
    let bert = arch == Arch::Bert;
    match part {
        Part::Word => "embeddings.word_embeddings".into(),
        Part::Position => "embeddings.position_embeddings".into(),
        Part::TokenType => "embeddings.token_type_embeddings".into(),
        Part::Norm(NormSite::Embeddings) => "embeddings.LayerNorm".into(),
        Part::Norm(NormSite::AfterAttention(i)) => format!("encoder.layer.{i}.attention.output.LayerNorm"),
        Part::Norm(NormSite::AfterFfn(i)) => format!("encoder.layer.{i}.output.LayerNorm"),
        Part::Norm(NormSite::HeadDense(_)) => {
            if bert { "cls.predictions.transform.LayerNorm" } else { "lm_head.layer_norm" }.into()
        }
        Part::Linear(LinearSite::Layer(i, which)) => {
            let name = LAYER.iter().find(|(_, l)| *l == which).map_or("", |(name, _)| name);
            format!("encoder.layer.{i}.{name}")
        }
        Part::Linear(LinearSite::Pooler) => "pooler.dense".into(),
        Part::Linear(LinearSite::Sentence(i)) => format!("sentence.{i}"),
        Part::Linear(LinearSite::HeadDense(_)) => match (head, bert) {
            (Some(HeadTask::MaskedLm), true) => "cls.predictions.transform.dense",
            (Some(HeadTask::MaskedLm), false) => "lm_head.dense",
            _ => "classifier.dense",
        }
        .into(),
        Part::Linear(LinearSite::HeadOutput) => match (head, bert) {
            (Some(HeadTask::MaskedLm), true) => "cls.predictions.decoder",
            (Some(HeadTask::MaskedLm), false) => "lm_head.decoder",
            (Some(HeadTask::Question), _) => "qa_outputs",
            (Some(HeadTask::Sequence), false) => "classifier.out_proj",
            _ => "classifier",
        }
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_parts_are_one_to_one() {
        for arch in [Arch::Bert, Arch::Roberta] {
            for (name, part) in backbone(3) {
                assert_eq!(super::part(arch, &name), Some(part), "{name}");
                assert_eq!(path(arch, None, part), name);
            }
        }
        assert_eq!(part(Arch::Bert, "encoder.layer.01.output.dense"), None);
        assert_eq!(part(Arch::Bert, "encoder.layer.99999.output.dense"), None);
    }

    #[test]
    fn prefixes_and_old_names() {
        let norm = Part::Norm(NormSite::Embeddings);
        assert_eq!(tensor(Arch::Bert, "bert.embeddings.LayerNorm.gamma"), Some((norm, Param::Weight)));
        assert_eq!(tensor(Arch::Bert, "embeddings.LayerNorm.beta"), Some((norm, Param::Bias)));
        assert_eq!(tensor(Arch::Bert, "roberta.embeddings.LayerNorm.bias"), None);
        let output = Part::Linear(LinearSite::HeadOutput);
        assert_eq!(tensor(Arch::XlmRoberta, "lm_head.bias"), Some((output, Param::Bias)));
        assert_eq!(tensor(Arch::Bert, "embeddings.word_embeddings.bias"), None);
    }
}
