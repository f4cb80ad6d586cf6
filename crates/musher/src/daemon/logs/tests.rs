//! Real pipes, real children, real files.

use super::outlet::SUBSCRIBED_MAX_BYTES;
use super::source::LAST_WORDS;
use super::*;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Longest wait for anything; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

struct Harness {
    pump: LogPump,
    events: Receiver<LogEvent>,
    dir: tempfile::TempDir,
}

impl Harness {
    fn new() -> Harness {
        Harness::with_queue(1024)
    }

    fn with_queue(n_events: usize) -> Harness {
        let (sender, events) = sync_channel(n_events);
        Harness {
            pump: LogPump::start(sink(sender)).unwrap(),
            events,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Names a file in the scratch directory for an [`Output`].
    fn file(&self, name: &str) -> Option<String> {
        Some(self.path(name).to_str().unwrap().to_owned())
    }

    /// Attaches a pipe and returns its writing end.
    fn attach(&self, run: u64, stream: Stream, output: &Output) -> PipeWriter {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        self.pump.attach(Source {
            run: Incarnation(run),
            pm_id: PmId(run as u32),
            name: Arc::from("app"),
            stream,
            fd: reader,
            output: output.clone(),
        });
        PipeWriter::from(writer)
    }

    fn spawn(&self, run: u64, argv: &[&str], output: &Output) -> Child {
        Program::new(argv[0])
            .args(&argv[1..])
            .stdin(Stdio::null())
            .stdout(self.attach(run, Stream::Out, output))
            .spawn()
            .unwrap()
    }

    /// Runs a program to its end and waits for its last words.
    fn run(&self, argv: &[&str], output: &Output) {
        self.spawn(1, argv, output).wait().unwrap();
        self.finish(1);
    }

    /// Finishes a run while others may end.
    fn finish_among(&self, run: u64) {
        self.pump.finish(Incarnation(run));
        let is_end = |event: &LogEvent| matches!(event, LogEvent::Drained { run: drained } if *drained == Incarnation(run));
        while !is_end(&self.events.recv_timeout(DEADLINE).unwrap()) {}
    }

    /// Finishes a run; returns what was said until it was drained.
    fn finish(&self, run: u64) -> Vec<LogEvent> {
        self.pump.finish(Incarnation(run));
        let mut said = Vec::new();
        loop {
            match self.events.recv_timeout(DEADLINE).unwrap() {
                LogEvent::Drained { run: drained } => {
                    assert_eq!(drained, Incarnation(run));
                    return said;
                }
                event => said.push(event),
            }
        }
    }
}

fn sink(sender: SyncSender<LogEvent>) -> Sink {
    Box::new(move |event| match sender.try_send(event) {
        Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
        Err(TrySendError::Full(event)) => Err(event),
    })
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).unwrap()).unwrap()
}

/// Returns the numbers 1 to `n`, one a line, as seq(1) prints them.
fn numbers(n: usize) -> String {
    (1..=n).map(|number| format!("{number}\n")).collect()
}

fn texts(events: &[LogEvent]) -> Vec<u8> {
    let mut all = Vec::new();
    for event in events {
        match event {
            LogEvent::Text { text, .. } => all.extend_from_slice(text),
            LogEvent::Lost { .. } | LogEvent::Drained { .. } => {}
        }
    }
    all
}

#[test]
fn a_raw_flood_arrives_byte_for_byte() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("logs/app-out.log"),
        ..Output::default()
    };
    harness.run(&["seq", "1", "2000000"], &output);
    assert!(read(&harness.path("logs/app-out.log")) == numbers(2_000_000));
    assert_eq!(harness.pump.lost_bytes(), 0);
}

#[test]
fn a_dated_flood_has_every_line_once_with_one_prefix() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        date_format: Some("YYYY-MM-DDTHH:mm:ss".to_owned()),
        ..Output::default()
    };
    harness.run(&["seq", "1", "500000"], &output);
    let text = read(&harness.path("out.log"));
    let mut n_lines = 0;
    for (line, number) in text.lines().zip(1..) {
        let (date, rest) = line.split_once(": ").unwrap();
        assert_eq!(date.len(), "2026-03-05T14:37:04".len(), "{line}");
        assert_eq!(rest.parse(), Ok(number), "{line}");
        n_lines = number;
    }
    assert_eq!(n_lines, 500_000);
}

