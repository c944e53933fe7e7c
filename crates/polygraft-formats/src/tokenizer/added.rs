//! The flags of added tokens, which the tokenizer's crate (`kitoken` 0.11) does not have: white space beside a token that
//! belongs to it, tokens that are whole words, tokens whose text is normalized. A `tokenizer.kit` keeps them in its metadata.

use super::normal;
use kitoken::{Configuration, Definition, Normalization, Regex, SpecialToken};
use polygraft::Error;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Keys in a kit's metadata; their values are the texts of tokens, as they are searched for.
const LEFT: &str = "polygraft.lstrip";
const RIGHT: &str = "polygraft.rstrip";
const WORD: &str = "polygraft.single_word";

#[derive(serde::Deserialize)]
pub(super) struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

/// Puts the flags of a `tokenizer.json` into its definition.
///
/// # Errors
/// Why they cannot be kept.
pub(super) fn keep(
    definition: &mut Definition,
    tokens: &[Added],
    normalizer: &serde_json::Value,
) -> Result<(), String> {
    let by_text: BTreeMap<&[u8], &Added> = tokens.iter().map(|t| (t.content.as_bytes(), t)).collect();
    let alone = if definition.specials.iter().all(|s| s.extract) {
        Configuration::default()
    } else {
        normal::alone(normalizer).map_err(|e| format!("its normalizer cannot be converted: {e}"))?
    };
    let mut strips = Vec::new();
    let mut seen: BTreeSet<Vec<u8>> =
        definition.specials.iter().filter(|s| s.extract).map(|s| s.bytes.clone()).collect();
    let mut specials = std::mem::take(&mut definition.specials);
    let mut failed = None;
    // Of two tokens with one normalized text the first is found, as in the library.
    specials.retain_mut(|special| {
        let flags = by_text.get(special.bytes.as_slice()).filter(|t| t.id == special.id);
        if !special.extract {
            let mut text = Cow::Owned(String::from_utf8_lossy(&special.bytes).into_owned());
            alone.normalize(&mut text, 0..usize::MAX);
            if text.is_empty() && !special.bytes.is_empty() {
                return false;
            }
            special.bytes = text.into_owned().into_bytes();
            if !seen.insert(special.bytes.clone()) {
                return false;
            }
        }
        let Some(flags) = flags else { return true };
        let text = String::from_utf8_lossy(&special.bytes).into_owned();
        let mut note = |key: &str| definition.meta.meta.push((key.into(), text.clone()));
        if flags.single_word {
            note(WORD);
        }
        if special.extract {
            if flags.lstrip {
                note(LEFT);
            }
            if flags.rstrip {
                note(RIGHT);
            }
        } else if flags.lstrip || flags.rstrip {
            // It is found in the normalized text, and so is the white space.
            match stripping(&text, flags.lstrip, flags.rstrip) {
                Ok(step) => strips.push(step),
                Err(why) => failed = Some(why),
            }
        }
        true
    });
    definition.specials = specials;
    let at = alone.normalization.len().min(definition.config.normalization.len());
    definition.config.normalization.splice(at..at, strips);
    failed.map_or(Ok(()), Err)
}

fn stripping(text: &str, left: bool, right: bool) -> Result<Normalization, String> {
    let space = |on| if on { r"\s*" } else { "" };
    let pattern = format!("{}{}{}", space(left), fancy_regex::escape(text), space(right));
    let pattern = Regex::new(&pattern).map_err(|e| e.to_string())?;
    Ok(Normalization::Replace { pattern: pattern.into(), replacement: text.replace('$', "$$") })
}

/// What happens to a text before the tokenizer's crate has it.
pub(super) struct Flags {
    /// Finds the tokens that are found in the text itself, and those in the normalized one, as the crate finds them; only
    /// where one of them has a flag.
    raw: Option<fancy_regex::Regex>,
    normalized: Option<fancy_regex::Regex>,
    left: BTreeSet<String>,
    right: BTreeSet<String>,
    word: BTreeSet<String>,
}

impl Flags {
    /// # Errors
    /// Why the tokens cannot be searched for.
    pub(super) fn of(definition: &Definition) -> Result<Self, String> {
        let noted = |key: &str| -> BTreeSet<String> {
            let entries = definition.meta.meta.iter().filter(|(k, text)| k == key && !text.is_empty());
            entries.map(|(_, text)| text.clone()).collect()
        };
        let (left, right, word) = (noted(LEFT), noted(RIGHT), noted(WORD));
        let finder = |extract: bool| {
            let of = |s: &&SpecialToken| s.extract == extract && !s.bytes.is_empty();
            let texts: Vec<&str> =
                definition.specials.iter().filter(of).filter_map(|s| std::str::from_utf8(&s.bytes).ok()).collect();
            if !texts.iter().any(|t| left.contains(*t) || right.contains(*t) || word.contains(*t)) {
                return Ok(None);
            }
            let all: Vec<_> = texts.iter().map(|t| fancy_regex::escape(t)).collect();
            fancy_regex::Regex::new(&all.join("|")).map(Some).map_err(|e| e.to_string())
        };
        let (raw, normalized) = (finder(true)?, finder(false)?);
        Ok(Self { raw, normalized, left, right, word })
    }

    /// A text without the white space that belongs to tokens in it.
    ///
    /// # Errors
    /// [`Error::Argument`] where a token that must be a word stands in one.
    pub(super) fn apply<'t>(&self, text: &'t str, config: &Configuration) -> polygraft::Result<Cow<'t, str>> {
        let out = match &self.raw {
            None => Cow::Borrowed(text),
            Some(finder) => {
                let (mut out, mut from) = (String::new(), 0);
                for found in finder.find_iter(text).filter_map(Result::ok) {
                    let (token, before) = (found.as_str(), &text[from..found.start().max(from)]);
                    self.alone(token, &text[..found.start()], &text[found.end()..])?;
                    out.push_str(if self.left.contains(token) { before.trim_end() } else { before });
                    out.push_str(token);
                    let after = &text[found.end()..];
                    let spaces = if self.right.contains(token) { after.len() - after.trim_start().len() } else { 0 };
                    from = found.end() + spaces;
                }
                if from == 0 {
                    Cow::Borrowed(text)
                } else {
                    out.push_str(&text[from..]);
                    Cow::Owned(out)
                }
            }
        };
        if let Some(finder) = &self.normalized
            && !self.word.is_empty()
        {
            let mut normal = Cow::Borrowed(out.as_ref());
            config.normalize(&mut normal, 0..usize::MAX);
            for found in finder.find_iter(&normal).filter_map(Result::ok) {
                self.alone(found.as_str(), &normal[..found.start()], &normal[found.end()..])?;
            }
        }
        Ok(out)
    }

    fn alone(&self, token: &str, before: &str, after: &str) -> polygraft::Result<()> {
        let in_word = |c: char| regex_syntax::try_is_word_character(c).unwrap_or(true);
        let beside = before.chars().next_back().is_some_and(in_word) || after.chars().next().is_some_and(in_word);
        if !beside || !self.word.contains(token) {
            return Ok(());
        }
        let why = format!(
            "it has {:?} inside of a word, a token that counts only as a word of its own (single_word), and this version cannot cut that word: put a space beside it, or save the tokenizer with single_word false",
            crate::error::shown(token)
        );
        Err(Error::Argument { what: "text".into(), why })
    }
}
