//! Text to ids: the `kitoken` crate, from its own compact form or from `tokenizer.json`.

mod added;
mod normal;

use crate::base::write::TOKENIZER as KIT;
use crate::charsmap;
use crate::error::{FormatError, Result};
use crate::patterns;
use crate::source::{self, Files};
use kitoken::{
    Definition, InsertionPosition, Kitoken, Model, Normalization, NormalizationReplacePattern, Processing, Split,
    SplitPattern, Template,
};
use polygraft::text;
use std::collections::BTreeMap;

/// Bytes of a word, at most: how a word is cut depends on all of it, so that no beginning of it could stand for the whole.
pub const LONGEST_WORD: usize = 1 << 20;

/// Characters of a word that `WordPiece` cuts, at most: bases have 100.
const LONGEST_PIECES: u32 = 256;

/// A model's tokenizer.
pub struct Tokenizer {
    inner: Kitoken,
    flags: added::Flags,
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
        let bad = |why: String| FormatError::Tokenizer { file: file.clone(), why };
        let flags = added::Flags::of(&definition);
        let inner = Kitoken::from_definition(definition).map_err(|e| bad(e.to_string()))?;
        Ok(Self { inner, flags, file })
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
        #[serde(default)]
        added_tokens: serde_json::Value,
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
    let rewritten = normal::rewritten(&outline.normalizer);
    let converted = match &rewritten {
        None => Definition::from_tokenizers_slice(bytes),
        Some(normalizer) => {
            let mut all: serde_json::Value =
                serde_json::from_slice(bytes).map_err(|e| crate::json::problem(file, bytes, &e))?;
            all["normalizer"] = normalizer.clone();
            Definition::from_tokenizers_slice(all.to_string().as_bytes())
        }
    };
    let mut out = converted.map_err(|e| bad(format!("it cannot be converted: {e}")))?;
    // Sentence-Transformers saves the padding and cutting of its last call; rows here have neither.
    out.config.processing.retain(|step| !matches!(step, Processing::Pad { .. } | Processing::Truncate { .. }));
    own_numbers(&outline.added_tokens, &out).map_err(bad)?;
    // Before `keep`, which counts the steps of the normalizer.
    normal::lower_each(&mut out.config.normalization);
    normal::leave_nothing(&mut out.config.normalization).map_err(bad)?;
    let tokens: Option<Vec<added::Added>> = serde_json::from_value(outline.added_tokens)
        .map_err(|e| bad(format!("its added_tokens cannot be read: {e}")))?;
    let normalizer = rewritten.unwrap_or(outline.normalizer);
    added::keep(&mut out, &tokens.unwrap_or_default(), &normalizer).map_err(bad)?;
    checked(file, out)
}

/// Whether added tokens have the numbers that the file gives them: the tokenizer's crate gives one whose number another
/// token has a number of its own. Its score is its place in the file.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
fn own_numbers(added: &serde_json::Value, definition: &Definition) -> std::result::Result<(), String> {
    for special in &definition.specials {
        let own = &added[special.score as usize];
        let text = own["content"].as_str().filter(|text| text.as_bytes() == special.bytes);
        let id = own["id"].as_u64().filter(|id| *id != u64::from(special.id));
        if let Some((text, id)) = text.zip(id) {
            return Err(format!(
                "its added token {:?} has the number {id}, which is another's",
                crate::error::shown(text)
            ));
        }
    }
    Ok(())
}

/// Whether a table of characters stays inside of itself, its last block made whole.
fn sound(step: &mut Normalization) -> bool {
    match step {
        Normalization::CharsMap { map } => charsmap::make_whole(map),
        Normalization::Conditional { normalization, .. } => sound(normalization),
        _ => true,
    }
}

/// The pattern that a step of the normalizer replaces.
fn replaced(step: &Normalization) -> Option<&str> {
    match step {
        Normalization::Replace { pattern: NormalizationReplacePattern::Regex(pattern), .. } => Some(pattern),
        Normalization::Conditional { normalization, .. } => replaced(normalization),
        _ => None,
    }
}

