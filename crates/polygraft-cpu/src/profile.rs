//! Where the time of a call goes. Nothing here reads a clock: whoever wants a profile brings one.

/// A clock: milliseconds since any fixed moment.
pub type Clock = fn() -> f64;

/// Adds up what kernels take while a clock is there.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    clock: Option<Clock>,
    spent: Vec<f64>,
}

impl Stopwatch {
    pub(crate) fn new(clock: Option<Clock>, kernels: usize) -> Self {
        Self { clock, spent: vec![0.0; if clock.is_some() { kernels } else { 0 }] }
    }

    /// Runs `work` and books its time on kernel `index`.
    pub(crate) fn book<R>(&mut self, index: usize, work: impl FnOnce() -> R) -> R {
        let Some(clock) = self.clock else { return work() };
        let start = clock();
        let result = work();
        self.spent[index] += clock() - start;
        result
    }

    /// What kernel `index` took, when there was a clock.
    pub(crate) fn of(&self, index: usize) -> Option<f64> {
        self.spent.get(index).copied()
    }
}
