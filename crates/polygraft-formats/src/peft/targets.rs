//! Which modules a PEFT configuration means: `peft.tuners.tuners_utils.check_target_module_exists`.

use super::config::bad;
use crate::error::{Result, shown};
use fancy_regex::{Regex, RegexBuilder};

/// Most patterns of one entry; PEFT itself writes one a module.
const MOST: usize = 1024;
/// Most bytes that a pattern may be compiled to, and all of an entry together.
const LARGEST: usize = 256 << 10;
const LARGEST_TOGETHER: usize = 16 << 20;

/// How much of a module's path a pattern has to match.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// `re.fullmatch(pattern, path)`.
    Whole,
    /// `re.match(r"(.*\.)?(pattern)$", path)`.
    End,
    /// `re.match(pattern, path)`.
    Start,
}

/// A Python regular expression, applied from the start of a module's path.
#[derive(Debug)]
pub(crate) struct Pattern {
    key: String,
    regex: Regex,
}

impl Pattern {
    /// `pattern`, one of `count` of the entry `key`.
    pub(crate) fn new(key: &str, pattern: &str, form: Form, count: usize) -> Result<Self> {
        if count > MOST {
            return Err(bad(key, format!("it has {count} patterns; at most {MOST} are read")));
        }
        let python = literal(pattern);
        // The caret inside a key anchors at the path's start, so the wrapped forms keep it meaningful.
        let wrapped = match form {
            Form::Whole => format!("^(?:{python})$"),
            Form::End => format!(r"^(?:.*\.)?(?:{python})$"),
            Form::Start => format!("^(?:{python})"),
        };
        let mut builder = RegexBuilder::new(&wrapped);
        builder.delegate_size_limit(LARGEST.min(LARGEST_TOGETHER / count.max(1)));
        let why = |e| format!("\"{}\" is not a regular expression that can be used: {e}", shown(pattern));
        let regex = builder.build().map_err(|e| bad(key, why(e)))?;
        Ok(Self { key: key.to_owned(), regex })
    }

    fn run<T>(&self, found: std::result::Result<T, fancy_regex::Error>) -> Result<T> {
        // Catastrophic patterns end here, not in a frozen page.
        found.map_err(|e| bad(&self.key, format!("the pattern cannot be matched: {e}")))
    }

    /// Whether it matches, in its form.
    pub(crate) fn matches(&self, path: &str) -> Result<bool> {
        self.run(self.regex.is_match(path))
    }

    /// The number in the first group of `re.match(pattern, path)`.
    fn number(&self, path: &str) -> Result<Option<usize>> {
        let captures = self.run(self.regex.captures(path))?;
        Ok(captures.and_then(|c| c.get(1)).and_then(|m| m.as_str().parse().ok()))
    }
}

/// `pattern` with `\<` and `\>` as Python reads them, the signs themselves; elsewhere they are the ends of words.
fn literal(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut signs = pattern.chars();
    while let Some(sign) = signs.next() {
        match (sign, signs.clone().next()) {
            ('\\', Some(next)) => {
                signs.next();
                out.extend((!matches!(next, '<' | '>')).then_some(sign));
                out.push(next);
            }
            _ => out.push(sign),
        }
    }
    out
}

/// A set of modules: of every linear layer, by pattern, or by the end of a path.
#[derive(Debug)]
pub(crate) enum Matcher {
    AllLinear,
    Regex(Box<Pattern>),
    Names(Vec<String>),
}

/// Which modules get an update.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) include: Option<Matcher>,
    pub(crate) exclude: Option<Matcher>,
    pub(crate) layers: Option<Vec<usize>>,
    pub(crate) layer_patterns: Vec<Pattern>,
}

