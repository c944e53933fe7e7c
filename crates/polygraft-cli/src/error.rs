//! What the command line can fail with: the crates' errors with the file they happened in, and usage.

use std::path::PathBuf;

/// An error of the command line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An argument that clap cannot check.
    #[error("{0}")]
    Usage(String),
    /// Reading or writing.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's contents.
    #[error("{path}: {source}", path = .path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        source: polygraft_formats::FormatError,
    },
    /// A text file's contents.
    #[error("{path}: {why}", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        why: String,
    },
    /// The core.
    #[error(transparent)]
    Core(#[from] polygraft::Error),
}

impl Error {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "USAGE",
            Self::Io { .. } => "IO",
            Self::Format { source, .. } => source.code(),
            Self::Content { .. } => "FILE_CONTENT",
            Self::Core(source) => source.code(),
        }
    }

    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
