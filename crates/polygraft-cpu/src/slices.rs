//! Where a step may stop: between tasks, each a fraction of a millisecond.

use polygraft::Result;

/// Multiply-adds in a task, about: a tenth of a millisecond natively, a quarter in WebAssembly.
pub(crate) const TASK: usize = 4 << 20;

/// Whether a step came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Yes,
    /// The caller asked for a pause: call again, the tasks done are remembered.
    Paused,
}

/// The tasks of one step, across calls of `advance`.
pub(crate) struct Slices<'a> {
    /// Tasks of the step that are done.
    pub(crate) done: &'a mut usize,
    /// Whether anything ran since `pause` was last asked: each `advance` gets at least one task done.
    pub(crate) worked: &'a mut bool,
    pub(crate) pause: &'a mut dyn FnMut() -> bool,
}

impl Slices<'_> {
    /// Runs `work` on the tasks that are not done yet. Steps call this once, with the same tasks each time.
    pub(crate) fn each<T>(
        &mut self,
        tasks: impl IntoIterator<Item = T>,
        mut work: impl FnMut(T) -> Result<()>,
    ) -> Result<Ended> {
        for task in tasks.into_iter().skip(*self.done) {
            if std::mem::take(self.worked) && (self.pause)() {
                return Ok(Ended::Paused);
            }
            work(task)?;
            *self.done += 1;
            *self.worked = true;
        }
        Ok(Ended::Yes)
    }
}
