//! How far the runs are, on stderr and only on a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(runs: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{msg:32} {wide_bar} {pos}/{len}  {eta} left");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(runs as u64), target).with_style(style);
        Self(bar)
    }

    /// A run begins, and the one before has ended.
    pub(crate) fn at(&self, policy: &str, seed: u64) {
        if !self.0.message().is_empty() {
            self.0.inc(1);
        }
        self.0.set_message(format!("{policy}, seed {seed}"));
    }

    pub(crate) fn finish(self) {
        self.0.finish_and_clear();
    }
}
