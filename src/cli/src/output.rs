//! Where results and messages go.
//!
//! Invariant: stdout carries data, stderr everything else; what comes from elsewhere can't steer
//! the reader's terminal; what programs read has no colour, whatever is asked for.

mod colour;
mod messages;
mod progress;
mod table;

use std::{
    cell::RefCell,
    fmt,
    io::{self, IsTerminal as _, Write},
    pin::pin,
};

use serde::Serialize;
use tokio::time::timeout;

pub(crate) use crate::output::{
    colour::{Paint, When},
    table::{Align, Column, Table, record},
};
use crate::{
    ambient::Ambient,
    args::Format,
    failure::Failure,
    output::{
        messages::Messages,
        progress::{APPEARS, CLEAR, Progress, TURN},
    },
};

/// The two streams of a program.
pub(crate) struct Terminal {
    out: RefCell<Box<dyn Write>>,
    messages: Messages,
    /// How wide stdout is; `None` if no one looks at it directly.
    width: Option<usize>,
    quiet: bool,
    /// Whether there is colour, on stdout and on stderr.
    colours: [bool; 2],
    progress: Progress,
}

impl Terminal {
    /// The process's own streams, plain.
    pub(crate) fn standard(quiet: bool) -> Self {
        let out = io::stdout();
        let width = rustix::termios::tcgetwinsize(&out)
            .ok()
            .map(|size| usize::from(size.ws_col))
            .filter(|width| *width > 0);
        Self {
            out: RefCell::new(Box::new(out)),
            messages: Messages::default(),
            width,
            quiet,
            colours: [false; 2],
            progress: Progress::default(),
        }
    }

    /// The same, looking as the user and the environment want it.
    pub(crate) fn dressed(self, when: When, ambient: &Ambient) -> Self {
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        // A terminal on a serial line does not know how wide it is; its user may.
        let columns = || ambient.text("COLUMNS")?.parse::<usize>().ok().filter(|width| *width > 0);
        Self {
            width: self.width.or_else(|| columns().filter(|_| out)),
            colours: [out, err].map(|is_terminal| when.applies(is_terminal, ambient)),
            progress: Progress::at_terminal(self.quiet, ambient),
            ..self
        }
    }

    /// What is going on, unless `--quiet`.
    pub(crate) fn note(&self, message: &str) {
        if !self.quiet {
            self.say(None, message);
        }
    }

    /// What somebody must do now; `--quiet` asks for no less.
    pub(crate) fn prompt(&self, message: &str) {
        self.say(None, message);
    }

    /// What went wrong without stopping us.
    pub(crate) fn warn(&self, message: &str) {
        self.say(Some(("warning:", Paint::Doubtful)), message);
    }

    /// What stopped us.
    pub(crate) fn error(&self, message: &str) {
        self.say(Some(("error:", Paint::Bad)), message);
    }

    /// The same, with what the broker calls it.
    pub(crate) fn failure(&self, failure: &Failure) {
        match failure.code() {
            Some(code) => {
                self.say(Some((&format!("error[{code}]:"), Paint::Bad)), &failure.to_line());
            }
            None => self.error(&failure.to_line()),
        }
    }

    /// Commands to the CI platform that reads our stderr. They are told even if we are quiet, and
    /// to nobody else; it has read them, or could have, when this is done.
    pub(crate) async fn command(&self, lines: &str) {
        self.clear();
        self.messages.deliver(lines).await;
    }

    /// From now on nobody waits for who reads the messages: a command is to run beside us.
    pub(crate) fn stand_apart(&self) {
        self.messages.stand_apart();
    }

    /// What is said and what the command says from now on stand in this order, if somebody reads.
    pub(crate) async fn settle(&self) {
        self.messages.settle().await;
    }

    fn say(&self, kind: Option<(&str, Paint)>, message: &str) {
        let [_, is_coloured] = self.colours;
        let kind = match kind {
            Some((kind, paint)) if is_coloured => paint.on(kind) + " ",
            Some((kind, _)) => format!("{kind} "),
            None => String::new(),
        };
        let clear = if self.progress.take() { CLEAR } else { "" };
        let line = format!("{clear}dayfly: {kind}{}\n", printable(message));
        // One write, so that lines of several processes do not mix.
        self.messages.write(&line);
    }

    /// Does `work`, and says that it takes its time if it does. One at a time.
    pub(crate) async fn waiting<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        if !self.progress.is_wanted() {
            return work.await;
        }
        self.waits(what);
        let mut work = pin!(work);
        // Whoever gives up waiting leaves no line either.
        let _line = Line(self);
        let mut pause = APPEARS;
        loop {
            if let Ok(done) = timeout(pause, work.as_mut()).await {
                return done;
            }
            self.turn();
            pause = TURN;
        }
    }

    /// Says what is waited for from now on, in the line that there may be.
    pub(crate) fn waits(&self, what: &str) {
        self.progress.begin(what);
    }

    /// Shows the line, or how it has changed.
    fn turn(&self) {
        // One that can't be shown now is not worth showing later.
        if self.messages.is_idle()
            && let Some(line) = self.progress.next()
        {
            self.messages.write(&line);
        }
    }

    fn clear(&self) {
        if self.progress.take() {
            self.messages.write(CLEAR);
        }
    }

    /// Writes help, or what is wrong with the command line.
    pub(crate) fn usage(&self, fault: &clap::Error) {
        let [out, err] = self.colours;
        let is_coloured = if fault.use_stderr() { err } else { out };
        let text = fault.render();
        let text = if is_coloured { text.ansi().to_string() } else { text.to_string() };
        if fault.use_stderr() {
            self.messages.write(&text);
            return;
        }
        let mut stream = self.out.borrow_mut();
        // Nothing is left to tell anyone when the stream itself is gone.
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    }

    /// Waits until what was said has been taken, as long as somebody reads it: the last thing that
    /// is done.
    pub(crate) fn finish(&self) {
        self.messages.finish();
    }

    /// Writes what a program reads, as it is.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        self.clear();
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
            Format::Table => {
                let [is_coloured, _] = self.colours;
                table(value).coloured(is_coloured).fit(self.width)
            }
        };
        self.data(&text)
    }
}

/// The line about what is waited for, while somebody waits.
struct Line<'a>(&'a Terminal);

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.0.clear();
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
