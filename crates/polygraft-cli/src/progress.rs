//! Progress bars on stderr, only where someone is looking.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over an amount that may not be known at first.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(what: &'static str, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        let counts = match unit {
            Unit::Bytes => "{bytes}/{total_bytes}",
            Unit::Numbers => "{human_pos}/{human_len} weights",
            Unit::Tokens => "{human_pos}/{human_len} tokens",
        };
        let template = format!("{{prefix:>10}} {{bar:30}} {counts} {{elapsed}} (eta {{eta}})");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what);
        Self(bar)
    }

    pub(crate) fn set(&self, done: u64, total: u64) {
        if total > 0 {
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Bytes,
    Numbers,
    Tokens,
}
