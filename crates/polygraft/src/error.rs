//! The core's one error type: what was expected, what was found, where, what to do next.

/// Everything that can go wrong between an [`AdapterIr`](crate::ir::AdapterIr) and a score.
///
/// [`Error::code`] is stable API: the JavaScript face exposes the same strings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A composition's text or tree cannot be read.
    #[error("composition {text:?}: {why}")]
    ComposeSyntax {
        /// The text as given.
        text: String,
        /// What was expected, and at which character.
        why: String,
    },
    /// A composition reads well but has no defined meaning for these adapters.
    #[error("composition {text:?} is not defined: {why}")]
    ComposeUndefined {
        /// The composition, printed back.
        text: String,
        /// Which part has no meaning, and what to write instead.
        why: String,
    },
    /// A composition names an adapter that is not loaded.
    #[error("no adapter named {name:?} is loaded; loaded: {}", list(.loaded))]
    AdapterUnknown {
        /// The name that was asked for.
        name: String,
        /// The names that are there.
        loaded: Vec<String>,
    },
    /// A name that the composition grammar cannot spell.
    #[error("adapter name {name:?} is not usable: {why}")]
    AdapterName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        why: String,
    },
    /// A patch does not fit the base model.
    #[error("adapter {adapter:?}: {what}: expected {expected}, found {found}")]
    AdapterShape {
        /// The adapter's name.
        adapter: String,
        /// The site or tensor.
        what: String,
        /// What the base needs.
        expected: String,
        /// What the adapter brings.
        found: String,
    },
    /// A patch is aimed at a part that the base model does not have.
    #[error("adapter {adapter:?} changes {site}, which this base model does not have")]
    AdapterSite {
        /// The adapter's name.
        adapter: String,
        /// The missing site.
        site: String,
    },
    /// An adapter was made for another base model.
    #[error(
        "adapter {adapter:?} was made for another base model: it names {wanted}, this base is {found}; load the base it was made for, or pass allow_base_mismatch if the shapes fit and you know why"
    )]
    AdapterBase {
        /// The adapter's name.
        adapter: String,
        /// Lineage or name that the adapter carries.
        wanted: String,
        /// The base that is loaded.
        found: String,
    },
    /// A task needs a head and none of base and adapters brings one.
    #[error("{task} needs {needed}, and neither the base model nor the composition {compose:?} brings one")]
    HeadMissing {
        /// The task.
        task: String,
        /// The kind of head.
        needed: String,
        /// The composition that ran.
        compose: String,
    },
    /// A head is there, of a width the task cannot use.
    #[error("the head has {found} outputs; {task} needs {needed}")]
    HeadShape {
        /// The task.
        task: String,
        /// Widths that would do.
        needed: String,
        /// The head's width.
        found: u32,
    },
    /// A row that the model cannot run as it is.
    #[error("row {row}: {why}")]
    Row {
        /// Index of the row in the caller's batch.
        row: usize,
        /// What is wrong with it, with the limit.
        why: String,
    },
    /// A row is longer than the model's position table.
    #[error("row {row} has {tokens} tokens; the model has positions for {limit}")]
    TooLong {
        /// Index of the row in the caller's batch.
        row: usize,
        /// Its length.
        tokens: usize,
        /// The model's limit.
        limit: usize,
    },
    /// An argument is out of its range.
    #[error("{what}: {why}")]
    Argument {
        /// Which argument.
        what: String,
        /// What is wrong and what would do.
        why: String,
    },
    /// Saved vectors do not belong to this base or composition.
    #[error("the index is stale: {why}; build it again with index()")]
    IndexStale {
        /// What differs.
        why: String,
    },
    /// A number that is not finite came out.
    #[error("{what} is not a finite number: a weight or an adapter overflows")]
    NotFinite {
        /// Which output of which row.
        what: String,
    },
    /// A Program that a backend must not run; always a defect of the planner.
    #[error("invalid program: {0}")]
    Program(String),
    /// The caller cancelled.
    #[error("cancelled")]
    Aborted,
    /// No device of the kind that was asked for.
    #[error("no gpu: {why}")]
    DeviceUnavailable {
        /// What is missing.
        why: String,
    },
    /// The device went away, or failed so that nothing on it can be trusted; opening it anew may help.
    #[error("the gpu was lost: {why}")]
    DeviceLost {
        /// What the system said.
        why: String,
    },
    /// The device computes wrong numbers: it must not be used.
    #[error(
        "this gpu computes wrong numbers: {step} is off by {off:e} on known inputs; use the cpu backend, and report the device: {device}"
    )]
    DeviceWrong {
        /// Its name.
        device: String,
        /// The kernel that failed.
        step: String,
        /// Largest difference to the known answer.
        off: f32,
    },
    /// A backend failed in its own way.
    #[error("{backend} backend: {why}")]
    Backend {
        /// `reference`, `cpu` or `gpu`.
        backend: &'static str,
        /// What happened.
        why: String,
    },
}

impl Error {
    /// The stable code of this error, the same in Rust, on the command line and in JavaScript.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ComposeSyntax { .. } | Self::ComposeUndefined { .. } => "COMPOSE_INVALID",
            Self::AdapterUnknown { .. } => "ADAPTER_UNKNOWN",
            Self::AdapterName { .. } => "ADAPTER_NAME",
            Self::AdapterShape { .. } | Self::AdapterSite { .. } => "ADAPTER_SHAPE",
            Self::AdapterBase { .. } => "ADAPTER_BASE_MISMATCH",
            Self::HeadMissing { .. } => "HEAD_MISSING",
            Self::HeadShape { .. } => "HEAD_SHAPE",
            Self::Row { .. } | Self::Argument { .. } => "ARGUMENT",
            Self::TooLong { .. } => "INPUT_TOO_LONG",
            Self::IndexStale { .. } => "INDEX_STALE",
            Self::NotFinite { .. } => "NOT_FINITE",
            Self::Program(_) | Self::Backend { .. } => "INTERNAL",
            Self::DeviceUnavailable { .. } => "GPU_UNAVAILABLE",
            Self::DeviceLost { .. } => "GPU_LOST",
            Self::DeviceWrong { .. } => "GPU_WRONG",
            Self::Aborted => "ABORTED",
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// The core's result.
pub type Result<T, E = Error> = core::result::Result<T, E>;
