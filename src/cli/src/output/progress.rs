//! One line about what is waited for, at a terminal.
//!
//! Invariant: it appears only after a while, is gone before anything else is written, and nobody
//! but a person at a terminal in front of us ever gets it.

use std::{
    cell::{Cell, RefCell},
    io::{self, IsTerminal as _},
    time::Duration,
};

use rustix::{
    process::getpgrp,
    termios::{tcgetpgrp, tcgetwinsize},
};
use tokio::time::Instant;

use crate::{
    ambient::Ambient,
    output::{colour::can_steer, printable, table::cut},
};

/// What takes no longer is not worth a line.
pub(super) const APPEARS: Duration = Duration::from_secs(1);
/// How often the line changes.
pub(super) const TURN: Duration = Duration::from_millis(125);
const SPINNER: [char; 4] = ['|', '/', '-', '\\'];
/// What is taken for the width of a terminal that does not know its own.
const WIDTH: usize = 80;
/// Empties the line.
pub(super) const CLEAR: &str = "\r\x1b[K";

/// What is waited for.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Whether there may be a line at all.
    is_wanted: bool,
    what: RefCell<String>,
    since: Cell<Option<Instant>>,
    turns: Cell<usize>,
    is_shown: Cell<bool>,
}

impl Progress {
    /// Where stderr is a terminal that can take a line back.
    pub(super) fn at_terminal(quiet: bool, ambient: &Ambient) -> Self {
        let is_wanted = !quiet && io::stderr().is_terminal() && can_steer(ambient);
        Self { is_wanted, ..Self::default() }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// From now on `what` is waited for.
    pub(super) fn begin(&self, what: &str) {
        *self.what.borrow_mut() = printable(what);
        self.since.set(Some(Instant::now()));
    }

    /// What the terminal is sent next; nothing if another program has it.
    pub(super) fn next(&self) -> Option<String> {
        let stderr = io::stderr();
        if tcgetpgrp(&stderr).ok() != Some(getpgrp()) {
            self.is_shown.set(false);
            return None;
        }
        let width = tcgetwinsize(&stderr).map_or(0, |size| usize::from(size.ws_col));
        let line = self.line(if width == 0 { WIDTH } else { width }, Instant::now())?;
        self.is_shown.set(true);
        Some(format!("\r{line}\x1b[K"))
    }

    fn line(&self, width: usize, now: Instant) -> Option<String> {
        let seconds = now.saturating_duration_since(self.since.get()?).as_secs();
        let turns = self.turns.get();
        self.turns.set(turns.wrapping_add(1));
        let spinner = SPINNER.get(turns % SPINNER.len())?;
        let line = format!("{spinner} {} ({seconds} s)", self.what.borrow());
        // In the last column some terminals begin another line.
        Some(cut(&line, width.saturating_sub(1)))
    }

    /// Whether the line stood there; from now on it does not.
    pub(super) fn take(&self) -> bool {
        self.is_shown.replace(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_and_how_long_and_fits() {
        let progress = Progress::default();
        let now = Instant::now() + Duration::from_mins(1);
        assert_eq!(progress.line(80, now), None);
        progress.begin("waiting for the\x1b[2J broker");
        progress.since.set(Some(now));
        let later = now + Duration::from_millis(3900);
        let text = "waiting for the\u{fffd}[2J broker (3 s)";
        assert_eq!(progress.line(80, later), Some(format!("| {text}")));
        assert_eq!(progress.line(80, later), Some(format!("/ {text}")));
        assert_eq!(progress.line(12, later).as_deref(), Some("- waiting …"));
        progress.begin("waiting for something else");
        let first = progress.line(80, Instant::now()).unwrap();
        assert_eq!(first, "\\ waiting for something else (0 s)");
    }

    #[test]
    fn the_line_is_taken_back_once() {
        let progress = Progress::default();
        assert!(!progress.take());
        progress.is_shown.set(true);
        assert!(progress.take() && !progress.take());
    }
}
