//! Methods that cannot be read, each with the reason.

use super::family::Family;

/// Rows of the table.
pub(super) const ADAMSS: Family = Family::refused(
    "ADAMSS",
    "adamss",
    "AdaMSS",
    "AdaMSS draws which rows of a layer belong together when it is loaded (k-means on a randomised decomposition), and \
     its file does not hold what it drew: no other program can compute the same",
);
pub(super) const PSOFT: Family = Family::refused(
    "PSOFT",
    "psoft",
    "PSOFT",
    "PSOFT rotates within singular vectors of the base's weights that its file does not hold; their signs are LAPACK's \
     on the machine that trained it, and the result changes with them",
);
pub(super) const SHADOW: Family = Family::refused(
    "SHADOW",
    "shadow",
    "Shadow",
    "Shadow runs a second decoder beside the model, which no encoder has",
);
pub(super) const XLORA: Family = Family::refused(
    "XLORA",
    "xlora",
    "X-LoRA (Buehler and Buehler 2024, arXiv 2402.07148)",
    "X-LoRA runs the model once to choose, for each token and layer, how much of each of its LoRAs a second run takes, and \
     PEFT (0.21.2) itself loads one onto causal models alone: on an encoder it stops with unexpected keys. Load its LoRAs \
     by themselves and mix them",
);
pub(super) const CPT: Family = Family::refused(
    "CPT",
    "cpt",
    "Context-aware prompt tuning (Blau et al. 2024, arXiv 2410.17222)",
    "CPT is defined for causal language models only",
);
pub(super) const ADAPTION_PROMPT: Family = Family::refused(
    "ADAPTION_PROMPT",
    "adaption prompt",
    "LLaMA-Adapter (Zhang et al. 2023, arXiv 2303.16199)",
    "PEFT defines adaption prompts for LLaMA, Mistral and GPT-2 only: decoders",
);
