//! How far a command is, on stderr: a bar on a terminal, a line for each file otherwise.
//! Knows what is shown; does not know what is done.

use std::io::IsTerminal;
use std::time::Duration;

use easel_checkpoints::push::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// One step of a command.
#[derive(Clone)]
pub(crate) struct Bar {
    bar: ProgressBar,
    terminal: bool,
}

const LOOK: &str = "{msg:9} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";

impl Bar {
    pub(crate) fn new(step: &'static str, total_bytes: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(LOOK).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target).with_style(style).with_message(step);
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, terminal }
    }

    pub(crate) fn set(&self, done_bytes: u64) {
        self.bar.set_position(done_bytes);
    }

    pub(crate) fn pushed(&self, event: Event) {
        match event {
            Event::Present { path, bytes } => {
                self.bar.inc(bytes);
                self.line(&format!("  {path}: there already ({})", output::bytes(bytes)));
            }
            Event::Sent { path: _, bytes } => self.bar.inc(bytes),
            Event::Again { path, bytes, why } => {
                self.bar.dec(bytes);
                self.say(&format!("  {path}: broke off ({why}); sending it again"));
            }
            Event::Done { path, bytes } => self.line(&format!("  {path}: sent ({})", output::bytes(bytes))),
        }
    }

    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }

    /// Only where there is no bar that says it.
    fn line(&self, text: &str) {
        if !self.terminal {
            eprintln!("{text}");
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}
