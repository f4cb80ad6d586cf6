//! Log files: which ones there are, what stands in them, how they are changed.

use crate::harness::{Musher, kill};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

fn arg(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Prints its pid to both streams and lives on.
const SAYS: &str = "console.log(`out ${process.pid}`); console.error(`err ${process.pid}`);\n\
    setInterval(() => {}, 1000);\n";

fn files(musher: &Musher) -> Vec<String> {
    let logs = std::fs::read_dir(musher.home().join("logs"));
    let mut names: Vec<String> = logs
        .expect("a directory")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn instances_have_files_of_their_own_unless_merged() {
    for merged in [false, true] {
        let musher = Musher::new();
        let script = musher.write("app.js", SAYS);
        let mut line = vec!["start", arg(&script), "--name", "app", "-i", "2"];
        if merged {
            line.push("--merge-logs");
        }
        musher.ok(&line);
        let pids = musher.pids("app");
        let out: Vec<String> = pids.iter().map(|pid| format!("out {pid}\n")).collect();
        if merged {
            musher.wait("both lines", || {
                (musher.log("app-out.log").lines().count() == 2).then_some(())
            });
            let log = musher.log("app-out.log");
            assert_eq!(sorted(&log), sorted(&out.concat()));
            musher.wait("both errors", || {
                (musher.log("app-error.log").lines().count() == 2).then_some(())
            });
            assert_eq!(files(&musher), ["app-error.log", "app-out.log"]);
        } else {
            for (i, line) in out.iter().enumerate() {
                let file = format!("app-out-{i}.log");
                musher.wait("its line", || (musher.log(&file) == *line).then_some(()));
            }
            assert_eq!(
                files(&musher),
                [
                    "app-error-0.log",
                    "app-error-1.log",
                    "app-out-0.log",
                    "app-out-1.log"
                ]
            );
        }
    }
}

#[test]
fn the_combined_file_has_both_streams_of_all_instances() {
    let musher = Musher::new();
    musher.write("app.js", SAYS);
    let app = json!({ "name": "app", "script": "app.js", "instances": 2, "merge_logs": true,
                      "log_file": "all.log", "out_file": "/dev/null", "error_file": "NULL" });
    musher.start(&format!("module.exports = {app};"));
    let path = musher.cwd().join("all.log");
    let log = musher.wait("four lines", || {
        let log = std::fs::read_to_string(&path).ok()?;
        (log.lines().count() == 4).then_some(log)
    });
    let expected: String = musher
        .pids("app")
        .iter()
        .map(|pid| format!("out {pid}\nerr {pid}\n"))
        .collect();
    assert_eq!(sorted(&log), sorted(&expected));
    assert!(files(&musher).is_empty(), "{:?}", files(&musher));
    assert!(!musher.cwd().join("NULL").exists());
}

#[test]
fn every_line_gets_its_date_in_the_format_asked_for() {
    for (key, value, shape) in [
        ("time", json!(true), "0000-00-00T00:00:00: "),
        (
            "log_date_format",
            json!("YYYY/MM/DD HH-mm Z"),
            "0000/00/00 00-00 +00:00: ",
        ),
    ] {
        let musher = Musher::new();
        musher.write("app.js", "console.log('one\\n\\ntwo'); process.stdout.write('half'); setInterval(() => {}, 1000);");
        let mut app = json!({ "name": "app", "script": "app.js" });
        app[key] = value;
        musher.start(&format!("module.exports = {app};"));
        musher.wait("both lines", || musher.log_has("app", "two"));
        musher.ok(&["stop", "app"]);
        musher.wait("the words without an end", || {
            musher.log_has("app-out", "half")
        });
        let log = musher.log("app-out.log");
        let texts: Vec<&str> = log
            .lines()
            .map(|line| {
                let (date, text) = line.split_at(shape.len().min(line.len()));
                let digits: String = date
                    .chars()
                    .map(|c| if c.is_ascii_digit() { '0' } else { c })
                    .collect();
                assert_eq!(digits, shape, "{line}");
                text
            })
            .collect();
        assert_eq!(texts, ["one", "", "two", "half"], "{key}");
    }
}

#[test]
fn disabled_logs_leave_no_file_and_the_app_runs_on() {
    let musher = Musher::new();
    musher.write("app.js", "let n = 0; setInterval(() => { console.log('x'.repeat(1000)); require('fs').writeFileSync('n', String(++n)); }, 1);");
    let app = json!({ "name": "app", "script": "app.js", "disable_logs": true });
    musher.start(&format!("module.exports = {app};"));
    // More than a pipe holds: somebody reads it.
    musher.wait("200 lines", || {
        let n = std::fs::read_to_string(musher.cwd().join("n")).ok()?;
        (n.parse::<u32>().ok()? > 200).then_some(())
    });
    for file in files(&musher) {
        assert_eq!(musher.log(&file), "", "{file}");
    }
}

#[test]
fn a_rotated_file_is_opened_anew_and_no_line_is_lost() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    musher.wait("some lines", || musher.log_has("tick-out.log", "tick 20\n"));
    let logs = musher.home().join("logs");
    for i in 0..3 {
        std::fs::rename(
            logs.join("tick-out.log"),
            logs.join(format!("rotated-{i}.log")),
        )
        .expect("renamed");
        musher.ok(&["reloadLogs"]);
        musher.wait("lines in the fresh file", || {
            (musher.log("tick-out.log").lines().count() > 10).then_some(())
        });
    }
    musher.ok(&["stop", "tick"]);
    let parts = [
        "rotated-0.log",
        "rotated-1.log",
        "rotated-2.log",
        "tick-out.log",
    ];
    let all: String = parts.iter().map(|file| musher.log(file)).collect();
    for (n, line) in all.lines().enumerate() {
        assert_eq!(line, format!("tick {n}"));
    }
}

#[test]
fn the_daemon_opens_files_anew_on_sigusr2() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    musher.wait("some lines", || musher.log_has("tick-out.log", "tick 5\n"));
    let logs = musher.home().join("logs");
    std::fs::rename(logs.join("tick-out.log"), logs.join("old.log")).expect("renamed");
    kill(i64::from(musher.daemon_pid()), "USR2");
    musher.wait("a fresh file", || {
        (musher.log("tick-out.log").lines().count() > 5).then_some(())
    });
}

