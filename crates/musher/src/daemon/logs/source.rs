//! One pipe on its way to its files.
//!
//! Writes are whole lines where lines are of a sane length, so that several
//! processes can share a file. Raw output with one file is moved there and never
//! read ([`super::splice`]); if others share the file or somebody watches, this
//! holds for whole lines. Everything else is read: raw output nobody watches goes
//! from the read buffer to the files, the rest is copied through the framer.

use super::Source;
use super::clock::Clock;
use super::files::{Files, Writer};
use super::outlet::{Losses, Origin, Outlet};
use super::splice::Peek;
use musher_core::id::Incarnation;
use musher_core::log::{Civil, DateFormat, Format, Framer, LINE_MAX_BYTES, Stream};
use rustix::io::Errno;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long descendants of a process that is gone may keep its pipes.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Bytes read from one source before others have their turn.
const ROUND_MAX_BYTES: usize = 1024 * 1024;

/// One read of untouched output.
const READ_BYTES: usize = 256 * 1024;

/// Bytes moved at a time; the pipe is locked for its writer meanwhile.
const MOVE_BYTES: usize = READ_BYTES;

/// One read of output that is framed.
const READ_FRAMED_BYTES: usize = LINE_MAX_BYTES;

/// The output buffer is cut back to this after an unusual line.
const KEEP_OUT_BYTES: usize = 256 * 1024;

/// After this long the beginning of a line is written without its end, and others
/// write to a file that ends with one.
const HOLD: Duration = Duration::from_millis(500);

/// Size of a flooded pipe.
const PIPE_BYTES: usize = 1024 * 1024;

/// A round of this much marks a flood: a default pipe was full.
const FLOOD_BYTES: usize = 60 * 1024;

/// Pipes that are enlarged at a time. All pipes of a user share a budget of
/// 64 MiB (pipe(7), pipe-user-pages-soft); who exceeds it gets tiny pipes for
/// everything else.
const ENLARGED_MAX: usize = 16;

/// What all sources share while they are served.
pub(super) struct Desk {
    pub(super) ways: Ways,
    clock: Clock,
    buffer: Vec<u8>,
    out: Vec<u8>,
    peek: Peek,
    n_enlarged: usize,
}

/// Where output goes.
pub(super) struct Ways {
    pub(super) files: Files,
    pub(super) outlet: Outlet,
}

/// An attached [`Source`].
pub(super) struct Tap {
    fd: OwnedFd,
    origin: Origin,
    framer: Framer,
    is_raw: bool,
    /// Neither files nor events: what is read is dropped.
    is_disabled: bool,
    links: Vec<Link>,
    losses: Losses,
    pipe: Pipe,
    /// When the held beginning of a line is written.
    release_at: Option<Instant>,
    /// When losses are to be reported.
    report_at: Option<Instant>,
    /// When the pipe is closed although somebody still holds it.
    close_at: Option<Instant>,
}