#[test]
fn a_json_flood_is_one_record_per_line() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        json: true,
        ..Output::default()
    };
    harness.run(&["seq", "1", "100000"], &output);
    let text = read(&harness.path("out.log"));
    let mut n_records = 0;
    for (line, number) in text.lines().zip(1..) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["message"], number.to_string());
        assert_eq!(record["app_name"], "app");
        assert_eq!(record["process_id"], 1);
        assert_eq!(record["type"], "out");
        n_records = number;
    }
    assert_eq!(n_records, 100_000);
}

#[test]
fn one_write_per_line_gives_the_same_file() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        ..Output::default()
    };
    let script = "i=1; while [ $i -le 20000 ]; do echo $i; i=$((i+1)); done";
    harness.run(&["sh", "-c", script], &output);
    assert!(read(&harness.path("out.log")) == numbers(20_000));
}

#[test]
fn four_writers_of_a_merged_file_never_share_a_line() {
    let date = Some("HH:mm:ss".to_owned());
    for (date_format, is_combined) in [(None, true), (None, false), (date, true)] {
        let harness = Harness::new();
        let combined = || harness.file("combined.log");
        let output = Output {
            out: harness.file("merged.log"),
            combined: is_combined.then(combined).flatten(),
            date_format,
            ..Output::default()
        };
        let mut children: Vec<Child> = (1..=4)
            .map(|run| {
                let line = format!("writer {run} says %.0f");
                harness.spawn(run, &["seq", "-f", &line, "1", "50000"], &output)
            })
            .collect();
        for (child, run) in children.iter_mut().zip(1..) {
            child.wait().unwrap();
            harness.finish(run);
        }
        let names = ["merged.log", "combined.log"];
        for name in &names[..1 + usize::from(is_combined)] {
            let text = read(&harness.path(name));
            let mut last = [0; 5];
            for line in text.lines() {
                let said = line.split_once(": ").map_or(line, |(_, said)| said);
                let words: Vec<&str> = said.split(' ').collect();
                assert_eq!((words.len(), words[0], words[2]), (4, "writer", "says"));
                let writer: usize = words[1].parse().unwrap();
                assert_eq!(words[3].parse(), Ok(last[writer] + 1), "{line}");
                last[writer] += 1;
            }
            assert_eq!(last, [0, 50_000, 50_000, 50_000, 50_000], "{name}");
        }
    }
}

#[test]
fn the_combined_file_has_both_streams_and_each_its_own() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        err: harness.file("err.log"),
        combined: harness.file("all.log"),
        ..Output::default()
    };
    let script = "seq 1 1000; seq 1001 2000 >&2";
    let mut child = Program::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(harness.attach(1, Stream::Out, &output))
        .stderr(harness.attach(1, Stream::Err, &output))
        .spawn()
        .unwrap();
    child.wait().unwrap();
    harness.finish(1);
    let both = numbers(2000);
    let out = read(&harness.path("out.log"));
    let err = read(&harness.path("err.log"));
    assert_eq!(format!("{out}{err}"), both);
    let mut all: Vec<u32> = read(&harness.path("all.log"))
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    all.sort_unstable();
    assert_eq!(all, (1..=2000).collect::<Vec<u32>>());
}

#[test]
fn the_last_words_of_a_killed_process_are_kept() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        date_format: Some("[t]".to_owned()),
        ..Output::default()
    };
    let script = "seq 1 5000; printf unfinished; kill -KILL $$";
    harness.run(&["sh", "-c", script], &output);
    let mut expected: String = (1..=5000).map(|n| format!("t: {n}\n")).collect();
    expected.push_str("t: unfinished\n");
    assert!(read(&harness.path("out.log")) == expected);
}

