//! JSON from strangers: depth-limited, duplicate keys refused, order of keys kept, numbers kept as they are.
//!
//! `serde_json::Value` keeps the last of two equal keys and forgets their order; PEFT's patterns are tried in the
//! order of the file.

use crate::error::{FormatError, Result, shown};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object, in the order of the file, keys unique.
    Object(Vec<(String, Json)>),
}

/// Marks a duplicate key in serde's message, so that it comes out as its own error.
const DUPLICATE: &str = "duplicate key ";

impl Json {
    /// Parses `bytes`.
    ///
    /// # Errors
    /// [`FormatError::Json`] with the place, [`FormatError::Duplicate`] with the key.
    pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        let out = serde_json::from_slice(bytes).map_err(|e| problem(file, bytes, &e))?;
        in_range(file, bytes).map(|()| out)
    }

    /// The entry `key` of an object; `null` counts as absent.
    #[must_use]
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(k, _)| k == key).map(|(_, v)| v).filter(|v| **v != Self::Null)
    }

    /// The entries of an object, none for anything else.
    #[must_use]
    pub(crate) fn entries(&self) -> &[(String, Self)] {
        if let Self::Object(entries) = self { entries } else { &[] }
    }

    /// The items of a list, none for anything else.
    #[must_use]
    pub(crate) fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// Text.
    #[must_use]
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// A whole number of zero or more.
    #[must_use]
    pub(crate) fn whole(&self) -> Option<usize> {
        if let Self::Int(n) = self { usize::try_from(*n).ok() } else { None }
    }

    /// A number.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "scales and epsilons; 2⁵³ is far")]
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// A truth value.
    #[must_use]
    pub(crate) fn truth(&self) -> Option<bool> {
        if let Self::Bool(b) = self { Some(*b) } else { None }
    }

    /// Whether it says nothing: null, false, an empty text, list or object.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Null | Self::Bool(false) => true,
            Self::Bool(true) | Self::Int(_) | Self::Float(_) => false,
            Self::Text(t) => t.is_empty(),
            Self::List(l) => l.is_empty(),
            Self::Object(o) => o.is_empty(),
        }
    }

    /// The value in a few words, for an error.
    #[must_use]
    pub(crate) fn brief(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(b) => b.to_string(),
            Self::Int(n) => n.to_string(),
            Self::Float(x) => x.to_string(),
            Self::Text(t) => format!("\"{}\"", shown(t)),
            Self::List(l) => format!("a list of {}", l.len()),
            Self::Object(o) => format!("an object of {} keys", o.len()),
        }
    }
}

pub(crate) fn problem(file: &str, bytes: &[u8], e: &serde_json::Error) -> FormatError {
    let text = e.to_string();
    if let Some(rest) = text.strip_prefix(DUPLICATE) {
        let name = rest.rsplit_once(" at line ").map_or(rest, |(name, _)| name);
        return FormatError::Duplicate { file: file.into(), name: name.into() };
    }
    let html = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'<');
    let why =
        if html { "this is a web page, not JSON: check the address".into() } else { format!("not valid JSON: {text}") };
    FormatError::Json { file: file.into(), why }
}

pub(crate) fn duplicate<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("{DUPLICATE}{}", shown(key)))
}

/// Whether any object of a text has a key twice, without keeping what is in it: for files that another parser reads.
///
/// # Errors
/// As [`Json::parse`].
pub(crate) fn unique(file: &str, bytes: &[u8]) -> Result<()> {
    serde_json::from_slice::<Unique>(bytes).map_err(|e| problem(file, bytes, &e))?;
    in_range(file, bytes)
}

/// What transformers writes for "no limit", 10³⁰ as a float has it.
const NO_LIMIT: &[u8] = b"1000000000000000019884624838656";

/// Whether every whole number of a text is one of 64 bits: `serde_json` makes others into floats without a word.
fn in_range(file: &str, bytes: &[u8]) -> Result<()> {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        if byte == b'"' {
            let mut escaped = false;
            let end = rest[1..].iter().position(|b| {
                let ends = *b == b'"' && !escaped;
                escaped = *b == b'\\' && !escaped;
                ends
            });
            at += end.map_or(rest.len(), |end| end + 2);
            continue;
        }
        if !byte.is_ascii_digit() {
            at += 1;
            continue;
        }
        let number = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
        let end = rest.iter().position(|b| !number(b)).unwrap_or(rest.len());
        let digits = &rest[..end];
        let whole = digits.iter().all(u8::is_ascii_digit) && digits != NO_LIMIT;
        if whole && std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u64>().ok()).is_none() {
            return Err(FormatError::Json {
                file: file.into(),
                why: format!("the number at byte {at} is out of range"),
            });
        }
        at += end;
    }
    Ok(())
}

/// Any value, whose objects have every key once.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if let Some(twin) = seen.replace(key) {
                return Err(duplicate(&twin));
            }
        }
        Ok(self)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Json, E> {
        Ok(Json::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Json, E> {
        Ok(Json::Int(n))
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Json, E> {
        i64::try_from(n).map(Json::Int).map_err(|_| E::custom(format_args!("the number {n} is out of range")))
    }

    fn visit_f64<E: serde::de::Error>(self, x: f64) -> Result<Json, E> {
        // Not refused when huge: transformers writes `model_max_length` as 10³⁰.
        if x.is_finite() { Ok(Json::Float(x)) } else { Err(E::custom("a number is out of range")) }
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = list.next_element()? {
            out.push(item);
        }
        Ok(Json::List(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut seen = std::collections::HashSet::new();
        let mut out = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(duplicate(&key));
            }
            out.push((key, map.next_value()?));
        }
        Ok(Json::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_refuses_doubles() {
        let j = Json::parse("f", br#"{"b": 1, "a": {"x": [1.5, null, "t"]}}"#).unwrap();
        assert_eq!(j.entries().iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        let e = Json::parse("f", br#"{"a": {"k": 1, "k": 1}}"#).unwrap_err();
        assert_eq!(e, FormatError::Duplicate { file: "f".into(), name: "k".into() });
    }

    #[test]
    fn bad_text_is_an_error_with_a_place() {
        for (bytes, part) in [
            (&b"{\"a\": 1e400}"[..], "out of range"),
            (b"{\"a\": 18446744073709551615}", "out of range"),
            (b"{\"a\": [1.5, -18446744073709551616]}", "at byte 13 is out of range"),
            (b"{\"\\\"9\\\\\": 99999999999999999999}", "at byte 10 is out of range"),
            (b"\xef\xbb\xbf{}", "column 1"),
            (b"<!doctype html>", "web page"),
            (b"{\"a\": 1} x", "trailing"),
            (b"{\"a\": NaN}", "column"),
        ] {
            let e = Json::parse("f.json", bytes).unwrap_err();
            assert_eq!(e.code(), "FORMAT_JSON");
            assert!(e.to_string().contains(part), "{e}");
        }
        // Floats, texts, and what transformers writes for no limit.
        for fine in [
            "3.4028234663852886e38",
            "0.12345678901234567890123",
            "\"18446744073709551616\\\"\"",
            "1000000000000000019884624838656",
            "-9223372036854775808",
        ] {
            assert!(Json::parse("f", format!("[{fine}]").as_bytes()).is_ok(), "{fine}");
        }
        let deep = "[".repeat(100_000);
        assert!(Json::parse("f", deep.as_bytes()).unwrap_err().to_string().contains("recursion limit"));
    }
}
