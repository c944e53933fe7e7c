//! What crosses to JavaScript when something fails: a stable code and a sentence.

use polygraft_formats::FormatError;

/// An error on its way to JavaScript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// One of the codes of [`polygraft::Error::code`] and [`FormatError::code`].
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
}

impl Failure {
    /// An argument that is out of its range, or a handle that is not there.
    pub(crate) fn argument(what: &str, why: impl std::fmt::Display) -> Self {
        Self { code: "ARGUMENT", message: format!("{what}: {why}") }
    }
}

impl From<polygraft::Error> for Failure {
    fn from(error: polygraft::Error) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

/// The result of everything behind the boundary.
pub(crate) type Result<T, E = Failure> = core::result::Result<T, E>;