#[test]
fn a_grandchild_that_keeps_the_pipe_delays_the_end_by_two_seconds_only() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        ..Output::default()
    };
    let started = Instant::now();
    harness.run(&["sh", "-c", "sleep 60 & echo $!"], &output);
    let waited = started.elapsed();
    let pid: i32 = read(&harness.path("out.log")).trim().parse().unwrap();
    let grandchild = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(grandchild, rustix::process::Signal::KILL).unwrap();
    assert!(waited >= LAST_WORDS, "{waited:?}");
    assert!(waited < LAST_WORDS * 3, "{waited:?}");
}

#[test]
fn a_run_without_pipes_is_drained_at_once() {
    let harness = Harness::new();
    assert!(harness.finish(9).is_empty());
}

#[test]
fn a_deleted_file_is_made_anew_by_reopen() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("logs/out.log"),
        ..Output::default()
    };
    let path = harness.path("logs/out.log");
    let mut writer = harness.attach(1, Stream::Out, &output);
    writer.write_all(b"before\n").unwrap();
    wait_until("the first line", || {
        std::fs::read(&path).is_ok_and(|text| text == b"before\n")
    });
    std::fs::remove_dir_all(harness.path("logs")).unwrap();
    let done = harness.pump.reopen();
    done.recv_timeout(DEADLINE).unwrap();
    writer.write_all(b"after\n").unwrap();
    drop(writer);
    harness.finish(1);
    assert_eq!(read(&path), "after\n");
}

#[test]
fn a_file_truncated_meanwhile_has_no_hole() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        ..Output::default()
    };
    let path = harness.path("out.log");
    let mut writer = harness.attach(1, Stream::Out, &output);
    writer.write_all(b"rotated away\n").unwrap();
    wait_until("the first line", || {
        std::fs::read(&path).is_ok_and(|text| !text.is_empty())
    });
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    writer.write_all(b"kept\n").unwrap();
    drop(writer);
    harness.finish(1);
    assert_eq!(read(&path), "kept\n");
}

/// Every line as the number it is; those of another writer are left out.
fn own_numbers(text: &str) -> Vec<usize> {
    let own = text.lines().filter(|line| *line != "theirs");
    own.map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_second_writer_of_the_file_costs_nobody_a_line() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        ..Output::default()
    };
    let path = harness.path("out.log");
    let mut writer = harness.attach(1, Stream::Out, &output);
    writer.write_all(b"0\n").unwrap();
    wait_until("the first line", || {
        std::fs::read(&path).is_ok_and(|text| text == b"0\n")
    });
    // Answered between two rounds: the first of theirs meets an idle file.
    harness.pump.reopen().recv_timeout(DEADLINE).unwrap();
    let mut other = std::fs::File::options().append(true).open(&path).unwrap();
    for n in 1..=500 {
        other.write_all(b"theirs\n").unwrap();
        writeln!(writer, "{n}").unwrap();
    }
    drop(writer);
    harness.finish(1);
    let text = read(&path);
    assert_eq!(own_numbers(&text), (0..=500).collect::<Vec<_>>());
    assert_eq!(text.lines().filter(|line| *line == "theirs").count(), 500);
}

#[test]
fn subscribers_and_sharers_that_come_and_go_change_no_byte() {
    let harness = Harness::with_queue(4);
    let output = Output {
        out: harness.file("out.log"),
        ..Output::default()
    };
    let mut writer = harness.attach(1, Stream::Out, &output);
    let mut expected = Vec::new();
    let mut sharer = None;
    for round in 0..400_usize {
        harness.pump.set_subscribers(usize::from(round % 3 == 1));
        if round % 5 == 0 {
            let run = 2 + round as u64;
            let was = sharer.replace((run, harness.attach(run, Stream::Out, &output)));
            if let Some((run, end)) = was {
                drop(end);
                harness.pump.finish(Incarnation(run));
            }
        }
        // Begun lines and long ones; the pipe is sometimes empty in between.
        let chunk = "x".repeat(round * 7 % 3000) + ["\n", ""][round % 2];
        writer.write_all(chunk.as_bytes()).unwrap();
        expected.extend_from_slice(chunk.as_bytes());
        if round % 4 == 0 {
            std::thread::yield_now();
        }
    }
    drop((writer, sharer));
    harness.pump.set_subscribers(0);
    harness.finish_among(1);
    assert!(std::fs::read(harness.path("out.log")).unwrap() == expected);
}

