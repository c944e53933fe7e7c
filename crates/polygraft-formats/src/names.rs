//! From names to parts and back, by the tables of [`crate::architectures`]: for base models and for adapters.

use crate::architectures::{Architecture, of};
use polygraft::ir::{LinearSite, NormSite, Site};
use polygraft::model::{Arch, HeadTask, ModelSpec};

/// A module that holds weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Word embeddings `[vocab, embedding]`.
    Word,
    /// Position embeddings `[positions, embedding]`.
    Position,
    /// Token-type embeddings `[types, embedding]`.
    TokenType,
    /// Embeddings of relative positions, a row a bucket.
    Relative,
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
        "SequenceClassification" | "ImageClassification" => HeadTask::Sequence,
        "TokenClassification" => HeadTask::Token,
        "QuestionAnswering" => HeadTask::Question,
        "MaskedLM" | "PreTraining" => HeadTask::MaskedLm,
        _ => return None,
    })
}

/// The name of transformers' class for a base with a head of `task`.
#[must_use]
pub fn architecture(arch: Arch, task: Option<HeadTask>) -> String {
    let tail = match task {
        None => "Model",
        Some(HeadTask::Sequence) if arch == Arch::Vit => "ForImageClassification",
        Some(HeadTask::Sequence) => "ForSequenceClassification",
        Some(HeadTask::Token) => "ForTokenClassification",
        Some(HeadTask::Question) => "ForQuestionAnswering",
        Some(HeadTask::MaskedLm) => "ForMaskedLM",
    };
    format!("{}{tail}", of(arch).class)
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

/// The attribute that holds the backbone inside a model with a head: keys may or may not begin with it.
#[must_use]
pub fn backbone_prefix(arch: Arch) -> &'static str {
    of(arch).prefix
}

/// The modules that PEFT updates on `arch` when its configuration names none.
#[must_use]
pub fn lora_targets(arch: Arch) -> &'static [&'static str] {
    of(arch).lora
}

/// Whether the module at `path`, written without the prefix, is in the backbone rather than in a head.
#[must_use]
pub fn in_backbone(arch: Arch, path: &str) -> bool {
    let within = |module: &str| path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'));
    of(arch).layers.first().is_some_and(|l| path.starts_with(l)) || of(arch).modules.iter().any(|(m, _)| within(m))
}

/// A layer's number and what follows it in `path`.
fn layer<'a>(arch: Arch, path: &'a str) -> Option<(u16, &'a str)> {
    let number = |rest: &'a str| {
        let (number, rest) = rest.split_once('.')?;
        // "01" would be a second name for layer 1.
        let n: u16 = number.parse().ok().filter(|n: &u16| n.to_string() == number)?;
        Some((n, rest))
    };
    match (of(arch).layers, arch) {
        ([layers], _) => number(path.strip_prefix(layers)?),
        ([groups, layers], Arch::Albert { inner }) => {
            let (group, rest) = number(path.strip_prefix(groups)?)?;
            let (layer, rest) = number(rest.strip_prefix(layers)?).filter(|(l, _)| *l < inner)?;
            Some((group.checked_mul(inner)?.checked_add(layer)?, rest))
        }
        _ => None,
    }
}

/// What stands before the modules of layer `n`.
pub(crate) fn layer_path(arch: Arch, n: u16) -> String {
    match (of(arch).layers, arch) {
        ([groups, layers], Arch::Albert { inner }) => format!("{groups}{}.{layers}{}.", n / inner, n % inner),
        (layers, _) => format!("{}{n}.", layers.first().unwrap_or(&"")),
    }
}

/// The module of the backbone or of a head at `path`, written without the backbone's prefix.
#[must_use]
pub fn part(arch: Arch, path: &str) -> Option<Part> {
    let names = of(arch);
    if let Some((n, rest)) = layer(arch, path) {
        return names.layer.iter().find(|(name, _)| *name == rest).map(|(_, part)| part(n));
    }
    let module = names.modules.iter().find(|(name, _)| *name == path).map(|(_, part)| *part);
    module.or_else(|| names.heads.iter().find(|(_, name, _)| *name == path).map(|(_, _, part)| *part))
}

/// Tensor name → module and parameter: the backbone's prefix and the oldest names of norms are understood.
#[must_use]
pub fn tensor(arch: Arch, name: &str) -> Option<(Part, Param)> {
    let name = name.strip_prefix(backbone_prefix(arch)).unwrap_or(name);
    if let Some((_, part, param)) = of(arch).tensors.iter().find(|(bare, ..)| *bare == name) {
        return Some((*part, *param));
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
    of(arch).nothing.iter().any(|n| if n.ends_with('.') { bare.starts_with(n) } else { bare == *n })
}

/// The task of the head that a set of tensor names shows: `hint` if its output layer is there, else the one that is
/// whole and has the most modules there.
#[must_use]
pub fn head_task<'a>(arch: Arch, names: impl Iterator<Item = &'a str>, hint: Option<HeadTask>) -> Option<HeadTask> {
    let names: Vec<&str> = names.collect();
    let there =
        |path: &str| names.iter().any(|n| n.strip_prefix(path).is_some_and(|last| matches!(last, ".weight" | ".bias")));
    // A language model's output layer is the word table, and need not be in the file.
    let shows = |task: HeadTask| {
        let mut modules = of(arch).heads.iter().filter(move |(t, ..)| *t == task);
        let output = Part::Linear(LinearSite::HeadOutput);
        modules.any(|(_, path, part)| (task == HeadTask::MaskedLm || *part == output) && there(path))
    };
    let count = |task| {
        let modules = || of(arch).heads.iter().filter(move |(t, ..)| *t == task);
        let tied = |part: Part| task == HeadTask::MaskedLm && part == Part::Linear(LinearSite::HeadOutput);
        let whole = modules().all(|(_, path, part)| there(path) || tied(*part));
        (whole, modules().filter(|(_, path, _)| there(path)).count())
    };
    let best = || HeadTask::ALL.into_iter().rev().filter(|task| shows(*task)).max_by_key(|task| count(*task));
    hint.filter(|task| shows(*task)).or_else(best)
}

