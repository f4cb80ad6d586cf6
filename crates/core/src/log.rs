//! What one line of output looks like in a log file.
//!
//! PM2 formats whatever a read from the pipe happens to return, so lines that
//! arrive in two pieces are torn or lost. Here a [`Framer`] cuts the stream into
//! lines first: any chunking of the same bytes gives the same file. Nothing here
//! reads a pipe, a file or a clock; `daemon/logs.rs` does.

mod date;
mod framer;

pub use date::{Civil, DateFormat};
pub use framer::{Format, Framer, LINE_MAX_BYTES, OUT_MAX_BYTES};

/// Which of the two output streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// Returns PM2's word, as in `log:out` and in JSON records: `out` or `err`.
    pub const fn pm2_name(self) -> &'static str {
        match self {
            Stream::Out => "out",
            Stream::Err => "err",
        }
    }
}
