//! The one error type of this crate: which file, what was expected, what was found, what to do.

/// Why a file or folder could not be read, or written.
///
/// [`FormatError::code`] is stable API, the same strings in Rust, on the command line and in JavaScript. No message
/// holds the contents of a file; names taken from one are cut to 200 characters and escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A file that is needed is not there.
    #[error("{file} is missing: {hint}")]
    FileMissing {
        /// Its name.
        file: String,
        /// Why it is needed, or which would do instead.
        hint: String,
    },
    /// The caller's storage failed.
    #[error("{file} cannot be read: {why}")]
    Io {
        /// Its name.
        file: String,
        /// What the storage said.
        why: String,
    },
    /// Something that is recognised, and that this version does not load.
    #[error("{file}: {why}")]
    Unsupported {
        /// File or folder.
        file: String,
        /// What it is, and what to do.
        why: String,
    },
    /// Neither a base model nor an adapter.
    #[error("{why}")]
    NotAModel {
        /// What was found.
        why: String,
    },
    /// Bytes that do not start as their format does.
    #[error("{file}: {why}")]
    Header {
        /// File.
        file: String,
        /// Which rule is broken.
        why: String,
    },
    /// A name that occurs twice.
    #[error("{file}: {name:?} occurs twice")]
    Duplicate {
        /// File.
        file: String,
        /// The name.
        name: String,
    },
    /// Byte ranges that overlap, leave holes or leave the file.
    #[error("{file}: {why}")]
    Range {
        /// File.
        file: String,
        /// Which tensor, which range.
        why: String,
    },
    /// A number beyond what this reader accepts.
    #[error("{file}: {why}")]
    Limit {
        /// File.
        file: String,
        /// The number and the limit.
        why: String,
    },
    /// A zip archive that is not read as torch wrote it.
    #[error("{file}: not a zip archive as torch writes it: {why}")]
    Zip {
        /// File.
        file: String,
        /// Which rule is broken, by which member.
        why: String,
    },
    /// A pickle that names something which does not build tensors.
    #[error(
        "{file}: the pickle names {name} at byte {offset}, which is not on the list of what builds tensors: nothing was run; if you trust the file, save it in Python as safetensors"
    )]
    PickleGlobal {
        /// File.
        file: String,
        /// Module and name.
        name: String,
        /// Where in the pickle.
        offset: usize,
    },
    /// A pickle that cannot be followed, or that does something else than build tensors.
    #[error("{file}: the pickle's {op} at byte {offset}: {why}")]
    PickleOp {
        /// File.
        file: String,
        /// The opcode's name.
        op: String,
        /// Where in the pickle.
        offset: usize,
        /// What is wrong.
        why: String,
    },
    /// Text that is not the JSON that was expected.
    #[error("{file}: {why}")]
    Json {
        /// File.
        file: String,
        /// Where and what.
        why: String,
    },
    /// An entry of a base model's configuration.
    #[error("{file}: {key}: {why}")]
    ModelConfig {
        /// File.
        file: String,
        /// The key.
        key: String,
        /// What is wrong and what would do.
        why: String,
    },
    /// Tensors of a base model that are missing, or that nothing would use.
    #[error("{file}: {}", keys(.missing, .extra))]
    ModelKeys {
        /// File.
        file: String,
        /// Needed and absent.
        missing: Vec<String>,
        /// Present and unknown.
        extra: Vec<String>,
    },
    /// A tensor of a base model that does not have its configuration's shape.
    #[error("{file}: tensor {tensor:?}: expected {expected}, found {found}")]
    ModelShape {
        /// File.
        file: String,
        /// Its name.
        tensor: String,
        /// Shape by the configuration.
        expected: String,
        /// Shape in the file.
        found: String,
    },
    /// An entry of an adapter's configuration.
    #[error("{file}: {key}: {why}")]
    AdapterConfig {
        /// File.
        file: String,
        /// The key.
        key: String,
        /// What is wrong and what would do.
        why: String,
    },
    /// Tensors of an adapter that its configuration promises and the file lacks, or that nothing would use.
    #[error("{file}: {}; nothing was loaded (strict: false loads what fits and reports the rest)", keys(.missing, .extra))]
    AdapterKeys {
        /// File.
        file: String,
        /// Promised and absent.
        missing: Vec<String>,
        /// Present and unused.
        extra: Vec<String>,
    },
    /// A tensor of an adapter that does not fit.
    #[error("{file}: tensor {tensor:?}: expected {expected}, found {found}")]
    AdapterShape {
        /// File.
        file: String,
        /// Its name.
        tensor: String,
        /// What the base and the configuration need.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// NaN or infinity among the weights.
    #[error("{file}: tensor {tensor:?} is not finite at element {index}: the file is damaged, or training diverged")]
    NotFinite {
        /// File.
        file: String,
        /// Its name.
        tensor: String,
        /// Flat index of the first bad element.
        index: usize,
    },
    /// A tokenizer that this crate does not build or that the model cannot use.
    #[error("{file}: {why}")]
    Tokenizer {
        /// File.
        file: String,
        /// Which component.
        why: String,
    },
    /// Bytes that are not the ones that were promised.
    #[error("{file}: {why}")]
    Integrity {
        /// File.
        file: String,
        /// What differs.
        why: String,
    },
    /// A call out of its order, or an argument out of its range.
    #[error("{what}: {why}")]
    Argument {
        /// Which.
        what: String,
        /// What would do.
        why: String,
    },
}