fn ends(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Targets {
    /// Whether the linear layer at `path` in the wrapped model gets an update.
    pub(crate) fn contains(&self, path: &str) -> Result<bool> {
        let out = match &self.exclude {
            None | Some(Matcher::AllLinear) => false,
            Some(Matcher::Regex(p)) => p.matches(path)?,
            Some(Matcher::Names(names)) => names.iter().any(|n| ends(path, n)),
        };
        if out {
            return Ok(false);
        }
        match &self.include {
            None => Ok(false),
            Some(Matcher::AllLinear) => Ok(true),
            Some(Matcher::Regex(p)) => p.matches(path),
            // An entry that is the whole path bypasses the choice of layers.
            Some(Matcher::Names(names)) if names.iter().any(|n| n == path) => Ok(true),
            Some(Matcher::Names(names)) => Ok(names.iter().any(|n| ends(path, n)) && self.layer(path)?),
        }
    }

    fn layer(&self, path: &str) -> Result<bool> {
        let Some(layers) = &self.layers else { return Ok(true) };
        let number = if self.layer_patterns.is_empty() {
            // The first number in the path: `.*?\.[^.]*\.(\d+)\.`
            let words: Vec<&str> = path.split('.').collect();
            let inside = words.len().saturating_sub(1);
            words.iter().take(inside).skip(2).find_map(|w| w.parse().ok())
        } else {
            let mut found = None;
            for pattern in &self.layer_patterns {
                found = pattern.number(path)?;
                if found.is_some() {
                    break;
                }
            }
            found
        };
        Ok(number.is_some_and(|n: usize| layers.contains(&n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(include: Matcher) -> Targets {
        Targets { include: Some(include), exclude: None, layers: None, layer_patterns: Vec::new() }
    }

    #[test]
    fn names_end_at_a_dot() {
        let t = targets(Matcher::Names(vec!["dense".into(), "attention.self.query".into()]));
        for (path, yes) in [
            ("encoder.layer.0.output.dense", true),
            ("encoder.layer.0.attention.self.query", true),
            ("encoder.layer.0.attention.self.key", false),
            ("predense", false),
            ("dense", true),
        ] {
            assert_eq!(t.contains(path).unwrap(), yes, "{path}");
        }
    }

    #[test]
    fn patterns_mean_what_python_reads() {
        for (pattern, path, yes) in [
            (r".*\bquery\b.*", "layer.0.query.x", true),
            (r".*\bquery\b", "layer.0.prequery", false),
            (r".*\Blin", "éa.prélin", true),
            (r"a\<b\>", "a<b>", true),
            (r"a\\<b", r"a\<b", true),
            (r"a\<b", "a.b", false),
        ] {
            let t = targets(Matcher::Regex(Box::new(Pattern::new("target_modules", pattern, Form::Whole, 1).unwrap())));
            assert_eq!(t.contains(path).unwrap(), yes, "{pattern} {path}");
        }
        assert!(Pattern::new("target_modules", r"a\", Form::Whole, 1).is_err());
    }

    #[test]
    fn a_text_matches_the_whole_path() {
        let t = targets(Matcher::Regex(Box::new(
            Pattern::new("target_modules", r".*\.layer\.[01]\..*(query|value)", Form::Whole, 1).unwrap(),
        )));
        assert!(t.contains("bert.encoder.layer.1.attention.self.value").unwrap());
        assert!(!t.contains("bert.encoder.layer.2.attention.self.value").unwrap());
        assert!(!t.contains("bert.encoder.layer.1.attention.self.value.x").unwrap());
    }

    #[test]
    fn layers_are_chosen_for_suffixes_only() {
        let mut t = targets(Matcher::Names(vec!["query".into(), "encoder.layer.2.attention.self.key".into()]));
        t.layers = Some(vec![1]);
        assert!(t.contains("bert.encoder.layer.1.attention.self.query").unwrap());
        assert!(!t.contains("bert.encoder.layer.2.attention.self.query").unwrap());
        assert!(t.contains("encoder.layer.2.attention.self.key").unwrap());
        t.layer_patterns = vec![Pattern::new("layers_pattern", r"(?:^|.*?\.)layer\.(\d+)\.", Form::Start, 1).unwrap()];
        assert!(t.contains("encoder.layer.1.attention.self.query").unwrap());
    }

    #[test]
    fn patterns_end_the_path() {
        let p = Pattern::new("rank_pattern", "layer.0.*query", Form::End, 1).unwrap();
        assert!(p.matches("bert.encoder.layer.0.attention.self.query").unwrap());
        assert!(!p.matches("bert.encoder.layer.0.attention.self.query.more").unwrap());
        assert!(Pattern::new("rank_pattern", "(", Form::End, 1).is_err());
    }

    /// What a page can afford: a few kilobytes of text must not become gigabytes.
    #[test]
    fn patterns_are_small() {
        let large = Pattern::new("alpha_pattern", r"x0\w{100}", Form::End, 1).unwrap_err().to_string();
        assert!(large.contains("alpha_pattern") && large.contains(r"x0\\w{100}"), "{large}");
        let many = Pattern::new("rank_pattern", "query", Form::End, 1025).unwrap_err().to_string();
        assert!(many.contains("rank_pattern") && many.contains("1024"), "{many}");
        // What people write, and a path for every module of a large model.
        for (pattern, count) in [
            (r".*\.layer\.\d+\.attention\.self\.(query|key|value)", 1),
            (r"^(?!.*pooler).*\w+\.dense$", 1),
            ("bert.encoder.layer.23.attention.self.query", 1024),
        ] {
            assert!(Pattern::new("rank_pattern", pattern, Form::End, count).is_ok(), "{pattern}");
        }
    }
}
