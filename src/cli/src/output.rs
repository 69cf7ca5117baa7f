//! Where results and messages go.
//!
//! Invariant: stdout carries data, stderr everything else; what comes from elsewhere can't steer
//! the reader's terminal.

mod table;

use std::{
    cell::RefCell,
    fmt,
    io::{self, Write},
};

use serde::Serialize;

pub(crate) use crate::output::table::{Align, Column, Table, record};
use crate::{args::Format, failure::Failure};

/// The two streams of a program.
pub(crate) struct Terminal {
    out: RefCell<Box<dyn Write>>,
    err: RefCell<Box<dyn Write>>,
    /// How wide stdout is; `None` if no one looks at it directly.
    width: Option<usize>,
    quiet: bool,
}

impl Terminal {
    /// The process's own streams.
    pub(crate) fn standard(quiet: bool) -> Self {
        let out = io::stdout();
        let width = rustix::termios::tcgetwinsize(&out)
            .ok()
            .map(|size| usize::from(size.ws_col))
            .filter(|width| *width > 0);
        Self {
            out: RefCell::new(Box::new(out)),
            err: RefCell::new(Box::new(io::stderr())),
            width,
            quiet,
        }
    }

    /// What is going on, unless `--quiet`.
    pub(crate) fn note(&self, message: &str) {
        if !self.quiet {
            self.say("", message);
        }
    }

    /// What went wrong without stopping us.
    pub(crate) fn warn(&self, message: &str) {
        self.say("warning: ", message);
    }

    /// What stopped us.
    pub(crate) fn error(&self, message: &str) {
        self.say("", message);
    }

    /// Commands to the CI platform that reads our stderr. They are told even if we are quiet, and
    /// to nobody else.
    pub(crate) fn command(&self, lines: &str) {
        let _ = self.err.borrow_mut().write_all(lines.as_bytes());
    }

    fn say(&self, kind: &str, message: &str) {
        let line = format!("dayfly: {kind}{}\n", printable(message));
        // One write, so that lines of several processes do not mix. Without stderr there is
        // nobody to tell that stderr is gone.
        let _ = self.err.borrow_mut().write_all(line.as_bytes());
    }

    /// Writes what a program reads, as it is.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = self.out.borrow_mut();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Writes `value` as JSON, or else what `table` makes of it.
    pub(crate) fn show<T: Serialize>(
        &self,
        format: Format,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> Result<(), Failure> {
        let text = match format {
            Format::Json => serde_json::to_string_pretty(value)? + "\n",
            Format::Table => table(value).fit(self.width),
        };
        let mut out = self.out.borrow_mut();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").field("width", &self.width).finish_non_exhaustive()
    }
}

/// `text` on one line and without control characters, which a purpose or an error from
/// elsewhere could use to forge lines or to steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect()
}

fn is_unsafe(c: char) -> bool {
    // The second range turns the direction of writing around.
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(printable("`ä` → ok…"), "`ä` → ok…");
    }
}