impl FormatError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::FileMissing { .. } => "FILE_MISSING",
            Self::Io { .. } => "FILE_READ",
            Self::Unsupported { .. } => "UNSUPPORTED_FORMAT",
            Self::NotAModel { .. } => "NOT_A_MODEL",
            Self::Header { .. } => "FORMAT_HEADER",
            Self::Duplicate { .. } => "FORMAT_DUPLICATE",
            Self::Range { .. } => "FORMAT_RANGE",
            Self::Limit { .. } => "FORMAT_LIMIT",
            Self::Zip { .. } => "FORMAT_ZIP",
            Self::PickleGlobal { .. } => "FORMAT_PICKLE_GLOBAL",
            Self::PickleOp { .. } => "FORMAT_PICKLE_OP",
            Self::Json { .. } => "FORMAT_JSON",
            Self::ModelConfig { .. } => "MODEL_CONFIG",
            Self::ModelKeys { .. } => "MODEL_KEYS",
            Self::ModelShape { .. } => "MODEL_SHAPE",
            Self::AdapterConfig { .. } => "ADAPTER_CONFIG",
            Self::AdapterKeys { .. } => "ADAPTER_KEYS",
            Self::AdapterShape { .. } => "ADAPTER_SHAPE",
            Self::NotFinite { .. } => "NOT_FINITE",
            Self::Tokenizer { .. } => "TOKENIZER",
            Self::Integrity { .. } => "INTEGRITY",
            Self::Argument { .. } => "ARGUMENT",
        }
    }
}

fn keys(missing: &[String], extra: &[String]) -> String {
    let list = |what: &str, names: &[String]| {
        let mut text = format!("{what}: ");
        text.push_str(&names.iter().take(5).map(|n| shown(n)).collect::<Vec<_>>().join(", "));
        if names.len() > 5 {
            text.push_str(&format!(" and {} more", names.len() - 5));
        }
        text
    };
    match (missing.is_empty(), extra.is_empty()) {
        (false, true) => list("missing tensors", missing),
        (true, false) => list("tensors that nothing uses", extra),
        _ => format!("{}; {}", list("missing tensors", missing), list("tensors that nothing uses", extra)),
    }
}

/// A name from a file, fit for a message: quoted by the caller, control characters escaped, 200 characters at most.
#[must_use]
pub(crate) fn shown(name: &str) -> String {
    let cut: String = name.chars().take(200).flat_map(char::escape_default).collect();
    if name.chars().nth(200).is_some() { format!("{cut}…") } else { cut }
}

/// This crate's result.
pub type Result<T, E = FormatError> = core::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_cut_and_escaped() {
        let name = format!("\u{1b}[31m{}", "x".repeat(10_000));
        let text = shown(&name);
        assert!(text.starts_with("\\u{1b}[31m") && text.len() < 230, "{text}");
    }

    #[test]
    fn key_errors_name_the_first_five() {
        let names: Vec<String> = (0..7).map(|i| format!("t{i}")).collect();
        let e = FormatError::AdapterKeys { file: "f".into(), missing: names, extra: vec!["z".into()] };
        let text = e.to_string();
        assert!(text.contains("t0, t1, t2, t3, t4 and 2 more") && text.contains("nothing uses: z"), "{text}");
    }
}
