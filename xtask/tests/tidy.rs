//! The rules of the repository, as tests.
//!
//! A rule that is only written down is forgotten; these run with every other
//! test. Each rule is a function from text to mistakes, so that each one also
//! has a test which plants the mistake. Nothing here changes a file.
//!
//! Exceptions are visible where they are made: `// tidy: table` on the first
//! line frees a file of uniform rows from the limits of length, and
//! `// tidy: long` on the line above a function frees that function.

mod source;

use source::{blank, functions, production_lines, words};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a Rust file without its tests (house rule; tables are exempt).
const FILE_LINES: usize = 500;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;
/// Lines of ARCHITECTURE.md: longer is not read.
const ARCHITECTURE_LINES: usize = 300;

/// A rule: the mistakes in the text of the file at this path.
type Rule = fn(&str, &str) -> Vec<String>;

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn is_table(text: &str) -> bool {
    text.lines().next() == Some("// tidy: table")
}

/// Test code is judged by what it proves, not by its length.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests")
}

fn files_are_short(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || is_table(text) || is_test(path) {
        return Vec::new();
    }
    let n_lines = production_lines(text);
    let long = n_lines > FILE_LINES;
    long.then(|| format!("{n_lines} lines without tests, the limit is {FILE_LINES}"))
        .into_iter()
        .collect()
}

fn functions_are_short(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || is_table(text) || is_test(path) {
        return Vec::new();
    }
    functions(text)
        .into_iter()
        .filter(|f| f.n_lines > FUNCTION_LINES && !f.exempt)
        .map(|f| {
            format!(
                "fn {} (line {}) has {} lines, the limit is {FUNCTION_LINES}",
                f.name, f.line, f.n_lines
            )
        })
        .collect()
}

/// Rust only: the words are ordinary in other languages and in prose.
fn nothing_is_left_to_do(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) {
        return Vec::new();
    }
    let code = blank(text);
    let macros = [
        concat!("todo", "!"),
        concat!("dbg", "!"),
        concat!("unimplemented", "!"),
    ];
    let notes = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
    ];
    let in_code = macros.iter().filter(|m| code.contains(**m));
    let in_text = notes.iter().filter(|n| words(text).any(|w| w == **n));
    in_code
        .chain(in_text)
        .map(|found| format!("contains {found}"))
        .collect()
}

/// `id, time, exit <- app <- view <- supervisor <- wire`: a module never
/// mentions one to the right of it. `view` is plain data that the decider's
/// answers carry, so it stands before the decider.
fn core_imports_point_one_way(path: &str, text: &str) -> Vec<String> {
    let order = ["exit", "app", "view", "supervisor", "wire"];
    let Some(module) = path.strip_prefix("crates/core/src/") else {
        return Vec::new();
    };
    let module = module.split(['/', '.']).next().unwrap_or_default();
    let level = match module {
        "id" | "time" => 0,
        _ => match order.iter().position(|name| *name == module) {
            Some(level) => level,
            None => return Vec::new(),
        },
    };
    let code = blank(text);
    order[level + 1..]
        .iter()
        .filter(|later| code.contains(&format!("crate::{later}::")))
        .map(|later| format!("`{module}` must not know `crate::{later}`"))
        .collect()
}

fn unsafe_stays_in_os(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || path.starts_with("crates/os/") {
        return Vec::new();
    }
    let code = blank(text);
    let found = words(&code).any(|word| word == "unsafe");
    found
        .then(|| "`unsafe` outside crates/os".to_owned())
        .into_iter()
        .collect()
}

fn modules_say_what_they_are(path: &str, text: &str) -> Vec<String> {
    let start = text.strip_prefix("// tidy: table\n").unwrap_or(text);
    if !is_rust(path) || path.ends_with("/tests.rs") || start.starts_with("//!") {
        return Vec::new();
    }
    vec!["does not start with a `//!` sentence".to_owned()]
}

/// Paths of the machine a file was written on help nobody else. Homes of
/// invented users are fair data for tests in Rust.
fn no_machine_paths(path: &str, text: &str) -> Vec<String> {
    let paths = [
        concat!("/", "work"),
        concat!("/", "root"),
        concat!("/", "home/"),
    ];
    let inside_name = |c: char| c.is_alphanumeric() || "._-/})*~".contains(c);
    let mut mistakes = Vec::new();
    let tests = if is_rust(path) {
        text.find("#[cfg(test)]")
    } else {
        None
    };
    let n_lines = tests.map_or(usize::MAX, |at| text[..at].lines().count());
    for (number, line) in text.lines().enumerate() {
        let as_data = is_rust(path) && (is_test(path) || number >= n_lines);
        for path in paths
            .into_iter()
            .take(if as_data { 1 } else { paths.len() })
        {
            let absolute = line.match_indices(path).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + path.len()..].chars().next();
                let ends = path.ends_with('/')
                    || !after.is_some_and(|c| c.is_alphanumeric() || "_-.".contains(c));
                ends && !before.is_some_and(inside_name)
            });
            if absolute {
                mistakes.push(format!("line {} names {path}", number + 1));
            }
        }
    }
    mistakes
}

fn architecture_is_readable(path: &str, text: &str) -> Vec<String> {
    let n_lines = text.lines().count();
    let long = path == "ARCHITECTURE.md" && n_lines > ARCHITECTURE_LINES;
    long.then(|| format!("{n_lines} lines, the limit is {ARCHITECTURE_LINES}"))
        .into_iter()
        .collect()
}