/// The pattern that a text is split by.
fn split(step: &Split) -> Option<&str> {
    match step {
        Split::Pattern { pattern: SplitPattern::Regex(pattern), .. } => Some(pattern),
        _ => None,
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
    // Kits of earlier versions are without it.
    normal::lower_each(&mut definition.config.normalization);
    if !definition.config.normalization.iter_mut().all(sound) {
        return Err(bad("its table of normalised characters leads outside of itself".into()));
    }
    definition
        .config
        .normalization
        .iter()
        .filter_map(replaced)
        .chain(definition.config.split.iter().filter_map(split))
        .try_for_each(patterns::steady)
        .map_err(bad)?;
    if let Model::WordPiece { max_word_chars, .. } = definition.model
        && !(1..=LONGEST_PIECES).contains(&max_word_chars)
    {
        let why = format!(
            "max_input_chars_per_word is {max_word_chars}, and words are cut in a time that grows with its square: at most {LONGEST_PIECES} is taken"
        );
        return Err(bad(why));
    }
    let continues = definition.config.templates.iter().find(|t| t.position == InsertionPosition::WordContinuation);
    if let (Model::WordPiece { vocab, .. }, Some(Template { content, .. })) = (&definition.model, continues)
        && vocab.iter().all(|piece| piece.bytes.starts_with(content.as_bytes()))
    {
        let why = format!(
            "no piece begins a word: all begin with {:?}, its continuing_subword_prefix",
            crate::error::shown(content)
        );
        return Err(bad(why));
    }
    if definition.model.vocab().is_empty() {
        return Err(bad("it has no tokens".into()));
    }
    one_number_each(&definition).map_err(bad)?;
    Ok(definition)
}

/// Whether no two tokens have one number. Special tokens may stand in the vocabulary too.
fn one_number_each(definition: &Definition) -> std::result::Result<(), String> {
    let (vocab, specials) = (definition.model.vocab(), &definition.specials);
    let tokens = vocab.iter().map(|t| (t.id, t.bytes.as_slice()));
    let tokens = tokens.chain(specials.iter().map(|s| (s.id, s.bytes.as_slice())));
    // Numbers are nearly without gaps; a quarter of a million of them are not sorted at each start.
    let mut near: Vec<Option<&[u8]>> = vec![None; 2 * (vocab.len() + specials.len())];
    let mut far = BTreeMap::new();
    for (id, bytes) in tokens {
        let earlier = match near.get_mut(id as usize) {
            Some(place) => place.replace(bytes),
            None => far.insert(id, bytes),
        };
        if let Some(other) = earlier.filter(|earlier| *earlier != bytes) {
            let [one, two] = [other, bytes].map(|t| crate::error::shown(&String::from_utf8_lossy(t)));
            return Err(format!("{one:?} and {two:?} have one number, {id}"));
        }
    }
    Ok(())
}

/// Whether a word is longer than is taken: from the end of as many bytes back to the last space, and on from there.
fn has_longer_word(text: &str) -> bool {
    let mut rest = text;
    while rest.len() > LONGEST_WORD {
        let end = (LONGEST_WORD + 1..rest.len()).find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        match rest[..end].char_indices().rfind(|(_, c)| c.is_whitespace()) {
            Some((at, space)) => rest = &rest[at + space.len_utf8()..],
            None => return true,
        }
    }
    false
}

impl text::Tokenizer for Tokenizer {
    fn encode(&self, text: &str) -> polygraft::Result<Vec<u32>> {
        if has_longer_word(text) {
            let why = format!(
                "a text has a word of more than {LONGEST_WORD} bytes, which may change as a whole with its last letter: cut it, or put spaces in it"
            );
            return Err(polygraft::Error::Argument { what: "text".into(), why });
        }
        let text = self.flags.apply(text, self.inner.config())?;
        self.inner
            .encode(text, true)
            .map_err(|e| polygraft::Error::Argument { what: self.file.clone(), why: e.to_string() })
    }
}