#[test]
fn a_file_moved_away_is_complete_and_the_next_one_begins_where_it_ended() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        ..Output::default()
    };
    let mut child = harness.spawn(1, &["seq", "1", "100000000"], &output);
    let mut all = String::new();
    for n in 0..5 {
        wait_until("some output", || {
            std::fs::metadata(harness.path("out.log")).is_ok_and(|file| file.len() > 0)
        });
        let rotated = harness.path(&format!("out.log.{n}"));
        std::fs::rename(harness.path("out.log"), &rotated).unwrap();
        let done = harness.pump.reopen();
        done.recv_timeout(DEADLINE).unwrap();
        all += &read(&rotated);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    harness.finish(1);
    all += &read(&harness.path("out.log"));
    // The last line is cut by the kill.
    let (whole, begun) = all.rsplit_once('\n').unwrap();
    let n_lines = whole.lines().count();
    assert!(whole == numbers(n_lines).trim_end());
    assert!((n_lines + 1).to_string().starts_with(begun));
}

#[test]
fn raw_bytes_are_exact_with_and_without_subscribers() {
    for n_subscribers in [0, 1] {
        let harness = Harness::new();
        harness.pump.set_subscribers(n_subscribers);
        let output = Output {
            out: harness.file("out.log"),
            ..Output::default()
        };
        // Every byte value, lines of all lengths, an unfinished end.
        let mut state = 7_u32;
        let bytes: Vec<u8> = (0..1_000_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut writer = harness.attach(1, Stream::Out, &output);
        for chunk in bytes.chunks(997) {
            writer.write_all(chunk).unwrap();
        }
        drop(writer);
        let events = harness.finish(1);
        assert!(std::fs::read(harness.path("out.log")).unwrap() == bytes);
        let expected = if n_subscribers == 0 { &[] } else { &bytes[..] };
        assert!(texts(&events) == expected);
    }
}

#[test]
fn a_subscriber_that_reads_nothing_gets_a_counted_gap_and_delays_nobody() {
    let harness = Harness::with_queue(4);
    harness.pump.set_subscribers(1);
    let output = Output {
        out: harness.file("out.log"),
        ..Output::default()
    };
    let mut child = harness.spawn(1, &["seq", "1", "1000000"], &output);
    child.wait().unwrap();
    let expected = numbers(1_000_000);
    wait_until("the whole file", || {
        std::fs::metadata(harness.path("out.log"))
            .is_ok_and(|file| file.len() == expected.len() as u64)
    });
    // The queue is full; the end of the run must come through all the same.
    let events = harness.finish(1);
    assert!(read(&harness.path("out.log")) == expected);
    let text = texts(&events);
    assert!(text.len() <= SUBSCRIBED_MAX_BYTES);
    assert!(expected.as_bytes().starts_with(&text));
    assert_eq!(harness.pump.lost_bytes(), 0, "files lost nothing");
}

#[test]
fn a_subscriber_that_wakes_up_is_told_how_much_it_missed() {
    let harness = Harness::with_queue(2);
    harness.pump.set_subscribers(1);
    let output = Output::default();
    let mut writer = harness.attach(1, Stream::Out, &output);
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    let n_lines = 20_000;
    for _ in 0..n_lines {
        writer.write_all(&line).unwrap();
    }
    let (mut n_read, mut n_missed) = (0, 0);
    wait_until("every byte to be read or reported", || {
        while let Ok(event) = harness.events.try_recv() {
            match event {
                LogEvent::Text { text, .. } => n_read += text.len() as u64,
                LogEvent::Lost { bytes, reason, .. } => {
                    assert_eq!(reason, LossReason::Subscriber);
                    n_missed += bytes;
                }
                LogEvent::Drained { .. } => {}
            }
        }
        n_read + n_missed >= n_lines * 100 || {
            std::thread::sleep(Duration::from_millis(1));
            false
        }
    });
    assert!(n_read > 0);
}

#[test]
fn disabled_logs_make_neither_files_nor_events() {
    let harness = Harness::new();
    harness.pump.set_subscribers(1);
    let output = Output {
        out: harness.file("out.log"),
        disabled: true,
        ..Output::default()
    };
    let mut writer = harness.attach(1, Stream::Out, &output);
    writer.write_all(b"nobody hears\n").unwrap();
    drop(writer);
    assert!(harness.finish(1).is_empty());
    assert!(!harness.path("out.log").exists());
}

#[test]
fn no_file_still_makes_events() {
    let harness = Harness::new();
    harness.pump.set_subscribers(1);
    let output = Output {
        err: Some("/dev/null".to_owned()),
        date_format: Some("[at]".to_owned()),
        ..Output::default()
    };
    for stream in [Stream::Out, Stream::Err] {
        let mut writer = harness.attach(1, stream, &output);
        writer.write_all(b"heard\n").unwrap();
        drop(writer);
        assert_eq!(texts(&harness.finish(1)), b"at: heard\n");
    }
}

#[test]
fn a_prompt_without_newline_is_shown_after_a_while() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        date_format: Some("[t]".to_owned()),
        ..Output::default()
    };
    let mut writer = harness.attach(1, Stream::Out, &output);
    writer.write_all(b"name? ").unwrap();
    wait_until("the prompt", || {
        std::fs::read(harness.path("out.log")).is_ok_and(|text| text == b"t: name? ")
    });
    writer.write_all(b"me\n").unwrap();
    drop(writer);
    harness.finish(1);
    assert_eq!(read(&harness.path("out.log")), "t: name? me\n");
}

