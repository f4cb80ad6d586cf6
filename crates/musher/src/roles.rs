//! The roles people never call: `musher keeper`, `musher daemon`, and those of
//! an init system: `musher boot` and `musher boot-list`.
//!
//! Their command lines are written by musher itself, so they are recognised
//! before the command line is parsed: a keeper needs none of it.

use crate::keeper::KeeperArgs;
use crate::paths::{Paths, Style};
use crate::startup::boot;
use crate::{daemon, keeper};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs the inner role this process was started as, if it was.
pub(crate) fn inner() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let role = args.next()?;
    let rest: Vec<OsString> = args.collect();
    if let [check, option, home] = rest.as_slice()
        && (role == "daemon" && check == "--check" && option == "--home")
    {
        return Some(daemon::check(&paths_of(home)));
    }
    // `--home` first: an app called `daemon` is somebody else's business.
    if rest.first().is_none_or(|word| word != "--home") {
        return None;
    }
    match role.to_str()? {
        "keeper" => Some(run_keeper(rest)),
        "daemon" => Some(run_daemon(&rest)),
        "boot" => Some(boot::run(rest.get(1)?)),
        boot::LIST_ROLE => Some(boot::run_list(rest.get(1)?)),
        _ => None,
    }
}

/// Returns the command line of a keeper for a home; descriptor 3 is its ready
/// pipe (`musher_os::daemonize::READY_FD`).
pub(crate) fn keeper_argv(home: &Path, executable: OsString) -> Vec<OsString> {
    let words = [
        executable.clone(),
        "keeper".into(),
        "--home".into(),
        home.into(),
        "--exe".into(),
        executable,
        "--ready-fd".into(),
        musher_os::daemonize::READY_FD.to_string().into(),
    ];
    words.into()
}

/// Returns the command line of a keeper that takes this daemon over; its
/// descriptor 3 is its end of the socketpair (`musher_os::daemonize::READY_FD`).
pub(crate) fn next_keeper_argv(home: &Path, executable: OsString) -> Vec<OsString> {
    let words = [
        executable.clone(),
        "keeper".into(),
        "--home".into(),
        home.into(),
        "--exe".into(),
        executable,
        "--adopt-fd".into(),
        musher_os::daemonize::READY_FD.to_string().into(),
        "--daemon-pid".into(),
        std::process::id().to_string().into(),
    ];
    words.into()
}

fn run_keeper(args: Vec<OsString>) -> ExitCode {
    match KeeperArgs::parse(args) {
        Ok(args) => keeper::run(args),
        Err(error) => {
            eprintln!("musher keeper: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `daemon --home <dir> [--keeper-fd <n>]`.
fn run_daemon(args: &[OsString]) -> ExitCode {
    let Some(home) = args.get(1) else {
        eprintln!("musher daemon: --home needs a directory");
        return ExitCode::FAILURE;
    };
    let keeper_fd = args.get(3).and_then(|number| number.to_str()?.parse().ok());
    daemon::run(paths_of(home), keeper_fd)
}

fn paths_of(home: &OsString) -> Paths {
    Paths::find(Style::Musher, |name| match name {
        "MUSHER_HOME" => Some(home.clone()),
        _ => std::env::var_os(name),
    })
}
