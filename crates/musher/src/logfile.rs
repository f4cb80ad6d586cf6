//! Reads the end of log files, for `musher logs`.
//!
//! A file is read backwards in blocks, so ten gigabytes cost as much as the lines
//! asked for. Following is done over the bus; nothing here waits for a file to
//! grow, and nothing is changed in the bytes: making them safe for a terminal is
//! the printer's.

use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One read.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Bytes of one file that are read at most; older lines are left out.
const TAIL_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Width of the label of a tailed line, as PM2 pads and cuts it.
const LABEL_WIDTH: usize = 10;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read the log file {}", path.display())]
pub(crate) struct LogFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What of a block may be coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The line that names the file.
    Heading,
    /// What stands before a line.
    Label,
}

/// The last lines of one log file.
#[derive(Debug)]
pub(crate) struct TailBlock {
    /// The file.
    pub(crate) path: PathBuf,
    /// Lines asked for.
    pub(crate) n_lines: usize,
    /// When the file was written last; PM2 shows blocks in this order.
    pub(crate) modified: SystemTime,
    /// The bytes of the last lines.
    text: Vec<u8>,
}

impl TailBlock {
    /// Reads the last `n_lines` lines of a file; `None` when there is no such file.
    ///
    /// # Errors
    /// [`LogFileError`] when it is there and cannot be read.
    pub(crate) fn read(path: &Path, n_lines: usize) -> Result<Option<TailBlock>, LogFileError> {
        // A FIFO would wait for its writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = match File::options().read(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened,
        };
        opened
            .and_then(|file| {
                let metadata = file.metadata()?;
                Ok(Some(TailBlock {
                    path: path.to_owned(),
                    n_lines,
                    modified: metadata.modified()?,
                    text: tail(&file, metadata.len(), n_lines)?,
                }))
            })
            .map_err(|source| LogFileError {
                path: path.to_owned(),
                source,
            })
    }

    /// Returns the lines, oldest first, without their newlines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
    }

    /// Writes the block as PM2 does: `<path> last <n> lines:`, then the lines
    /// behind the label. `paint` may put colours around a part.
    ///
    /// # Errors
    /// Those of `out`.
    pub(crate) fn write(
        &self,
        label: &str,
        paint: impl Fn(Part, &str) -> String,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let heading = format!("{} last {} lines:", self.path.display(), self.n_lines);
        writeln!(out, "{}", paint(Part::Heading, &heading))?;
        let label = format!("{label:<LABEL_WIDTH$.LABEL_WIDTH$} | ");
        let label = paint(Part::Label, &label);
        for line in self.lines() {
            write!(out, "{label}")?;
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Returns the label of a process's lines: `<id>|<name>`.
pub(crate) fn label(pm_id: musher_core::id::PmId, name: &str) -> String {
    format!("{pm_id}|{name}")
}

/// Returns the last `n_lines` lines of the first `length` bytes of a file. A file
/// that is truncated meanwhile gives what is still there.
fn tail(file: &File, length: u64, n_lines: usize) -> io::Result<Vec<u8>> {
    if n_lines == 0 {
        return Ok(Vec::new());
    }
    let floor = length.saturating_sub(TAIL_MAX_BYTES);
    let mut blocks = Vec::new();
    let mut end = length;
    let mut n_left = n_lines;
    while end > floor {
        let start = end.saturating_sub(BLOCK_BYTES).max(floor);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
        let n = read_at(file, &mut block, start)?;
        block.truncate(n);
        // The newline that ends the last line does not begin another.
        let is_last = end == length;
        let counted = block.len() - usize::from(is_last && block.ends_with(b"\n"));
        if let Some(begin) = nth_line_from_end(&block[..counted], &mut n_left) {
            block.drain(..begin);
            blocks.push(block);
            break;
        }
        blocks.push(block);
        end = start;
    }
    blocks.reverse();
    Ok(blocks.concat())
}

/// Returns where the wanted line begins, or counts the newlines down.
fn nth_line_from_end(block: &[u8], n_left: &mut usize) -> Option<usize> {
    for (at, byte) in block.iter().enumerate().rev() {
        if *byte == b'\n' {
            *n_left -= 1;
            if *n_left == 0 {
                return Some(at + 1);
            }
        }
    }
    None
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut n_read = 0;
    while n_read < buffer.len() {
        match file.read_at(&mut buffer[n_read..], offset + n_read as u64) {
            Ok(0) => break,
            Ok(n) => n_read += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n_read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use musher_core::id::PmId;
    use proptest::prelude::*;
    use std::time::Instant;

    fn tail_of(bytes: &[u8], n_lines: usize) -> TailBlock {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        std::fs::write(&path, bytes).unwrap();
        TailBlock::read(&path, n_lines).unwrap().unwrap()
    }

    #[test]
    fn the_block_looks_as_in_pm2() {
        let mut block = tail_of(b"one\ntwo\nthree", 2);
        block.path = PathBuf::from("/l/tick-out.log");
        let mut out = Vec::new();
        let plain = |_, text: &str| text.to_owned();
        block
            .write(&label(PmId(0), "tick"), plain, &mut out)
            .unwrap();
        block
            .write(&label(PmId(12), "very-long"), plain, &mut out)
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "/l/tick-out.log last 2 lines:\n\
             0|tick     | two\n\
             0|tick     | three\n\
             /l/tick-out.log last 2 lines:\n\
             12|very-lo | two\n\
             12|very-lo | three\n"
        );
    }

    #[test]
    fn a_missing_file_is_none_and_a_directory_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let missing = TailBlock::read(&dir.path().join("no.log"), 5).unwrap();
        assert!(missing.is_none());
        let error = TailBlock::read(dir.path(), 5).unwrap_err();
        assert!(error.to_string().starts_with("could not read the log file"));
    }

    #[test]
    fn a_huge_file_is_tailed_in_milliseconds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let file = File::create(&path).unwrap();
        let length = 10 * 1024 * 1024 * 1024;
        file.set_len(length).unwrap();
        file.write_all_at(b"\nlast but one\nlast\n", length)
            .unwrap();
        let started = Instant::now();
        let block = TailBlock::read(&path, 2).unwrap().unwrap();
        assert!(started.elapsed().as_millis() < 500);
        let lines: Vec<&[u8]> = block.lines().collect();
        assert_eq!(lines, [b"last but one".as_slice(), b"last"]);
    }

    #[test]
    fn a_file_of_one_endless_line_is_read_up_to_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let file = File::create(&path).unwrap();
        file.set_len(TAIL_MAX_BYTES * 2).unwrap();
        let block = TailBlock::read(&path, 1).unwrap().unwrap();
        assert_eq!(block.text.len() as u64, TAIL_MAX_BYTES);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_tail_is_the_end_of_the_file(
            lengths in prop::collection::vec(0..30_000usize, 0..12),
            ends_with_newline in any::<bool>(),
            n_lines in 0..15usize,
        ) {
            let mut text = lengths
                .iter()
                .map(|length| "x".repeat(*length))
                .collect::<Vec<_>>()
                .join("\n");
            if ends_with_newline && !text.is_empty() {
                text.push('\n');
            }
            let expected: Vec<&str> = text.split_terminator('\n').collect();
            let expected = &expected[expected.len().saturating_sub(n_lines)..];
            let block = tail_of(text.as_bytes(), n_lines);
            let lines: Vec<&[u8]> = block.lines().collect();
            prop_assert!(lines == expected.iter().map(|l| l.as_bytes()).collect::<Vec<_>>());
        }
    }
}