#[test]
fn a_begun_line_does_not_spoil_the_line_of_another_process() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("merged.log"),
        ..Output::default()
    };
    let path = harness.path("merged.log");
    let mut slow = harness.attach(1, Stream::Out, &output);
    let mut quick = harness.attach(2, Stream::Out, &output);
    slow.write_all(b"name? ").unwrap();
    wait_until("the prompt", || {
        std::fs::read(&path).is_ok_and(|text| text == b"name? ")
    });
    quick.write_all(b"whole\n").unwrap();
    drop(quick);
    harness.finish(2);
    slow.write_all(b"me\n").unwrap();
    drop(slow);
    harness.finish(1);
    assert_eq!(read(&path), "name? \nwhole\nme\n");
}

#[test]
fn a_full_device_loses_only_its_own_copy_and_says_so() {
    let harness = Harness::new();
    let output = Output {
        out: Some("/dev/full".to_owned()),
        combined: harness.file("all.log"),
        ..Output::default()
    };
    let mut child = harness.spawn(1, &["seq", "1", "300000"], &output);
    child.wait().unwrap();
    let events = harness.finish(1);
    let expected = numbers(300_000);
    assert!(read(&harness.path("all.log")) == expected);
    assert_eq!(harness.pump.lost_bytes(), expected.len() as u64);
    let mut n_reported = 0;
    for event in &events {
        match event {
            LogEvent::Lost { bytes, reason, .. } => {
                assert!(
                    matches!(reason, LossReason::File(text) if text.starts_with("/dev/full: ")),
                    "{reason:?}"
                );
                n_reported += bytes;
            }
            LogEvent::Text { .. } | LogEvent::Drained { .. } => panic!("{event:?}"),
        }
    }
    assert_eq!(n_reported, expected.len() as u64);
    assert!(events.len() <= 3, "one report a minute: {events:?}");
}