/// Returns the root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns path and text of every file git tracks; what is not text is left out.
fn tracked() -> Vec<(String, String)> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git must be installed: the rules are about tracked files");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).expect("paths of the repository are UTF-8");
    let files: Vec<_> = names
        .split_terminator('\0')
        .filter_map(|name| {
            let text = std::fs::read_to_string(root().join(name)).ok()?;
            Some((name.to_owned(), text))
        })
        .collect();
    assert!(
        files.len() > 10,
        "only {} files found: the rules would check nothing",
        files.len()
    );
    files
}

fn check(rule: Rule) {
    let mistakes: Vec<String> = tracked()
        .iter()
        .flat_map(|(path, text)| {
            rule(path, text)
                .into_iter()
                .map(move |m| format!("{path}: {m}"))
        })
        .collect();
    assert!(mistakes.is_empty(), "\n{}\n", mistakes.join("\n"));
}

/// Asserts that `rule` sees the mistake in `bad` and none in `good`.
fn catches(rule: Rule, path: &str, bad: &str, good: &str) {
    assert!(
        !rule(path, bad).is_empty(),
        "the planted mistake was not seen in {path}"
    );
    assert_eq!(
        rule(path, good),
        Vec::<String>::new(),
        "{path} has no mistake"
    );
}

macro_rules! rules {
    ($($rule:ident)*) => { mod repository { $(#[test] fn $rule() { super::check(super::$rule); })* } };
}

rules! {
    files_are_short functions_are_short nothing_is_left_to_do core_imports_point_one_way
    unsafe_stays_in_os modules_say_what_they_are no_machine_paths architecture_is_readable
}

mod planted {
    use super::*;

    #[test]
    fn a_long_file_is_seen_and_its_tests_are_not_counted() {
        let long = "x\n".repeat(FILE_LINES + 1);
        let tested = format!(
            "{}#[cfg(test)]\nmod tests {{\n{long}}}\n",
            "x\n".repeat(FILE_LINES)
        );
        catches(files_are_short, "a.rs", &long, &tested);
        catches(
            files_are_short,
            "a.rs",
            &long,
            &format!("// tidy: table\n{long}"),
        );
        catches(files_are_short, "a.rs", &format!("{tested}y\n"), &tested);
    }

    #[test]
    fn a_long_function_is_seen_whatever_its_strings_hold() {
        let body = "    let _ = '}'; // }\n".repeat(FUNCTION_LINES);
        let long = format!("fn f<'a>(x: &'a str) {{\n    g(\"}}\\\"\", r#\"}}\"#);\n{body}}}\n");
        let short = "fn f() {\n}\nfn g();\n".to_owned() + &"// line\n".repeat(FUNCTION_LINES);
        catches(functions_are_short, "a.rs", &long, &short);
        catches(
            functions_are_short,
            "a.rs",
            &long,
            &format!("// tidy: long\n{long}"),
        );
    }

    #[test]
    fn unfinished_work_is_seen() {
        for bad in [
            concat!("todo", "!()"),
            concat!("dbg", "!(x)"),
            concat!("// FIX", "ME: x"),
        ] {
            catches(nothing_is_left_to_do, "a.rs", bad, "fn todo() {}");
        }
    }

    #[test]
    fn an_import_against_the_direction_is_seen() {
        let path = "crates/core/src/supervisor/run.rs";
        let good = "use crate::app::AppSpec; // crate::wire::rpc";
        catches(
            core_imports_point_one_way,
            path,
            "use crate::wire::rpc;",
            good,
        );
        catches(
            core_imports_point_one_way,
            path,
            "crate::wire::Row {}",
            good,
        );
        catches(
            core_imports_point_one_way,
            "crates/core/src/id.rs",
            "use crate::app::X;",
            "",
        );
    }

    #[test]
    fn unsafe_outside_os_is_seen() {
        let good = "#![forbid(unsafe_code)] // unsafe\nlet x = \"unsafe\";";
        catches(
            unsafe_stays_in_os,
            "crates/core/src/a.rs",
            "unsafe { f() }",
            good,
        );
        assert!(unsafe_stays_in_os("crates/os/src/a.rs", "unsafe { f() }").is_empty());
    }

    #[test]
    fn a_module_without_a_doc_is_seen() {
        catches(
            modules_say_what_they_are,
            "a.rs",
            "use std::fs;\n",
            "//! What it is.\n",
        );
    }

    #[test]
    fn a_machine_path_is_seen_and_a_relative_one_is_not() {
        let good = "./worker.js a/work /workers target/root $X/home/";
        for bad in [
            concat!("cd /", "work/x"),
            concat!("\"/", "root\""),
            concat!("=/", "home/me"),
        ] {
            catches(no_machine_paths, "a.md", bad, good);
            catches(no_machine_paths, "a.rs", bad, good);
        }
        let home = concat!("\"/", "home/me\"");
        catches(
            no_machine_paths,
            "a.rs",
            home,
            &format!("#[cfg(test)]\nmod t {{ {home} }}"),
        );
        catches(
            no_machine_paths,
            "b/tests.rs",
            concat!("\"/", "work/x\""),
            home,
        );
    }

    #[test]
    fn a_long_architecture_is_seen() {
        let line = "line\n";
        let (bad, good) = (
            line.repeat(ARCHITECTURE_LINES + 1),
            line.repeat(ARCHITECTURE_LINES),
        );
        catches(architecture_is_readable, "ARCHITECTURE.md", &bad, &good);
    }
}
