//! Compositions: which adapters a row takes, in which order, with which scale.

mod blocks;
mod grammar;
mod json;
mod resolve;
mod resolved;
mod split;
mod tree;
mod updates;

pub use resolve::{Adapters, Grafted, Placed, Resolved, Setup, Stack, resolve};
pub use split::SplitPart;

use resolve::Fusions;

use std::fmt;

/// A composition, as written. `stack` is innermost first: language, then task.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Compose {
    /// No adapter.
    #[default]
    Base,
    /// One adapter.
    Use(String),
    /// One composition with its contribution scaled: `name:0.7`.
    Scale(Box<Compose>, f32),
    /// One after the other.
    Stack(Vec<Compose>),
    /// Attention fusion over the adapters' outputs (AdapterHub).
    Fuse(Vec<Compose>),
    /// AdapterHub's `Average`.
    Average(Vec<Weighted>),
    /// The weighted sum of outputs, weights as they are.
    Mix(Vec<Weighted>),
    /// The sum of deltas.
    Sum(Vec<Weighted>),
    /// Different adapters for parts of one row.
    Split(Vec<(Compose, Share)>),
}

/// A member of a weighted composition; the weight is 1 when it is not written.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// The member.
    pub of: Compose,
    /// Its weight, when written.
    pub weight: Option<f32>,
}

/// A part of a row in a `split`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// So many tokens.
    Tokens(u32),
    /// What is left.
    Rest,
    /// Up to and including the first separator, or after it.
    Segment,
}

impl Compose {
    /// Names used, in order, repeats included.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut out = Vec::new();
        self.walk(&mut |name| out.push(name));
        out
    }

    /// The same with other names.
    #[must_use]
    pub fn renamed(&self, rename: &impl Fn(&str) -> String) -> Self {
        let all = |list: &[Self]| list.iter().map(|c| c.renamed(rename)).collect();
        let weighted =
            |list: &[Weighted]| list.iter().map(|w| Weighted { of: w.of.renamed(rename), weight: w.weight }).collect();
        match self {
            Self::Base => Self::Base,
            Self::Use(name) => Self::Use(rename(name)),
            Self::Scale(of, scale) => Self::Scale(Box::new(of.renamed(rename)), *scale),
            Self::Stack(list) => Self::Stack(all(list)),
            Self::Fuse(list) => Self::Fuse(all(list)),
            Self::Average(list) => Self::Average(weighted(list)),
            Self::Mix(list) => Self::Mix(weighted(list)),
            Self::Sum(list) => Self::Sum(weighted(list)),
            Self::Split(list) => Self::Split(list.iter().map(|(c, share)| (c.renamed(rename), *share)).collect()),
        }
    }

    fn walk<'a>(&'a self, see: &mut impl FnMut(&'a str)) {
        match self {
            Self::Base => {}
            Self::Use(name) => see(name),
            Self::Scale(of, _) => of.walk(see),
            Self::Stack(list) | Self::Fuse(list) => list.iter().for_each(|c| c.walk(see)),
            Self::Average(list) | Self::Mix(list) | Self::Sum(list) => list.iter().for_each(|w| w.of.walk(see)),
            Self::Split(list) => list.iter().for_each(|(c, _)| c.walk(see)),
        }
    }
}

impl fmt::Display for Weighted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.weight, &self.of) {
            (Some(w), of) => write!(f, "{of}:{w}"),
            // A number alone would be its weight.
            (None, of @ Compose::Scale(..)) => write!(f, "{of}:1"),
            (None, of) => of.fmt(f),
        }
    }
}

impl fmt::Display for Compose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn call<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, list: &[T]) -> fmt::Result {
            write!(f, "{name}(")?;
            for (i, item) in list.iter().enumerate() {
                write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
            }
            f.write_str(")")
        }
        match self {
            Self::Base => f.write_str("base"),
            Self::Use(name) => f.write_str(name),
            Self::Scale(of, scale) => {
                let (mut of, mut scale) = (of, *scale);
                while let Self::Scale(inner, more) = &**of {
                    (of, scale) = (inner, more * scale);
                }
                write!(f, "{of}:{scale}")
            }
            Self::Stack(list) => call(f, "stack", list),
            Self::Fuse(list) => call(f, "fuse", list),
            Self::Average(list) => call(f, "average", list),
            Self::Mix(list) => call(f, "mix", list),
            Self::Sum(list) => call(f, "sum", list),
            Self::Split(list) => {
                let parts: Vec<String> = list
                    .iter()
                    .map(|(c, share)| match share {
                        Share::Tokens(n) => format!("{c}:{n}"),
                        Share::Rest => format!("{c}:*"),
                        Share::Segment => c.to_string(),
                    })
                    .collect();
                call(f, "split", &parts)
            }
        }
    }
}

/// Checks that `name` can be an adapter's name: `[A-Za-z0-9_.-]+`, at most 200 characters, not `base`.
///
/// # Errors
/// [`crate::Error::AdapterName`].
pub fn check_name(name: &str) -> crate::Result<()> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > 200 {
        "it is longer than 200 characters"
    } else if name == "base" {
        "`base` means no adapter; choose another name"
    } else if !name.bytes().all(is_name_byte) {
        "only letters, digits, `_`, `.` and `-` can stand in a composition"
    } else {
        return Ok(());
    };
    Err(crate::Error::AdapterName { name: name.chars().take(200).collect(), why: why.into() })
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')
}
