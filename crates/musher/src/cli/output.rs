//! What is said to people: prefixes, colours, streams.
//!
//! Colour is decided per stream: only on a terminal, or when asked for. The
//! words are PM2's; the prefix is the name the program was called by.

use crate::paths::Style;
use std::io::Write;
use std::os::fd::AsFd;

/// A colour of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Color {
    /// Success, online.
    Green,
    /// Information.
    Cyan,
    /// Warning.
    Yellow,
    /// Error, anything but online.
    Red,
    /// Launching.
    Blue,
    /// Secondary text.
    Dim,
    /// Headings.
    Bold,
    /// Headings of columns: bold and cyan, as PM2's.
    Heading,
}

/// The next step after a name or id nobody has.
pub(super) const SEE_LIST: &str = "`musher list` shows names, ids and namespaces";

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Everything was said already.
    Told,
    /// A text still to be told as an error.
    Error(String),
    /// The same, and what to do next.
    Helped {
        /// What happened.
        text: String,
        /// The next step.
        help: String,
    },
}

impl Failure {
    /// Returns a failure about something that is not in the list.
    pub(super) fn unlisted(text: String) -> Failure {
        Failure::Helped {
            text,
            help: SEE_LIST.to_owned(),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Error(error.to_string())
    }
}

/// The two streams and how to write on them.
pub(super) struct Console {
    /// Whose prefix.
    pub(super) style: Style,
    /// stdout.
    pub(super) out: Box<dyn Write>,
    /// stderr.
    pub(super) err: Box<dyn Write>,
    /// Colours on stdout.
    pub(super) color_out: bool,
    /// Colours on stderr.
    pub(super) color_err: bool,
    /// Messages are dropped; data is not.
    pub(super) silent: bool,
    /// stdout is for data: messages go to stderr only.
    pub(super) data_only: bool,
    /// Columns of the terminal; `None` when stdout is none.
    pub(super) width: Option<usize>,
}

/// Returns `text` in a colour, if there are colours.
pub(super) fn paint(text: &str, color: Color, on: bool) -> String {
    if !on {
        return text.to_owned();
    }
    let code = match color {
        Color::Green => 32,
        Color::Cyan => 36,
        Color::Yellow => 33,
        Color::Red => 31,
        Color::Blue => 34,
        Color::Dim => 90,
        Color::Bold => return format!("\u{1b}[1m{text}\u{1b}[22m"),
        Color::Heading => return format!("\u{1b}[1m\u{1b}[36m{text}\u{1b}[39m\u{1b}[22m"),
    };
    format!("\u{1b}[{code}m{text}\u{1b}[39m")
}

/// Decides on colours: `NO_COLOR`, `FORCE_COLOR=0` and `TERM=dumb` turn them
/// off, `FORCE_COLOR` on, otherwise a terminal does.
pub(super) fn wants_color(is_terminal: bool, var: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| var(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    match set("FORCE_COLOR").as_deref() {
        Some("0" | "false") => false,
        Some(_) => true,
        None => is_terminal && set("TERM").as_deref() != Some("dumb"),
    }
}

/// Returns the columns of a terminal; `None` for anything else.
pub(super) fn terminal_width(stream: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

impl Console {
    fn name(&self) -> &'static str {
        match self.style {
            Style::Musher => "musher",
            Style::Pm2 => "PM2",
        }
    }

    /// Says a message: `[PM2] text`.
    pub(super) fn say(&mut self, text: &str) {
        let prefix = format!("[{}]", self.name());
        let prefix = paint(&prefix, Color::Green, self.color_out);
        self.line(&format!("{prefix} {text}"));
    }

    /// Says a warning on stdout.
    pub(super) fn warn(&mut self, text: &str) {
        let prefix = format!("[{}][WARN]", self.name());
        let prefix = paint(&prefix, Color::Yellow, self.color_out);
        self.line(&format!("{prefix} {text}"));
    }

    /// Says a warning on stderr, where PM2 says "not found".
    pub(super) fn warn_err(&mut self, text: &str) {
        let prefix = format!("[{}][WARN]", self.name());
        let prefix = paint(&prefix, Color::Yellow, self.color_err);
        self.err_line(&format!("{prefix} {text}"));
    }

    /// Says an error.
    pub(super) fn error(&mut self, text: &str) {
        let prefix = format!("[{}][ERROR]", self.name());
        let prefix = paint(&prefix, Color::Red, self.color_err);
        self.err_line(&format!("{prefix} {text}"));
    }

    /// Says what to do next, below an error. Scripts compare all that PM2
    /// says, so as PM2 nothing is said.
    pub(super) fn help(&mut self, text: &str) {
        if self.style == Style::Musher {
            self.err_line(&format!("  help: {text}"));
        }
    }

    /// Writes a line of a message to stdout.
    pub(super) fn line(&mut self, text: &str) {
        if !self.silent && !self.data_only {
            self.data(&format!("{text}\n"));
        }
    }

    /// Writes a line of a message to stderr.
    pub(super) fn err_line(&mut self, text: &str) {
        if !self.silent {
            // There is nobody to tell that stderr is gone.
            let _ = writeln!(self.err, "{text}");
        }
    }

    /// Writes data to stdout, also in silence. A closed pipe ends the program
    /// quietly: the reader has what it wanted.
    pub(super) fn data(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Writes raw data to stdout.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let written = self.out.write_all(bytes).and_then(|()| self.out.flush());
        if written.is_err() {
            std::process::exit(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_or_a_wish() {
        for (terminal, vars, expected) in [
            (true, &[][..], true),
            (false, &[], false),
            (true, &[("NO_COLOR", "1")], false),
            (true, &[("NO_COLOR", "")], true),
            (true, &[("TERM", "dumb")], false),
            (false, &[("FORCE_COLOR", "1")], true),
            (true, &[("FORCE_COLOR", "0")], false),
            (false, &[("PM2_HOME", "/p")], false),
        ] {
            let got = wants_color(terminal, |name| {
                let found = vars.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            assert_eq!(got, expected, "{terminal} {vars:?}");
        }
    }
}
