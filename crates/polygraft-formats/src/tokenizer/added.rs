//! The flags of added tokens, which the tokenizer's crate (`kitoken` 0.11) does not have: white space beside a token that
//! belongs to it, tokens that are whole words, tokens whose text is normalized. A `tokenizer.kit` keeps them in its metadata.

use super::normal;
use kitoken::{Configuration, Definition, Normalization, Regex, SpecialToken};
use polygraft::Error;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

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

/// Tokens as the tokenizer's crate finds them in a text.
struct Finder {
    texts: Vec<String>,
    /// Those with a flag: most texts have none of them, and then nothing is looked for.
    flagged: Vec<String>,
    /// Made when it is needed first: a start should not wait for it.
    all: OnceLock<Option<fancy_regex::Regex>>,
}

impl Finder {
    fn find<'t>(&self, text: &'t str) -> impl Iterator<Item = fancy_regex::Match<'t>> {
        let needed = self.flagged.iter().any(|token| text.contains(token.as_str()));
        let all = needed.then(|| {
            self.all.get_or_init(|| {
                let all: Vec<_> = self.texts.iter().map(|t| fancy_regex::escape(t)).collect();
                fancy_regex::Regex::new(&all.join("|")).ok()
            })
        });
        all.and_then(Option::as_ref).into_iter().flat_map(|all| all.find_iter(text)).filter_map(Result::ok)
    }
}

/// What happens to a text before the tokenizer's crate has it.
pub(super) struct Flags {
    /// The tokens that are found in the text itself, and those that are found in the normalized one.
    raw: Finder,
    normalized: Finder,
    left: BTreeSet<String>,
    right: BTreeSet<String>,
    word: BTreeSet<String>,
}

impl Flags {
    pub(super) fn of(definition: &Definition) -> Self {
        let noted = |key: &str| -> BTreeSet<String> {
            let entries = definition.meta.meta.iter().filter(|(k, text)| k == key && !text.is_empty());
            entries.map(|(_, text)| text.clone()).collect()
        };
        let (left, right, word) = (noted(LEFT), noted(RIGHT), noted(WORD));
        let finder = |extract: bool| {
            let of = |s: &&SpecialToken| s.extract == extract && !s.bytes.is_empty();
            let texts = definition.specials.iter().filter(of).filter_map(|s| String::from_utf8(s.bytes.clone()).ok());
            let texts: Vec<String> = texts.collect();
            let has = |t: &&String| left.contains(*t) || right.contains(*t) || word.contains(*t);
            let flagged = texts.iter().filter(has).cloned().collect();
            Finder { texts, flagged, all: OnceLock::new() }
        };
        let (raw, normalized) = (finder(true), finder(false));
        Self { raw, normalized, left, right, word }
    }

    /// A text without the white space that belongs to tokens in it.
    ///
    /// # Errors
    /// [`Error::Argument`] where a token that must be a word stands in one.
    pub(super) fn apply<'t>(&self, text: &'t str, config: &Configuration) -> polygraft::Result<Cow<'t, str>> {
        let (mut kept, mut from) = (String::new(), 0);
        for found in self.raw.find(text) {
            let (token, before) = (found.as_str(), &text[from..found.start().max(from)]);
            self.alone(token, &text[..found.start()], &text[found.end()..])?;
            kept.push_str(if self.left.contains(token) { before.trim_end() } else { before });
            kept.push_str(token);
            let after = &text[found.end()..];
            let spaces = if self.right.contains(token) { after.len() - after.trim_start().len() } else { 0 };
            from = found.end() + spaces;
        }
        let out = if from == 0 { Cow::Borrowed(text) } else { Cow::Owned(kept + &text[from..]) };
        if !self.word.is_empty() && !self.normalized.flagged.is_empty() {
            let mut normal = Cow::Borrowed(out.as_ref());
            config.normalize(&mut normal, 0..usize::MAX);
            for found in self.normalized.find(&normal) {
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
