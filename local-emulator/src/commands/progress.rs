//! The progress of a long command, on standard error. Only a terminal shows it: in a pipe or a file
//! there is none of it.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the line is drawn while nothing advances, so that its clock goes on.
const REDRAWN: Duration = Duration::from_millis(200);

/// One line that is drawn over and over. It disappears when this value is dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// With a bar, for a known number of things.
    pub fn of(total: u64, things: &'static str) -> Self {
        let template = "{bar:32} {human_pos}/{human_len} {msg}, {elapsed}, {eta} left";
        Self::drawn(ProgressBar::with_draw_target(Some(total), target()), template, things)
    }

    /// Without a bar, for an unknown number of things.
    pub fn open_ended(things: &'static str) -> Self {
        let template = "{human_pos} {msg}, {elapsed}";
        Self::drawn(ProgressBar::with_draw_target(None, target()), template, things)
    }

    fn drawn(bar: ProgressBar, template: &str, things: &'static str) -> Self {
        let style = ProgressStyle::with_template(template).expect("a valid template");
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(things);
        if !bar.is_hidden() {
            bar.enable_steady_tick(REDRAWN);
        }
        Self(bar)
    }

    /// This many more are done.
    pub fn advance(&self, by: usize) {
        self.0.inc(by as u64);
    }

    /// Removes the line.
    pub fn end(self) {}
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Also after an error, whose message follows.
        self.0.finish_and_clear();
    }
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}