/// One file of a source.
struct Link {
    path: Arc<str>,
    /// Bytes in the middle of a line were lost: the rest of that line is too.
    is_torn: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pipe {
    AsMade,
    Enlarged,
    /// The system refused; not asked again.
    Refused,
}

/// How a round ended.
pub(super) enum Served {
    /// The pipe may have more to give.
    Open {
        /// Bytes read.
        n_bytes: usize,
    },
    /// Nobody can write to it any more.
    Ended,
}

/// How an attempt to move bytes ended.
enum Spliced {
    Moved(usize),
    /// The pipe has nothing to give.
    Empty,
    /// Reading it is right this time.
    Unfit,
}

impl Desk {
    pub(super) fn new(outlet: Outlet) -> Desk {
        Desk {
            ways: Ways {
                files: Files::default(),
                outlet,
            },
            clock: Clock::new(),
            buffer: vec![0; READ_BYTES],
            out: Vec::new(),
            peek: Peek::default(),
            n_enlarged: 0,
        }
    }
}

impl Tap {
    /// Takes a source over and opens its files.
    pub(super) fn new(source: Source, desk: &mut Desk, now: Instant) -> Tap {
        let output = source.output;
        let own = match source.stream {
            Stream::Out => output.out,
            Stream::Err => output.err,
        };
        let mut links: Vec<Link> = Vec::new();
        for path in [own, output.combined].into_iter().flatten() {
            let is_nowhere = output.disabled || path == "/dev/null" || path == "NULL";
            if is_nowhere || links.iter().any(|link| *link.path == *path) {
                continue;
            }
            let path = Arc::from(path);
            desk.ways.files.acquire(&path, now);
            links.push(Link {
                path,
                is_torn: false,
            });
        }
        let date = output.date_format.as_deref().map(DateFormat::parse);
        let format = match (output.json, date) {
            (true, date) => Format::Json {
                date,
                stream: source.stream,
                pm_id: source.pm_id,
                name: source.name,
            },
            (false, Some(date)) => Format::Dated(date),
            (false, None) => Format::Raw,
        };
        Tap {
            fd: source.fd,
            origin: Origin {
                run: source.run,
                pm_id: source.pm_id,
                stream: source.stream,
            },
            is_raw: format == Format::Raw,
            framer: Framer::new(format),
            is_disabled: output.disabled,
            links,
            losses: Losses::default(),
            pipe: Pipe::AsMade,
            release_at: None,
            report_at: None,
            close_at: None,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn run(&self) -> Incarnation {
        self.origin.run
    }

    pub(super) fn stream(&self) -> Stream {
        self.origin.stream
    }

    /// Returns when [`Tap::tick`] has something to do.
    pub(super) fn due_at(&self) -> Option<Instant> {
        [self.release_at, self.report_at, self.close_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The process is gone: the pipe is read to its end, or until [`LAST_WORDS`].
    pub(super) fn begin_end(&mut self, now: Instant) {
        self.close_at.get_or_insert(now + LAST_WORDS);
    }

    /// Reads one round and writes it.
    pub(super) fn serve(&mut self, desk: &mut Desk, now: Instant) -> Served {
        if self.is_waiting(desk, now) {
            // As good as a little: the thread pauses before it looks again.
            return Served::Open { n_bytes: 1 };
        }
        let mut n_bytes = 0;
        while n_bytes < ROUND_MAX_BYTES {
            match self.splice(desk, now) {
                Spliced::Moved(n) => {
                    n_bytes += n;
                    continue;
                }
                Spliced::Empty => break,
                Spliced::Unfit => {}
            }
            let is_direct = self.is_direct(desk);
            let size = if is_direct {
                READ_BYTES
            } else {
                READ_FRAMED_BYTES
            };
            match rustix::io::read(&self.fd, &mut desk.buffer[..size]) {
                Ok(0) => return Served::Ended,
                Ok(n) => {
                    n_bytes += n;
                    if is_direct {
                        self.write_direct(n, desk, now);
                    } else {
                        self.write_framed(0..n, desk, now);
                    }
                    // A short read means the pipe is empty.
                    if n < size {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // A terminal says EIO when its last user is gone.
                Err(_) => return Served::Ended,
            }
        }
        if n_bytes >= FLOOD_BYTES {
            self.enlarge_pipe(desk);
        }
        self.report(desk, now);
        Served::Open { n_bytes }
    }

    /// Returns true when a file ends with a line that somebody else has just begun,
    /// being alone with it then, and is about to end.
    fn is_waiting(&self, desk: &Desk, now: Instant) -> bool {
        let writer = self.writer();
        let is_begun = self.links.iter().any(|link| {
            let begun_at = desk.ways.files.begun_at(&link.path, writer);
            begun_at.is_some_and(|at| now < at + HOLD)
        });
        is_begun && self.close_at.is_none()
    }

    /// Moves what the pipe holds to its file.
    fn splice(&mut self, desk: &mut Desk, now: Instant) -> Spliced {
        let [link] = self.links.as_slice() else {
            return Spliced::Unfit;
        };
        if !self.is_raw || link.is_torn {
            return Spliced::Unfit;
        }
        let path = Arc::clone(&link.path);
        let writer = self.writer();
        let is_by_line = desk.ways.outlet.is_subscribed() || desk.ways.files.is_shared(&path);
        let is_held = is_by_line && self.framer.n_held() > 0;
        if is_held || !desk.ways.files.may_take(&path, writer) {
            return Spliced::Unfit;
        }
        let mut n_max = MOVE_BYTES;
        if is_by_line {
            match desk.peek.look(self.fd.as_fd(), &mut desk.buffer) {
                Ok(n) => n_max = complete(&desk.buffer[..n]),
                Err(Errno::AGAIN) => return Spliced::Empty,
                Err(_) => return Spliced::Unfit,
            }
            if n_max == 0 {
                return Spliced::Unfit;
            }
        } else {
            self.flush_held(desk, now);
        }
        let files = &mut desk.ways.files;
        let n_bytes = match files.take(&path, writer, self.fd.as_fd(), n_max, now) {
            Ok(moved) => moved.n_bytes,
            Err(Errno::AGAIN) => return Spliced::Empty,
            Err(_) => return Spliced::Unfit,
        };
        self.losses.succeeded();
        if is_by_line {
            let at_ms = desk.clock.now().unix_ms;
            let losses = &mut self.losses;
            let text = &desk.buffer[..n_bytes];
            desk.ways.outlet.text(self.origin, text, at_ms, losses);
        }
        Spliced::Moved(n_bytes)
    }

    /// Does what time has come for. [`Served::Ended`] when the pipe is to be closed.
    pub(super) fn tick(&mut self, desk: &mut Desk, now: Instant) -> Served {
        if self.release_at.is_some_and(|at| now >= at) {
            self.release_at = None;
            let civil = desk.clock.now();
            self.framer.release(&civil, &mut desk.out);
            self.deliver_out(desk, civil.unix_ms, now);
        }
        if self.report_at.is_some_and(|at| now >= at) {
            self.report(desk, now);
        }
        if self.close_at.is_some_and(|at| now >= at) {
            self.serve(desk, now);
            return Served::Ended;
        }
        Served::Open { n_bytes: 0 }
    }

    /// Writes what is held and lets go of the files.
    pub(super) fn close(mut self, desk: &mut Desk, now: Instant) {
        let civil = desk.clock.now();
        self.framer.finish(&civil, &mut desk.out);
        self.deliver_out(desk, civil.unix_ms, now);
        let losses = &mut self.losses;
        desk.ways.outlet.report_rest(self.origin.pm_id, losses, now);
        let writer = self.writer();
        for link in &self.links {
            desk.ways.files.release(&link.path, writer);
        }
        if self.pipe == Pipe::Enlarged {
            desk.n_enlarged -= 1;
        }
    }

    /// Returns true when complete lines go to the file as they are: nobody has to
    /// be told.
    fn is_direct(&self, desk: &Desk) -> bool {
        self.is_disabled || (self.is_raw && !desk.ways.outlet.is_subscribed())
    }

    fn write_direct(&mut self, n: usize, desk: &mut Desk, now: Instant) {
        if self.is_disabled {
            return;
        }
        let complete = complete(&desk.buffer[..n]);
        if complete > 0 {
            self.flush_held(desk, now);
            self.append(&desk.buffer[..complete], &mut desk.ways, now);
        }
        self.write_framed(complete..n, desk, now);
    }

    /// Writes the beginning of a raw line that was held.
    fn flush_held(&mut self, desk: &mut Desk, now: Instant) {
        // Raw bytes do not depend on the time.
        self.framer.finish(&Civil::at(0, 0), &mut desk.out);
        self.deliver_out(desk, 0, now);
        self.release_at = None;
    }

    /// Writes a part of the read buffer through the framer.
    fn write_framed(&mut self, part: Range<usize>, desk: &mut Desk, now: Instant) {
        let Range { mut start, end } = part;
        let mut is_new_line = false;
        let civil = desk.clock.now();
        while start < end {
            start += self
                .framer
                .push(&desk.buffer[start..end], &civil, &mut desk.out);
            is_new_line |= !desk.out.is_empty();
            self.deliver_out(desk, civil.unix_ms, now);
        }
        if self.framer.n_held() == 0 {
            self.release_at = None;
        } else if is_new_line || self.release_at.is_none() {
            self.release_at = Some(now + HOLD);
        }
    }

    /// Writes what is in the output buffer and empties it.
    fn deliver_out(&mut self, desk: &mut Desk, at_ms: i64, now: Instant) {
        if desk.out.is_empty() {
            return;
        }
        self.append(&desk.out, &mut desk.ways, now);
        let losses = &mut self.losses;
        desk.ways.outlet.text(self.origin, &desk.out, at_ms, losses);
        desk.out.clear();
        desk.out.shrink_to(KEEP_OUT_BYTES);
    }

    fn writer(&self) -> Writer {
        Writer {
            run: self.origin.run,
            stream: self.origin.stream,
        }
    }

    fn append(&mut self, bytes: &[u8], ways: &mut Ways, now: Instant) {
        let writer = self.writer();
        let mut failure = None;
        for link in &mut self.links {
            let whole = link.skip_torn_line(bytes);
            let mut n_lost = bytes.len() - whole.len();
            if let Err(loss) = ways.files.append(&link.path, writer, whole, now) {
                n_lost += loss.n_bytes;
                link.is_torn = whole.last().is_some_and(|byte| *byte != b'\n');
                failure = Some((Arc::clone(&link.path), loss.error));
            }
            if n_lost > 0 {
                ways.outlet.unwritten(&mut self.losses, n_lost);
            }
        }
        match failure {
            Some((path, error)) => self.losses.failed(format!("{path}: {error}")),
            None => self.losses.succeeded(),
        }
    }

    fn report(&mut self, desk: &mut Desk, now: Instant) {
        let losses = &mut self.losses;
        desk.ways.outlet.report(self.origin.pm_id, losses, now);
        self.report_at = losses.due_at(now);
    }

    fn enlarge_pipe(&mut self, desk: &mut Desk) {
        if self.pipe != Pipe::AsMade || desk.n_enlarged == ENLARGED_MAX {
            return;
        }
        self.pipe = match rustix::pipe::fcntl_setpipe_size(&self.fd, PIPE_BYTES) {
            Ok(_) => {
                desk.n_enlarged += 1;
                Pipe::Enlarged
            }
            Err(_) => Pipe::Refused,
        };
    }
}

impl Link {
    /// Returns the part of `bytes` that does not belong to a line whose beginning
    /// was lost.
    fn skip_torn_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if !self.is_torn {
            return bytes;
        }
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(newline) => {
                self.is_torn = false;
                &bytes[newline + 1..]
            }
            None => &[],
        }
    }
}

/// Returns the length of the complete lines at the beginning of `bytes`.
fn complete(bytes: &[u8]) -> usize {
    let newline = bytes.iter().rposition(|byte| *byte == b'\n');
    newline.map_or(0, |at| at + 1)
}
