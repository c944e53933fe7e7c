//! Text to [`Compose`]: a recursive descent over a grammar of one page.
//!
//! ```text
//! whole  = "base" | item
//! item   = name [":" number] | function "(" part {"," part} ")" [":" number]
//! part   = item            in average, mix, sum the number is a weight, in split a count, or "*", in all parts or in none;
//!                          of two numbers the first is a scale
//! ```

use super::{Compose, Share, Weighted, is_name_byte};
use crate::error::{Error, Result};
use std::str::FromStr;

/// Deep nesting has no use and would cost stack.
const MAX_DEPTH: usize = 32;

impl FromStr for Compose {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut p = Parser { text, at: 0 };
        p.space();
        if p.rest().is_empty() {
            return Err(p.error("it is empty; write an adapter's name, or `base` for none"));
        }
        let whole = p.item(0)?;
        let whole = p.scaled(whole)?;
        p.space();
        if !p.rest().is_empty() {
            return Err(p.error("expected the end"));
        }
        Ok(whole)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn error(&self, why: &str) -> Error {
        let shown: String = self.text.chars().take(200).collect();
        Error::ComposeSyntax {
            text: shown,
            why: format!("at character {}: {why}", self.text[..self.at].chars().count() + 1),
        }
    }

    fn eat(&mut self, token: char) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len_utf8();
        }
        found
    }

    fn word(&mut self) -> Result<String> {
        self.space();
        let len = self.rest().bytes().take_while(|&b| is_name_byte(b)).count();
        if len == 0 {
            return Err(
                self.error("expected an adapter's name (letters, digits, `_`, `.`, `-`) or stack(…), sum(…), mix(…)")
            );
        }
        let word = self.rest()[..len].to_owned();
        self.at += len;
        Ok(word)
    }

    /// An item without a number after it.
    fn item(&mut self, depth: usize) -> Result<Compose> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested more than 32 deep"));
        }
        let start = self.at;
        let word = self.word()?;
        if !self.eat('(') {
            return match word.as_str() {
                "base" if depth == 0 => Ok(Compose::Base),
                "base" => {
                    self.at = start;
                    Err(self.error("`base` stands only for a whole composition"))
                }
                _ => Ok(Compose::Use(word)),
            };
        }
        let built = match word.as_str() {
            "stack" => Compose::Stack(self.scaled_list(depth)?),
            "fuse" => Compose::Fuse(self.scaled_list(depth)?),
            "average" => Compose::Average(self.weighted_list(depth)?),
            "mix" => Compose::Mix(self.weighted_list(depth)?),
            "sum" => Compose::Sum(self.weighted_list(depth)?),
            "split" => Compose::Split(self.split_list(depth)?),
            _ => {
                self.at = start;
                return Err(
                    self.error(&format!("there is no `{word}(…)`; there are stack, fuse, average, mix, sum, split"))
                );
            }
        };
        Ok(built)
    }

    fn list<T>(&mut self, mut part: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut out = Vec::new();
        loop {
            out.push(part(self)?);
            if self.eat(')') {
                return Ok(out);
            }
            if !self.eat(',') {
                return Err(self.error("expected `,` or `)`"));
            }
        }
    }

    fn scaled(&mut self, of: Compose) -> Result<Compose> {
        if !self.eat(':') {
            return Ok(of);
        }
        let scale = self.number()?;
        match of {
            Compose::Base => Err(self.error("`base` has nothing to scale")),
            of => Ok(Compose::Scale(Box::new(of), scale)),
        }
    }

    fn scaled_list(&mut self, depth: usize) -> Result<Vec<Compose>> {
        self.list(|p| {
            let item = p.item(depth + 1)?;
            p.scaled(item)
        })
    }

    fn weighted_list(&mut self, depth: usize) -> Result<Vec<Weighted>> {
        self.list(|p| {
            let of = p.item(depth + 1)?;
            let first = if p.eat(':') { Some(p.number()?) } else { None };
            Ok(match (first, p.eat(':')) {
                (Some(scale), true) => Weighted { of: Compose::Scale(Box::new(of), scale), weight: Some(p.number()?) },
                (weight, _) => Weighted { of, weight },
            })
        })
    }

    fn split_list(&mut self, depth: usize) -> Result<Vec<(Compose, Share)>> {
        let parts = self.list(|p| {
            let mut of = p.item(depth + 1)?;
            if !p.eat(':') {
                return Ok((of, Share::Segment));
            }
            if p.eat('*') {
                return Ok((of, Share::Rest));
            }
            let mut n = p.number()?;
            if p.eat(':') {
                of = Compose::Scale(Box::new(of), n);
                if p.eat('*') {
                    return Ok((of, Share::Rest));
                }
                n = p.number()?;
            }
            if n < 1.0 || n.fract() != 0.0 || n > 1e6 {
                return Err(p.error("a split counts whole tokens, or `*` for the rest"));
            }
            Ok((of, Share::Tokens(n as u32)))
        })?;
        let at_separator = parts.iter().filter(|(_, share)| *share == Share::Segment).count();
        if at_separator > 0 && at_separator < parts.len() {
            return Err(self.error("a split counts the tokens of each of its parts (`*` for the rest), or of none"));
        }
        Ok(parts)
    }

    fn number(&mut self) -> Result<f32> {
        self.space();
        let len =
            self.rest().bytes().take_while(|b| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')).count();
        let parsed = self.rest()[..len].parse::<f32>().ok().filter(|x| x.is_finite());
        let Some(value) = parsed else { return Err(self.error("expected a finite number after `:`")) };
        self.at += len;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_prints() {
        for text in [
            "base",
            "tr",
            "tr:0.7",
            "stack(tr, rerank)",
            "sum(a:0.5, b:-0.5)",
            "mix(stack(a, b):0.3, c)",
            "split(a:3, b:*)",
            "split(a, b)",
            "stack(a:0.5, fuse(b, c), average(d:2, e))",
            "mix(a:0.5:0.3, b:2)",
            "split(a:0.5:3, b:2:*)",
        ] {
            assert_eq!(text.parse::<Compose>().unwrap().to_string(), text);
        }
        assert_eq!(" stack( a ,b ) ".parse::<Compose>().unwrap().to_string(), "stack(a, b)");
    }

    #[test]
    fn errors_say_where() {
        for (text, part) in [
            ("", "empty"),
            ("stack(a", "character 8"),
            ("stack()", "adapter's name"),
            ("glue(a)", "no `glue(…)`"),
            ("stack(base, a)", "whole composition"),
            ("base:2", "nothing to scale"),
            ("a:x", "finite number"),
            ("a:1e99", "finite number"),
            ("a b", "expected the end"),
            ("ä", "adapter's name"),
            ("split(a:0.5, b:*)", "whole tokens"),
            ("split(a:1, b)", "or of none"),
            ("split(a, b:*)", "or of none"),
        ] {
            let error = text.parse::<Compose>().unwrap_err();
            assert_eq!(error.code(), "COMPOSE_INVALID");
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
        assert!("stack(".repeat(100_000).parse::<Compose>().is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-c(),:* .0-9stackumixplé]{0,40}") {
            if let Ok(compose) = text.parse::<Compose>() {
                prop_assert_eq!(compose.to_string().parse::<Compose>().unwrap().to_string(), compose.to_string());
            }
        }
    }
}