#[test]
fn a_flushed_file_begins_again_without_a_hole() {
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    musher.wait("some lines", || musher.log_has("tick-out.log", "tick 30\n"));
    musher.ok(&["flush", "tick"]);
    let log = musher.wait("lines after the flush", || {
        let log = musher.log("tick-out.log");
        (log.lines().count() > 5).then_some(log)
    });
    assert!(log.starts_with("tick "), "{log:?}");
    assert!(!log.contains("tick 5\n"), "{log:?}");
    musher.ok(&["flush"]);
}

#[test]
fn four_floods_into_one_file_keep_every_line_whole() {
    const LINES: usize = 50_000;
    let musher = Musher::new();
    let text = format!(
        "const fs = require('fs'); let s = '';\n\
         for (let i = 0; i < {LINES}; i++) {{\n\
           s += `${{process.env.NODE_APP_INSTANCE}} ${{i}} ${{'x'.repeat(i % 50)}}\\n`;\n\
           if (s.length > 7777) {{ fs.writeSync(1, s.slice(0, 7777)); s = s.slice(7777); }}\n\
         }}\nfs.writeSync(1, s);\n"
    );
    let script = musher.write("flood.js", &text);
    musher.ok(&[
        "start",
        arg(&script),
        "--name",
        "flood",
        "-x",
        "-i",
        "4",
        "--merge-logs",
        "--no-autorestart",
    ]);
    let log = musher.wait("every line", || {
        let log = musher.log("flood-out.log");
        (log.lines().count() >= 4 * LINES && log.ends_with('\n')).then_some(log)
    });
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    for line in log.lines() {
        let fields: Vec<&str> = line.splitn(3, ' ').collect();
        assert_eq!(fields.len(), 3, "{line:?}");
        let n = next.entry(fields[0]).or_default();
        assert_eq!(fields[1], n.to_string(), "{line:?}");
        assert_eq!(fields[2].len(), *n % 50, "{line:?}");
        *n += 1;
    }
    assert!(
        next.len() == 4 && next.values().all(|n| *n == LINES),
        "{next:?}"
    );
}

#[test]
fn the_last_words_of_a_killed_process_are_kept() {
    let musher = Musher::new();
    let script = musher.write(
        "app.js",
        "const fs = require('fs'); fs.writeSync(1, 'a line\\nlast words'); fs.writeSync(2, 'oops');\n\
         process.kill(process.pid, 'SIGKILL');\n",
    );
    musher.ok(&["start", arg(&script), "--name", "app", "--no-autorestart"]);
    musher.wait_status("app", 1, "stopped");
    musher.wait("the words", || {
        (musher.log("app-out.log").trim_end() == "a line\nlast words"
            && musher.log("app-error.log").trim_end() == "oops")
            .then_some(())
    });
}

#[test]
fn a_full_disk_costs_the_lines_and_is_said_and_nothing_else() {
    let musher = Musher::new();
    let app = json!({ "name": "tick", "script": Musher::app("tick.js"), "out_file": "/dev/full",
                      "log_file": "all.log" });
    musher.start(&format!("module.exports = {app};"));
    let all = musher.cwd().join("all.log");
    musher.wait("lines in the other file", || {
        let log = std::fs::read_to_string(&all).ok()?;
        log.contains("tick 100\n").then_some(())
    });
    musher.wait("a word in the daemon's log", || {
        let log = std::fs::read_to_string(musher.home().join("pm2.log")).ok()?;
        log.contains("/dev/full").then_some(())
    });
    let log = std::fs::read_to_string(musher.home().join("pm2.log")).expect("a log");
    assert!(log.lines().count() < 30, "one word is enough:\n{log}");
    let list = musher.wait_status("tick", 1, "online");
    assert_eq!(list[0]["pm2_env"]["restart_time"], 0);
}