/// Every linear layer and norm of the encoder, with its path in transformers (without the prefix).
#[must_use]
pub fn backbone(arch: Arch, layers: u16) -> Vec<(String, Part)> {
    let names = of(arch);
    let optional = |part: Part| {
        matches!(
            part,
            Part::Linear(LinearSite::Pooler) | Part::Word | Part::Position | Part::TokenType | Part::Relative
        )
    };
    let modules = names.modules.iter().filter(|(_, part)| !optional(*part));
    let mut out: Vec<(String, Part)> = modules.map(|(path, part)| ((*path).to_owned(), *part)).collect();
    for n in 0..layers {
        let path = layer_path(arch, n);
        out.extend(names.layer.iter().map(|(name, part)| (format!("{path}{name}"), part(n))));
    }
    out
}

/// [`backbone`], as far as `spec` has it.
#[must_use]
pub fn modules(spec: &ModelSpec) -> Vec<(String, Part)> {
    let mut out = backbone(spec.arch, spec.layers);
    out.retain(|(_, part)| match part {
        Part::Linear(site) => spec.linears.contains_key(site),
        Part::Norm(site) => spec.norms.contains_key(site),
        Part::Word | Part::Position | Part::TokenType | Part::Relative => true,
    });
    out
}

/// The paths of all modules that a model of `spec` may have, poolers and heads included.
pub fn paths(spec: &ModelSpec) -> impl Iterator<Item = String> {
    let names = of(spec.arch);
    let more = names.modules.iter().map(|(path, _)| *path).chain(names.heads.iter().map(|(_, path, _)| *path));
    modules(spec).into_iter().map(|(path, _)| path).chain(more.map(str::to_owned))
}

/// The name under which a converted model stores a module; a head's depends on its task.
#[must_use]
pub fn path(arch: Arch, task: Option<HeadTask>, part: Part) -> String {
    let names = of(arch);
    if let Part::Linear(LinearSite::Sentence(i)) = part {
        return format!("sentence.{i}");
    }
    if let Some(n) = part.layer() {
        let name = names.layer.iter().find(|(_, of)| of(n) == part).map_or("", |(name, _)| name);
        return format!("{}{name}", layer_path(arch, n));
    }
    let module = names.modules.iter().find(|(_, p)| *p == part).map(|(path, _)| *path);
    module.or_else(|| head_path(names, task, part)).unwrap_or("").to_owned()
}

/// The name under which a converted model stores a tensor.
#[must_use]
pub fn tensor_name(arch: Arch, task: Option<HeadTask>, part: Part, param: Param) -> String {
    let bare = of(arch).tensors.iter().find(|(_, p, q)| (*p, *q) == (part, param) && part.table().is_some());
    bare.map_or_else(|| format!("{}.{}", path(arch, task, part), param.name()), |(name, ..)| (*name).to_owned())
}

fn head_path(names: &Architecture, task: Option<HeadTask>, part: Part) -> Option<&'static str> {
    let rows = || names.heads.iter().filter(|(_, _, p)| *p == part);
    rows().find(|(t, ..)| Some(*t) == task).or_else(|| rows().next()).map(|(_, path, _)| *path)
}

impl Part {
    /// The site of an embedding table.
    #[must_use]
    pub fn table(self) -> Option<Site> {
        match self {
            Self::Word => Some(Site::Word),
            Self::Position => Some(Site::Position),
            Self::TokenType => Some(Site::TokenType),
            Self::Relative => Some(Site::Relative),
            Self::Norm(_) | Self::Linear(_) => None,
        }
    }

    /// The layer that the part is in.
    #[must_use]
    pub fn layer(self) -> Option<u16> {
        match self {
            Self::Linear(site) => Site::Linear(site).layer(),
            Self::Norm(site) => site.layer(),
            Self::Word | Self::Position | Self::TokenType | Self::Relative => None,
        }
    }

    /// Whether the part belongs to the encoder itself: heads, poolers and sentence modules come and go.
    #[must_use]
    pub fn of_backbone(self) -> bool {
        match self {
            Self::Norm(site) => !matches!(site, NormSite::HeadDense(_)),
            Self::Linear(site) => match site {
                LinearSite::Layer(..) | LinearSite::Embedding | LinearSite::Patches | LinearSite::Convolution => true,
                LinearSite::Pooler | LinearSite::HeadDense(_) | LinearSite::HeadOutput | LinearSite::Sentence(_) => {
                    false
                }
            },
            Self::Word | Self::Position | Self::TokenType | Self::Relative => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_parts_are_one_to_one() {
        let all = [Arch::Bert, Arch::Roberta, Arch::DistilBert, Arch::Electra, Arch::Albert { inner: 2 }, Arch::MpNet];
        let all = all
            .into_iter()
            .chain([true, false].map(|legacy| Arch::DebertaV2 { legacy }))
            .chain([Arch::ModernBert, Arch::Vit]);
        for arch in all {
            for (name, part) in backbone(arch, 4) {
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
