//! Evaluates a JavaScript configuration in a child: Node, else Bun, else Deno.
//!
//! The child has its own process group and one private pipe for the result,
//! in the place of its standard input, so nothing the file prints can be
//! taken for it; its standard output goes to our standard error. It has
//! [`EVALUATION_LIMIT`](super::EVALUATION_LIMIT) and then the whole group is
//! killed.

use super::machine::find_program;
use super::{LoadError, LoadOptions, SIZE_LIMIT, data};
use serde_json::Value;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

const LOADER: &str = include_str!("loader.mjs");
/// Digits and line break of the result's length.
const MAX_HEADER_BYTES: u64 = 16;

/// An engine and its arguments before the loader.
const ENGINES: &[(&str, &[&str])] = &[
    ("node", &["--input-type=module", "-e"]),
    ("bun", &["-e"]),
    ("deno", &["eval"]),
];

/// What came through the pipe.
enum Answer {
    Value(Value),
    TooLarge,
    Nothing,
}

/// Returns the value of a module.
///
/// # Errors
/// It throws, takes too long, is too large, or there is no engine for it.
pub(super) fn evaluate(
    file: &str,
    absolute: &Path,
    source: &str,
    options: &LoadOptions,
) -> Result<Value, LoadError> {
    // Engines resolve links before they run a module; stacks show the result.
    let absolute = &std::fs::canonicalize(absolute).unwrap_or_else(|_| absolute.to_owned());
    let typed = [".ts", ".mts", ".cts"]
        .iter()
        .any(|ending| file.ends_with(ending));
    let mut failure = None;
    for (name, arguments) in ENGINES {
        let Some(program) = find_program(name, &options.env, &options.cwd) else {
            continue;
        };
        let answer = run(&program, arguments, file, absolute, options)?;
        let Some(error) = answer.get("error") else {
            return Ok(answer.get("value").cloned().unwrap_or_default());
        };
        let syntax = |text: &str| text.contains("SyntaxError") || text.contains("FILE_EXTENSION");
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        // An old node stumbles over types; the next engine may know them.
        let stumbled =
            typed && *name == "node" && (syntax(text("message")) || syntax(text("code")));
        let thrown = LoadError::Malformed {
            file: file.to_owned(),
            at: place(text("stack"), &absolute.to_string_lossy()),
            message: text("message").to_owned(),
        };
        if !stumbled {
            return Err(thrown);
        }
        failure = Some(thrown);
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    data::literal(source).ok_or_else(|| LoadError::NoRuntime {
        file: file.to_owned(),
    })
}

fn run(
    program: &str,
    arguments: &[&str],
    file: &str,
    absolute: &Path,
    options: &LoadOptions,
) -> Result<Value, LoadError> {
    let engine = |message: String| LoadError::Engine {
        file: file.to_owned(),
        program: program.to_owned(),
        message,
    };
    let io = |error: std::io::Error| engine(error.to_string());
    let (reader, writer) = std::io::pipe().map_err(io)?;
    let diagnostics = std::io::stderr().as_fd().try_clone_to_owned().map_err(io)?;
    let argv = serde_json::to_string(&options.argv).map_err(|error| engine(error.to_string()))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(LOADER)
        .env_clear()
        .envs(options.env.iter().map(|(key, value)| (key, value)))
        .env("MUSHER_CONFIG_FILE", absolute)
        .env("MUSHER_CONFIG_ARGV", argv)
        .current_dir(&options.cwd)
        .stdin(Stdio::from(writer))
        .stdout(Stdio::from(diagnostics))
        .process_group(0);
    let mut child = command.spawn().map_err(io)?;
    // The command still holds the write end; without this the pipe never ends.
    drop(command);
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        // The receiver is gone only after the limit, and then nobody asks.
        let _ = sender.send(read_answer(reader));
    });
    let answer = receiver.recv_timeout(options.limit);
    end(&mut child, answer.is_err());
    match answer {
        Err(_) => Err(LoadError::TimedOut {
            file: file.to_owned(),
            limit: options.limit,
        }),
        Ok(Answer::Value(value)) => Ok(value),
        Ok(Answer::TooLarge) => Err(LoadError::TooLarge {
            file: file.to_owned(),
        }),
        Ok(Answer::Nothing) => Err(engine("it ended without a result".to_owned())),
    }
}

/// Ends the child, which has nothing left to say, or the whole group if it
/// never said anything, and reaps it.
fn end(child: &mut Child, group: bool) {
    if group
        && let Some(pid) = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
    {
        // Fails only when the group is gone already.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn read_answer(reader: PipeReader) -> Answer {
    let mut reader = BufReader::new(reader);
    let mut header = String::new();
    if reader
        .by_ref()
        .take(MAX_HEADER_BYTES)
        .read_line(&mut header)
        .is_err()
    {
        return Answer::Nothing;
    }
    let Ok(length) = header.trim_end().parse::<usize>() else {
        return Answer::Nothing;
    };
    if length > SIZE_LIMIT {
        return Answer::TooLarge;
    }
    let mut body = vec![0; length];
    match reader
        .read_exact(&mut body)
        .map(|()| serde_json::from_slice(&body))
    {
        Ok(Ok(value)) => Answer::Value(value),
        Ok(Err(_)) | Err(_) => Answer::Nothing,
    }
}

/// Returns line and column of the first place of `path` in a stack.
///
/// Syntax errors come as `path:line`, the source line, and a line of carets.
fn place(stack: &str, path: &str) -> Option<(u32, u32)> {
    let after = &stack[stack.find(&format!("{path}:"))? + path.len() + 1..];
    let mut lines = after.lines();
    let mut numbers = lines.next()?.split([':', ')', ' ']);
    let line = numbers.next()?.parse().ok()?;
    let column = match numbers.next().and_then(|text| text.parse().ok()) {
        Some(column) => column,
        None => lines.nth(1)?.find('^')? as u32 + 1,
    };
    Some((line, column))
}
