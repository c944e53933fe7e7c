//! Special token ids: from `config.json` where it has them, else from the tokenizer's own files.

use super::config::EncoderConfig;
use super::fields::Special;
use crate::error::{FormatError, Result};
use crate::json::Json;
use crate::source::{Files, SMALL, TOKENIZER};
use polygraft::model::SpecialTokens;
use polygraft::steps::NO_WORD;
use serde::Deserialize;

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

/// The ids with which rows are built.
///
/// # Errors
/// A file that cannot be read; an id outside the vocabulary.
pub fn special(files: &dyn Files, folder: &str, config: &EncoderConfig) -> Result<SpecialTokens> {
    if config.image.is_some() {
        // Images have a class token, and no other.
        return Ok(SpecialTokens { first: 0, separator: NO_WORD - 1, pad: 0 });
    }
    let lookup = Lookup { files, folder };
    let id = |special: Special| match special.known {
        Some(id) => Ok(id),
        None => Ok(lookup.id(special.key, special.text)?.unwrap_or(special.default)),
    };
    let [first, separator] = config.specials;
    let (first, separator) = (id(first)?, id(separator)?);
    // A random test model without a tokenizer may be smaller than BERT's usual ids; nobody builds rows for it.
    let fits = |id: u32| (id as usize) < config.vocab;
    if lookup.tokenizer() && !(fits(first) && fits(separator)) {
        let why =
            format!("special tokens {first} and {separator} are outside the model's vocabulary of {}", config.vocab);
        return Err(FormatError::Tokenizer { file: "tokenizer.json".into(), why });
    }
    let inside = |id| if fits(id) { id } else { 0 };
    Ok(SpecialTokens { first: inside(first), separator: inside(separator), pad: config.pad })
}

struct Lookup<'a> {
    files: &'a dyn Files,
    folder: &'a str,
}

impl Lookup<'_> {
    fn tokenizer(&self) -> bool {
        ["tokenizer.json", "vocab.txt"].iter().any(|n| self.files.has(&format!("{}{n}", self.folder)))
    }

    fn json(&self, name: &str) -> Result<Option<Json>> {
        let name = format!("{}{name}", self.folder);
        if !self.files.has(&name) {
            return Ok(None);
        }
        Json::parse(&name, &self.files.read(&name, SMALL)?).map(Some)
    }

    /// The id of the token that plays the part `key`, whose text is `default` unless a file says otherwise.
    fn id(&self, key: &str, default: &str) -> Result<Option<u32>> {
        let settings = self.json("tokenizer_config.json")?;
        let map = self.json("special_tokens_map.json")?;
        let text = [settings.as_ref(), map.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|j| j.get(key).and_then(|v| v.text().or_else(|| v.get("content").and_then(Json::text))))
            .unwrap_or(default)
            .to_owned();
        let decoder = settings.as_ref().and_then(|j| j.get("added_tokens_decoder"));
        let known = decoder.map(Json::entries).unwrap_or_default().iter().find_map(|(id, token)| {
            (token.get("content").and_then(Json::text) == Some(&text)).then(|| id.parse().ok()).flatten()
        });
        if known.is_some() {
            return Ok(known);
        }
        let name = format!("{}tokenizer.json", self.folder);
        if self.files.has(&name) {
            let bytes = self.files.read(&name, TOKENIZER)?;
            let file: TokenizerFile =
                serde_json::from_slice(&bytes).map_err(|e| crate::json::problem(&name, &bytes, &e))?;
            if let Some(token) = file.added_tokens.iter().find(|t| t.content == text) {
                return Ok(Some(token.id));
            }
        }
        let name = format!("{}vocab.txt", self.folder);
        if self.files.has(&name) {
            let bytes = self.files.read(&name, TOKENIZER)?;
            let at = bytes.split(|b| *b == b'\n').position(|l| l.trim_ascii_end() == text.as_bytes());
            return Ok(at.and_then(|i| u32::try_from(i).ok()));
        }
        Ok(None)
    }
}