/// A small file system that is unmounted in the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Returns `None` where mounting is not allowed.
    fn mount(path: PathBuf) -> Option<Tmpfs> {
        std::fs::create_dir(&path).unwrap();
        let status = Program::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null())
            .status();
        status
            .is_ok_and(|status| status.success())
            .then_some(Tmpfs(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Program::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Without the right to mount, a directory in the file's place is the failure
/// that goes away.
#[test]
fn writing_goes_on_by_itself_when_the_disk_has_room_again() {
    check_recovery(Some("[t]".to_owned()), "t: ");
    check_recovery(None, "");
}

fn check_recovery(date_format: Option<String>, prefix: &str) {
    let harness = Harness::new();
    let disk = Tmpfs::mount(harness.path("disk"));
    let path = harness.path("disk/out.log");
    let ballast = harness.path("disk/ballast");
    if disk.is_some() {
        std::fs::write(&ballast, [0; 128 * 1024]).unwrap();
    } else {
        std::fs::create_dir(&path).unwrap();
    }
    let output = Output {
        out: harness.file("disk/out.log"),
        date_format,
        ..Output::default()
    };
    let mut writer = harness.attach(1, Stream::Out, &output);
    // More than the disk and the pipe hold: this blocks unless losses are taken.
    for number in 0..200_000 {
        writeln!(writer, "<{number}>").unwrap();
    }
    wait_until("a loss", || harness.pump.lost_bytes() > 0);
    if disk.is_some() {
        std::fs::remove_file(&ballast).unwrap();
    } else {
        std::fs::remove_dir(&path).unwrap();
    }
    wait_until("a line after the failure", || {
        writeln!(writer, "<again>").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        std::fs::read(&path).is_ok_and(|text| text.ends_with(b"<again>\n"))
    });
    drop(writer);
    let events = harness.finish(1);
    let text = read(&path);
    let is_whole = |line: &&str| {
        line.strip_prefix(prefix)
            .and_then(|line| line.strip_prefix('<')?.strip_suffix('>'))
            .is_some_and(|said| said == "again" || said.parse::<u32>().is_ok())
    };
    let broken: Vec<&str> = text.lines().filter(|line| !is_whole(line)).collect();
    // The one the disk had no room for, ended.
    assert!(broken.len() <= 1, "{broken:?}");
    assert!(!broken.iter().any(|line| line.ends_with('>')), "{broken:?}");
    let n_reported: u64 = events
        .iter()
        .map(|event| match event {
            LogEvent::Lost { bytes, .. } => *bytes,
            LogEvent::Text { .. } | LogEvent::Drained { .. } => 0,
        })
        .sum();
    assert_eq!(n_reported, harness.pump.lost_bytes());
}

#[test]
fn the_rest_of_a_line_whose_beginning_was_lost_is_left_out() {
    let harness = Harness::new();
    let path = harness.path("out.log");
    std::fs::create_dir(&path).unwrap();
    let output = Output {
        out: harness.file("out.log"),
        ..Output::default()
    };
    let mut torn = harness.attach(1, Stream::Out, &output);
    let mut probe = harness.attach(2, Stream::Out, &output);
    torn.write_all(b"half").unwrap();
    wait_until("the loss", || harness.pump.lost_bytes() == 4);
    std::fs::remove_dir(&path).unwrap();
    wait_until("the file", || {
        probe.write_all(b"probe\n").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        path.is_file()
    });
    torn.write_all(b" rest\nwhole\n").unwrap();
    drop((torn, probe));
    harness.finish(1);
    harness.finish(2);
    let text = read(&path);
    let others: Vec<&str> = text.lines().filter(|line| *line != "probe").collect();
    assert_eq!(others, ["whole"]);
}

#[test]
fn a_flood_does_not_keep_others_waiting() {
    let harness = Harness::new();
    let flood = Output {
        out: harness.file("flood.log"),
        ..Output::default()
    };
    let quiet = Output {
        out: harness.file("quiet.log"),
        ..Output::default()
    };
    let mut child = harness.spawn(1, &["seq", "1", "100000000"], &flood);
    let mut writer = harness.attach(2, Stream::Out, &quiet);
    wait_until("the flood", || {
        std::fs::metadata(harness.path("flood.log")).is_ok_and(|file| file.len() > 1 << 20)
    });
    let started = Instant::now();
    writer.write_all(b"help\n").unwrap();
    wait_until("the quiet line", || {
        std::fs::read(harness.path("quiet.log")).is_ok_and(|text| text == b"help\n")
    });
    let waited = started.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    harness.finish(1);
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[test]
fn dropping_the_pump_writes_what_the_pipes_hold() {
    let harness = Harness::new();
    let output = Output {
        out: harness.file("out.log"),
        ..Output::default()
    };
    let mut writer = harness.attach(1, Stream::Out, &output);
    writer.write_all(numbers(1000).as_bytes()).unwrap();
    let Harness { pump, dir, .. } = harness;
    drop(pump);
    assert_eq!(read(&dir.path().join("out.log")), numbers(1000));
}
