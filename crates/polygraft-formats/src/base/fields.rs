//! The entries of a `config.json`, consumed: what no reader asked for and nobody knows to be irrelevant is an error.

use super::config::{Biases, EncoderConfig};
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use polygraft::model::{Activation, Arch, Pair};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The limits of a plausible encoder.
const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 16;
const MAX_ROWS: usize = 1 << 24;

/// Entries that change nothing at inference, in any family: training, generation, provenance, how the library runs it.
const IRRELEVANT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "directionality",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_range",
    "is_composition",
    "label2id",
    "language",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "min_length",
    "model_name",
    "name",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
];

/// Entries that change the forward pass in ways that are not implemented, with what they would do.
const REFUSED: &[(&str, &str)] = &[
    ("is_decoder", "attention to the past alone"),
    ("is_encoder_decoder", "a second model"),
    ("add_cross_attention", "attention to a second model"),
    ("pruned_heads", "layers of different widths"),
    ("quantization_config", "weights in another library's codes"),
    ("adapters", "adapters inside the base"),
    ("auto_map", "code of its own"),
];

/// A special token: its id if the configuration gives it, what the tokenizer's files call it, its text, and the id
/// that it usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Special {
    /// From the configuration.
    pub(crate) known: Option<u32>,
    /// Key in the tokenizer's files.
    pub(crate) key: &'static str,
    /// Its text unless they say otherwise.
    pub(crate) text: &'static str,
    /// Its id where there is no tokenizer.
    pub(crate) default: u32,
}

impl Special {
    pub(crate) const fn of(known: Option<u32>, key: &'static str, text: &'static str, default: u32) -> Self {
        Self { known, key, text, default }
    }
}

/// What most configurations have, with their keys and transformers' defaults.
pub(crate) struct Common {
    pub(crate) hidden: (&'static str, usize),
    pub(crate) layers: (&'static str, usize),
    pub(crate) heads: (&'static str, usize),
    pub(crate) ffn: (&'static str, usize),
    pub(crate) activation: (&'static str, &'static str),
    pub(crate) vocab: usize,
    pub(crate) positions: usize,
    /// `type_vocab_size`, in families that have token types.
    pub(crate) types: Option<usize>,
    /// The key of the norms' epsilon, and its default; `None`: 1e-12, fixed.
    pub(crate) eps: Option<(&'static str, f64)>,
    pub(crate) pad: u32,
}

impl Common {
    pub(crate) const BERT: Self = Self {
        hidden: ("hidden_size", 768),
        layers: ("num_hidden_layers", 12),
        heads: ("num_attention_heads", 12),
        ffn: ("intermediate_size", 3072),
        activation: ("hidden_act", "gelu"),
        vocab: 30522,
        positions: 512,
        types: Some(2),
        eps: Some(("layer_norm_eps", 1e-12)),
        pad: 0,
    };
}

/// A `config.json` that notes what was asked for.
pub(crate) struct Fields<'a> {
    file: &'a str,
    json: &'a Json,
    text: &'a str,
    used: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(file: &'a str, json: &'a Json, text: &'a str) -> Self {
        Self { file, json, text, used: RefCell::default() }
    }

    pub(crate) fn bad(&self, key: &str, why: String) -> FormatError {
        FormatError::ModelConfig { file: self.file.into(), key: key.into(), why }
    }

    pub(crate) fn get(&self, key: &'static str) -> Option<&'a Json> {
        self.used.borrow_mut().insert(key);
        self.json.get(key)
    }

    /// A whole number from 1 to `max`.
    pub(crate) fn size(&self, key: &'static str, default: usize, max: usize) -> Result<usize> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => match v.whole() {
                Some(n) if (1..=max).contains(&n) => Ok(n),
                _ => Err(self.bad(key, format!("{} is not a whole number from 1 to {max}", v.brief()))),
            },
        }
    }

    /// A width.
    pub(crate) fn width(&self, key: &'static str, default: usize) -> Result<usize> {
        self.size(key, default, MAX_WIDTH)
    }

    /// A whole number of any size, where given; −1 and the like count as 0.
    pub(crate) fn whole(&self, key: &'static str) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Int(n)) => Ok(Some(usize::try_from(*n).unwrap_or(0))),
            Some(v) => Err(self.bad(key, format!("{} is not a whole number", v.brief()))),
        }
    }

    /// A number, where given.
    pub(crate) fn number(&self, key: &'static str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => v.number().map(Some).ok_or_else(|| self.bad(key, format!("{} is not a number", v.brief()))),
        }
    }

    /// True or false.
    pub(crate) fn flag(&self, key: &'static str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.truth().ok_or_else(|| self.bad(key, format!("{} is not true or false", v.brief()))),
        }
    }

