//! Logs: every line, where it belongs.

use crate::harness::Musher;

#[test]
fn output_goes_to_its_files_and_logs_shows_them() {
    let musher = Musher::new();
    let script = musher.write(
        "app.js",
        "console.log('to out'); console.error('to err'); setInterval(()=>{}, 1000);",
    );
    musher.ok(&[
        "start",
        script.to_str().expect("a path"),
        "--name",
        "app",
        "--log",
        "all.log",
    ]);
    musher.wait("both lines", || {
        musher
            .log_has("app", "to out")
            .and(musher.log_has("app", "to err"))
    });
    let logs = musher.home().join("logs");
    assert_eq!(
        std::fs::read_to_string(logs.join("app-out.log")).expect("out"),
        "to out\n"
    );
    assert_eq!(
        std::fs::read_to_string(logs.join("app-error.log")).expect("err"),
        "to err\n"
    );
    let combined = std::fs::read_to_string(musher.cwd().join("all.log")).expect("combined");
    assert!(combined.contains("to out") && combined.contains("to err"));
    let shown = musher.ok(&["logs", "app", "--nostream", "--lines", "5"]);
    assert!(
        shown.contains("to out") && shown.contains("to err"),
        "{shown}"
    );
    musher.ok(&["flush", "app"]);
    assert_eq!(
        std::fs::read_to_string(logs.join("app-out.log")).expect("out"),
        ""
    );
}

#[test]
fn every_line_of_a_flood_arrives_in_order_with_and_without_time() {
    const LINES: usize = 200_000;
    for time in [false, true] {
        let musher = Musher::new();
        let text = format!(
            "let s=''; for (let i=0;i<{LINES};i++) {{ s+='line '+i+'\\n'; if (s.length>60000) \
             {{ require('fs').writeSync(1,s); s=''; }} }} require('fs').writeSync(1,s);"
        );
        let script = musher.write("flood.js", &text);
        let mut args = vec![
            "start",
            script.to_str().expect("a path"),
            "--name",
            "flood",
            "--no-autorestart",
        ];
        if time {
            args.push("--time");
        }
        musher.ok(&args);
        let path = musher.home().join("logs/flood-out.log");
        let last = format!("line {}\n", LINES - 1);
        let log = musher.wait("the last line", || {
            let log = std::fs::read_to_string(&path).ok()?;
            log.ends_with(&last).then_some(log)
        });
        let mut n = 0;
        for line in log.lines() {
            let line = if time {
                line.split_once(": ").expect("a date").1
            } else {
                line
            };
            assert_eq!(line, format!("line {n}"));
            n += 1;
        }
        assert_eq!(n, LINES);
    }
}

#[test]
fn log_type_json_is_one_record_a_line() {
    let musher = Musher::new();
    let script = musher.write(
        "app.js",
        "console.log('one\\ntwo'); setInterval(()=>{}, 1000);",
    );
    musher.ok(&[
        "start",
        script.to_str().expect("a path"),
        "--name",
        "app",
        "--log-type",
        "json",
    ]);
    musher.wait("two records", || musher.log_has("app", "two"));
    let log = std::fs::read_to_string(musher.home().join("logs/app-out.log")).expect("out");
    let messages: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|record| {
            record["message"]
                .as_str()
                .expect("a message")
                .trim_end()
                .to_owned()
        })
        .collect();
    assert_eq!(messages, ["one", "two"]);
}

#[test]
fn instances_that_share_a_file_show_its_tail_once() {
    let musher = Musher::new();
    let script = musher.write("app.js", "console.log('hello'); setInterval(()=>{}, 1000);");
    let script = script.to_str().expect("a path");
    let args = ["-i", "2", "--merge-logs", "--name", "app"];
    musher.ok(&[&["start", script], &args[..]].concat());
    let shown = musher.wait("both lines", || {
        let shown = musher.ok(&["logs", "app", "--nostream"]);
        (shown.matches("hello").count() >= 2).then_some(shown)
    });
    assert_eq!(shown.matches("hello").count(), 2, "{shown}");
}

#[test]
fn following_shows_lines_as_they_come() {
    use std::io::{BufRead, BufReader};
    let musher = Musher::new();
    musher.ok(&["start", &Musher::app("tick.js"), "--name", "tick"]);
    let mut child = musher
        .command(&["logs", "tick", "--raw", "--lines", "0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let numbers: Vec<u64> = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("tick ").and_then(|n| n.parse().ok()))
        .take(50)
        .collect();
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let expected: Vec<u64> = (numbers[0]..numbers[0] + 50).collect();
    assert_eq!(numbers, expected);
}
