//! Regular expressions of tokenizers: those whose search takes a time that grows with the text.
//!
//! What looks around, refers back or is possessive is searched by trying, and ends in a panic of the tokenizer's crate after
//! a million tries (`kitoken` 0.11, `Regex::find_iter`). Everything else runs on automata, in linear time.

/// The one look ahead that tokenizers have: the patterns of GPT-2 and of what came after leave the last of several spaces.
const SPACES: &str = r"\s+(?!\S)";

/// Every kind of character that patterns tell apart. Where each is matched at once, nothing is tried for long.
const KINDS: [&str; 9] = ["a", "é", "日", "1", " ", "\n", ".", "\u{301}", "\u{1f600}"];

/// Refuses a pattern whose search could take forever.
///
/// # Errors
/// Why.
pub(crate) fn steady(pattern: &str) -> Result<(), String> {
    let (ahead, rest): (Vec<&str>, Vec<&str>) = alternatives(pattern).into_iter().partition(|part| *part == SPACES);
    if let Some(part) = rest.iter().find(|part| !linear(part)) {
        return Err(format!(
            "its pattern \"{}\" is one that is matched by trying, which can take forever: of looks around, references and \
             possessive repetitions only {SPACES} as an alternative of its own is taken",
            crate::error::shown(part)
        ));
    }
    if ahead.is_empty() {
        return Ok(());
    }
    let whole = fancy_regex::Regex::new(&format!("^(?:{pattern})")).map_err(|e| e.to_string())?;
    match KINDS.iter().find(|kind| !whole.is_match(kind).unwrap_or(false)) {
        Some(kind) => {
            Err(format!("its pattern looks ahead and leaves {kind:?} unmatched: a long text could take forever"))
        }
        None => Ok(()),
    }
}

/// Whether automata alone match a pattern: they know no word boundaries here, and what is possessive elsewhere is not to them.
fn linear(pattern: &str) -> bool {
    let parsed = regex_syntax::parse(pattern);
    parsed.is_ok_and(|hir| !hir.properties().look_set().contains_word()) && !possessive(pattern) && !commented(pattern)
}

/// The parts between the bars that are in no group and in no class.
fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    signs(pattern, |at, sign, depth| {
        if sign == '|' && depth == 0 {
            parts.push(&pattern[from..at]);
            from = at + 1;
        }
    });
    parts.push(&pattern[from..]);
    parts
}

/// Whether a repetition has a plus behind it.
fn possessive(pattern: &str) -> bool {
    let (mut found, mut last) = (false, (usize::MAX, ' '));
    signs(pattern, |at, sign, _| {
        found |= sign == '+' && last.0.wrapping_add(1) == at && matches!(last.1, '+' | '*' | '?' | '}');
        last = (at, sign);
    });
    found
}

/// Whether the flag is set under which blanks and comments in a pattern mean nothing.
fn commented(pattern: &str) -> bool {
    let flags = |at: usize| pattern[at..].chars().take_while(|c| c.is_ascii_alphabetic() || *c == '-');
    pattern.match_indices("(?").any(|(at, open)| flags(at + open.len()).any(|c| c == 'x'))
}

/// Each sign that stands for something, in no class and not behind a backslash: where it is, and in how many groups.
fn signs(pattern: &str, mut visit: impl FnMut(usize, char, usize)) {
    let (mut groups, mut classes) = (0usize, 0usize);
    let mut each = pattern.char_indices();
    while let Some((at, sign)) = each.next() {
        match sign {
            // `\p{L}` and `\x{2581}` are one sign, whose brace is no repetition's.
            '\\' if matches!(each.next(), Some((_, 'p' | 'P' | 'x' | 'u'))) && each.as_str().starts_with('{') => {
                each.by_ref().find(|(_, sign)| *sign == '}');
            }
            '\\' => {}
            '[' => classes += 1,
            ']' => classes = classes.saturating_sub(1),
            _ if classes > 0 => {}
            '(' => groups += 1,
            ')' => groups = groups.saturating_sub(1),
            _ => visit(at, sign, groups),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_tokenizers_are_taken() {
        for pattern in [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"\w+|[^\w\s]+",
            r"(a+)+$",
            r"[|(\]]+|x",
            r"\p{N}",
            " {2,}",
            "▁+",
        ] {
            assert_eq!(steady(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_are_tried_are_refused() {
        for pattern in [
            r"(?:a|aa)+(?!a)c",
            r"(a|aa)+\1c",
            r"(?>a+)b",
            r"(?:a|aa)++c",
            r"a{1,3}+",
            r"(?<=a)b",
            r"(?:a|aa)+\bc",
            r"(?:a|aa)+\s+(?!\S)|\w+",
            r"(\s+(?!\S)|a)+c",
            r"\s+(?!\S)",
            r"\s+(?!\S)|[a-z]+",
            "(",
            "(?x) a # (\n",
        ] {
            assert!(steady(pattern).is_err(), "{pattern}");
        }
    }
}