    /// Whether the entry is there and `null`.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.json.entries().iter().any(|(k, v)| k == key && *v == Json::Null)
    }

    /// A token id, where given.
    #[allow(clippy::cast_possible_truncation, reason = "a checked range")]
    pub(crate) fn token(&self, key: &'static str) -> Result<Option<u32>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => match v.whole() {
                Some(n) if n < MAX_ROWS => Ok(Some(n as u32)),
                _ => Err(self.bad(key, format!("{} is not a token id", v.brief()))),
            },
        }
    }

    /// A pointwise function, by transformers' name.
    pub(crate) fn activation(&self, key: &'static str, default: &str) -> Result<Activation> {
        let name = match self.get(key) {
            None => default,
            Some(v) => v.text().unwrap_or(""),
        };
        Activation::from_name(name)
            .ok_or_else(|| self.bad(key, format!("{:?} is not a supported activation", shown(name))))
    }

    /// An entry whose one value is implemented.
    pub(crate) fn only(&self, key: &'static str, value: &str) -> Result<()> {
        match self.get(key) {
            Some(found) if !found.is_empty() && found.text() != Some(value) => {
                Err(self.bad(key, format!("{} changes the forward pass and is not supported", found.brief())))
            }
            _ => Ok(()),
        }
    }

    /// Entries of this family that change nothing at inference.
    pub(crate) fn irrelevant(&self, keys: &[&'static str]) {
        self.used.borrow_mut().extend(keys);
    }

    /// What `common` says, and the entries that every family has.
    #[allow(clippy::cast_possible_truncation, reason = "checked ranges; epsilon is f32 in the forward pass")]
    pub(crate) fn encoder(&self, arch: Arch, common: &Common) -> Result<EncoderConfig> {
        let hidden = self.width(common.hidden.0, common.hidden.1)?;
        let heads = self.width(common.heads.0, common.heads.1)?;
        if hidden % heads != 0 {
            let why = format!("{heads} heads do not divide {} {hidden}", common.hidden.0);
            return Err(self.bad(common.heads.0, why));
        }
        let layers = self.size(common.layers.0, common.layers.1, MAX_LAYERS)? as u16;
        let types = match (common.types, self.json.get("type_vocab_size")) {
            (None, _) => 0,
            (Some(_), Some(Json::Int(0))) => self.get("type_vocab_size").map_or(0, |_| 0),
            (Some(default), _) => self.size("type_vocab_size", default, MAX_ROWS)?,
        };
        let positions = self.size("max_position_embeddings", common.positions, MAX_ROWS)?;
        let vocab = self.size("vocab_size", common.vocab, MAX_ROWS)?;
        let pad = self.token("pad_token_id")?.unwrap_or(common.pad);
        if pad as usize >= vocab {
            return Err(self.bad("pad_token_id", format!("{pad} is outside the vocabulary of {vocab}")));
        }
        let eps = match common.eps {
            None => 1e-12,
            Some((key, default)) => {
                let eps = self.get(key).map_or(Some(default), Json::number).filter(|e| (0.0..1.0).contains(e));
                eps.ok_or_else(|| self.bad(key, "not a number from 0 to 1".into()))?
            }
        };
        let (labels, labels_named) = self.labels()?;
        let texts = |v: &Json| v.items().iter().filter_map(|t| t.text().map(str::to_owned)).collect();
        Ok(EncoderConfig {
            file: self.file.into(),
            text: self.text.into(),
            arch,
            embedding: hidden,
            hidden,
            layers,
            order: (0..layers).collect(),
            heads,
            ffn: self.width(common.ffn.0, common.ffn.1)?,
            vocab,
            positions,
            position_offset: 0,
            max_positions: positions,
            types,
            eps: eps as f32,
            norm_projected: false,
            prenorm: false,
            gated: false,
            attention_scale: 1.0 / ((hidden / heads) as f32).sqrt(),
            places: Vec::new(),
            relative: None,
            positions_norm: false,
            image: None,
            convolution: None,
            biases: Biases::ALL,
            activation: self.activation(common.activation.0, common.activation.1)?,
            head_kinds: BTreeMap::new(),
            architectures: self.get("architectures").map(texts).unwrap_or_default(),
            labels,
            labels_named,
            tied: self.get("tie_word_embeddings").and_then(Json::truth).unwrap_or(true),
            bos: self.token("bos_token_id")?,
            eos: self.token("eos_token_id")?,
            pad,
            specials: [Special::of(None, "cls_token", "[CLS]", 101), Special::of(None, "sep_token", "[SEP]", 102)],
            pair: Pair { separators: 1, types: false },
            score_activation: self.score_activation()?,
            name: self.get("_name_or_path").and_then(Json::text).filter(|t| !t.is_empty()).map(str::to_owned),
        })
    }

    /// Positions that count from `offset`, past the padding's.
    pub(crate) fn offset(&self, config: &mut EncoderConfig, offset: u32) -> Result<()> {
        let left = config.positions.checked_sub(offset as usize).filter(|n| *n > 0).ok_or_else(|| {
            let why = format!("{} rows leave no position after the offset {offset}", config.positions);
            self.bad("max_position_embeddings", why)
        })?;
        (config.position_offset, config.max_positions) = (offset, left);
        Ok(())
    }

    /// `id2label` by id; without one, `num_labels` or transformers' default of two.
    fn labels(&self) -> Result<(Vec<String>, bool)> {
        let bad = |why: String| self.bad("id2label", why);
        let count = self.get("num_labels").and_then(Json::whole).unwrap_or(2).min(MAX_WIDTH);
        let Some(map) = self.get("id2label") else {
            return Ok(((0..count).map(|i| format!("LABEL_{i}")).collect(), false));
        };
        let mut out = vec![None; map.entries().len()];
        for (id, label) in map.entries() {
            let slot = id.parse::<usize>().ok().and_then(|i| out.get_mut(i));
            let (Some(slot), Some(label)) = (slot, label.text()) else {
                return Err(bad(format!("{:?} is not a label's number, or its label is not text", shown(id))));
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
    fn score_activation(&self) -> Result<Option<Activation>> {
        let nested = self.get("sentence_transformers").and_then(|s| s.get("activation_fn"));
        let Some(value) = nested.or(self.get("sbert_ce_default_activation_function")) else { return Ok(None) };
        let name = value.text().unwrap_or("");
        super::config::torch_activation(name).map(Some).ok_or_else(|| {
            self.bad("sentence_transformers.activation_fn", format!("{:?} is not a supported activation", shown(name)))
        })
    }

    /// Whether every entry that says something has been read, or changes nothing.
    pub(crate) fn finish(&self) -> Result<()> {
        let used = self.used.borrow();
        for (key, value) in self.json.entries() {
            let name = key.as_str();
            if value.is_empty() || used.contains(name) || IRRELEVANT.contains(&name) {
                continue;
            }
            if let Some((_, what)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
                return Err(self.bad(name, format!("{} means {what}, which is not supported", value.brief())));
            }
            let why = format!(
                "this version does not know this entry, and {} may change the result; remove it if it does not",
                value.brief()
            );
            return Err(self.bad(&shown(name), why));
        }
        Ok(())
    }
}
