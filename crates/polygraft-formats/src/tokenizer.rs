//! Text to ids: the `kitoken` crate, from its own compact form or from `tokenizer.json`.

use crate::base::write::TOKENIZER as KIT;
use crate::charsmap;
use crate::error::{FormatError, Result};
use crate::source::{self, Files};
use kitoken::{Definition, Kitoken, Normalization, Processing};
use polygraft::text;

/// A model's tokenizer.
pub struct Tokenizer {
    inner: Kitoken,
    file: String,
}

impl Tokenizer {
    /// Loads `tokenizer.kit`, or converts `tokenizer.json`; `vocab` is the model's number of word embeddings.
    ///
    /// # Errors
    /// [`FormatError::FileMissing`]; [`FormatError::Tokenizer`] for a file that cannot be read, or with ids beyond the vocabulary.
    pub fn load(files: &dyn Files, vocab: usize) -> Result<Self> {
        let file = file(files)?;
        let bytes = files.read(&file, source::TOKENIZER)?;
        let definition = definition(&file, &bytes)?;
        let highest =
            definition.model.vocab().iter().map(|t| t.id).chain(definition.specials.iter().map(|s| s.id)).max();
        if let Some(id) = highest.filter(|id| *id as usize >= vocab) {
            let why =
                format!("it has a token {id}, the model only {vocab} word embeddings: it belongs to another model");
            return Err(FormatError::Tokenizer { file, why });
        }
        let inner = Kitoken::from_definition(definition)
            .map_err(|e| FormatError::Tokenizer { file: file.clone(), why: e.to_string() })?;
        Ok(Self { inner, file })
    }
}

/// The compact form of a folder's tokenizer, for a converted model; `None` when the folder has no tokenizer.
///
/// # Errors
/// As [`Tokenizer::load`].
pub fn compact(files: &dyn Files) -> Result<Option<Vec<u8>>> {
    let Ok(file) = file(files) else { return Ok(None) };
    let bytes = files.read(&file, source::TOKENIZER)?;
    Ok(Some(definition(&file, &bytes)?.to_vec()))
}

fn file(files: &dyn Files) -> Result<String> {
    let names = files.names();
    for wanted in [KIT, "tokenizer.json"] {
        // Older Sentence-Transformers folders keep it beside the transformer.
        let found = [wanted.to_owned(), format!("0_Transformer/{wanted}")].into_iter().find(|n| names.contains(n));
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let hint = if names.iter().any(|n| n.ends_with("vocab.txt") || n.ends_with("sentencepiece.bpe.model")) {
        "save the tokenizer with transformers' fast tokenizer (AutoTokenizer.from_pretrained(…).save_pretrained(…)), which writes it".into()
    } else {
        format!("text needs {KIT} or tokenizer.json beside the model")
    };
    Err(FormatError::FileMissing { file: "tokenizer.json".into(), hint })
}

fn definition(file: &str, bytes: &[u8]) -> Result<Definition> {
    let bad = |why: String| FormatError::Tokenizer { file: file.into(), why };
    if file.ends_with(KIT) {
        let out = Definition::from_slice(bytes).map_err(|e| bad(format!("not a {KIT} of this version: {e}")))?;
        return checked(file, out);
    }
    #[derive(serde::Deserialize)]
    struct Outline {
        model: Kind,
        #[serde(default)]
        normalizer: serde_json::Value,
    }
    #[derive(serde::Deserialize)]
    struct Kind {
        r#type: Option<String>,
    }
    crate::json::unique(file, bytes)?;
    let outline: Outline = serde_json::from_slice(bytes).map_err(|e| crate::json::problem(file, bytes, &e))?;
    match outline.model.r#type.as_deref() {
        None | Some("Unigram" | "WordPiece" | "BPE") => {}
        Some(other) => return Err(bad(format!("a {:?} model is not supported", crate::error::shown(other)))),
    }
    if !tables_open(&outline.normalizer) {
        return Err(bad("its precompiled_charsmap is no table".into()));
    }
    let mut out = Definition::from_tokenizers_slice(bytes).map_err(|e| bad(format!("it cannot be converted: {e}")))?;
    // Sentence-Transformers saves the padding and cutting of its last call; rows here have neither.
    out.config.processing.retain(|step| !matches!(step, Processing::Pad { .. } | Processing::Truncate { .. }));
    checked(file, out)
}

/// Whether a table of characters stays inside of itself, its last block made whole.
fn sound(step: &mut Normalization) -> bool {
    match step {
        Normalization::CharsMap { map } => match charsmap::whole(map) {
            Some(whole) => {
                *map = whole;
                true
            }
            None => false,
        },
        Normalization::Conditional { normalization, .. } => sound(normalization),
        _ => true,
    }
}

/// Compiled tables among the parts of a normalizer, all of which the tokenizer's crate can open.
fn tables_open(normalizer: &serde_json::Value) -> bool {
    let table = normalizer.get("precompiled_charsmap").and_then(serde_json::Value::as_str);
    let parts = normalizer.get("normalizers").and_then(serde_json::Value::as_array);
    table.is_none_or(charsmap::has_an_array) && parts.into_iter().flatten().all(tables_open)
}

/// Refuses what the tokenizer would follow blindly.
fn checked(file: &str, mut definition: Definition) -> Result<Definition> {
    let bad = |why: String| FormatError::Tokenizer { file: file.into(), why };
    if !definition.config.normalization.iter_mut().all(sound) {
        return Err(bad("its table of normalised characters leads outside of itself".into()));
    }
    let mut tokens: Vec<(u32, &[u8])> = definition.model.vocab().iter().map(|t| (t.id, t.bytes.as_slice())).collect();
    if tokens.is_empty() {
        return Err(bad("it has no tokens".into()));
    }
    // Special tokens may stand in the vocabulary too.
    tokens.extend(definition.specials.iter().map(|s| (s.id, s.bytes.as_slice())));
    tokens.sort_unstable();
    if let Some(twice) = tokens.windows(2).find(|w| w[0].0 == w[1].0 && w[0].1 != w[1].1) {
        return Err(bad(format!("two of its tokens have the number {}", twice[0].0)));
    }
    Ok(definition)
}

impl text::Tokenizer for Tokenizer {
    fn encode(&self, text: &str) -> polygraft::Result<Vec<u32>> {
        self.inner
            .encode(text, true)
            .map_err(|e| polygraft::Error::Argument { what: self.file.clone(), why: e.to_string() })
    }
}
