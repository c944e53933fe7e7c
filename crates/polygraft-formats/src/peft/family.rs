//! What a family of adapters is: a row of [`super::FAMILIES`], from which reading, errors, `inspect` and the
//! documents derive.

use super::reading::Reading;
use crate::error::Result;

/// A method of PEFT.
pub struct Family {
    /// `peft_type` in `adapter_config.json`.
    pub peft_type: &'static str,
    /// The family's name in reports.
    pub name: &'static str,
    /// Method and paper.
    pub paper: &'static str,
    /// Entries of the configuration that change the result and are read, besides [`READ`].
    pub reads: &'static [&'static str],
    /// Entries that do not change the result, besides [`SILENT`]: training, initialisation of what is stored anyway.
    pub silent: &'static [&'static str],
    /// Entries that would change the result and are not supported: what they ask for.
    pub refuses: &'static [(&'static str, &'static str)],
    /// What names of the base's own tensors begin with: PEFT wraps a model twice, or once for prompts.
    pub(super) root: &'static str,
    /// Parts of tensor names that stand between a module's path and the adapter's own names, such as `.lora_`.
    pub markers: &'static [&'static str],
    /// What PEFT targets when the configuration does not say: architecture, names of modules. None: as for LoRA.
    pub targets: Option<Defaults>,
    /// The patches that it becomes, for the documents.
    pub ops: &'static str,
    /// Whether it can be folded into the base's weights.
    pub merges: bool,
    /// Whether the base's own weights are part of its mathematics.
    pub base: bool,
    /// Whether the head of a model that has one travels with it.
    pub(super) heads: bool,
    /// Whether it needs a task number when it is loaded.
    pub task: bool,
    /// How its tensors are packed, other than as matrices of numbers.
    pub(crate) packing: Packing,
    /// Its reader, or why there can be none.
    pub(super) reader: Reader,
}

/// Ends of the names of tensors that a packed adapter holds in another way than their shapes suggest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    /// Places: whole numbers, whatever their type.
    pub(crate) places: &'static [&'static str],
    /// Vectors that are coded as a matrix of one row: the values of a sparse update, of a spectrum.
    pub(crate) vectors: &'static [&'static str],
    /// Numbers of which only one thing matters: whether they are above the configuration's entry, or what it is by default.
    pub(crate) mask: Option<(&'static str, &'static str, f32)>,
}

/// How a family is read.
pub(super) enum Reader {
    /// Collects its patches.
    Load(fn(&mut Reading<'_>) -> Result<()>),
    /// It cannot be.
    Refused(&'static str),
}

/// Names of modules by architecture.
pub type Defaults = &'static [(&'static str, &'static [&'static str])];

impl Family {
    /// What most families have in common: a change of weights at every target, that can be merged.
    pub(super) const fn new(peft_type: &'static str, name: &'static str, paper: &'static str) -> Self {
        Self {
            peft_type,
            name,
            paper,
            reads: &[],
            silent: &[],
            refuses: &[],
            root: super::keys::ROOT,
            markers: &[],
            targets: None,
            ops: "change of weights",
            merges: true,
            base: true,
            heads: true,
            task: false,
            packing: Packing { places: &[], vectors: &[], mask: None },
            reader: Reader::Refused("this version has no reader for it"),
        }
    }

    /// A row for a method that cannot be read, with the reason.
    pub(super) const fn refused(
        peft_type: &'static str,
        name: &'static str,
        paper: &'static str,
        why: &'static str,
    ) -> Self {
        Self { reader: Reader::Refused(why), ops: "–", merges: false, ..Self::new(peft_type, name, paper) }
    }

    /// Why it cannot be read, if it cannot.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        if let Reader::Refused(why) = self.reader { Some(why) } else { None }
    }
}

/// Entries that every family's reader takes into account.
pub const READ: &[&str] = &[
    "auto_mapping",
    "bias",
    "exclude_modules",
    "layers_pattern",
    "layers_to_transform",
    "modules_to_save",
    "target_modules",
];

/// Entries that never change the result: provenance, training, what the base's own module type decides.
pub const SILENT: &[&str] = &[
    "base_model_name_or_path",
    "fan_in_fan_out",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "runtime_config",
    "task_type",
];
