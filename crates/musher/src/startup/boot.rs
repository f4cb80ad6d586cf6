//! `musher boot`: the main process of a service.
//!
//! An init system wants one process to watch and to signal, and to be told
//! when the service is started. So this process becomes the keeper, in the
//! foreground, with the daemon as its child; a second process waits until the
//! daemon serves, starts the saved list and tells the init system.
//!
//! It never takes a home over from a keeper that serves it: apps of a shell
//! would end with the service.

use crate::keeper::{self, KeeperArgs};
use crate::paths::{Paths, Style};
use musher_os::lock::LockFile;
use musher_os::notify;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Exit status when another keeper serves the home: trying again does not help
/// (EX_TEMPFAIL of sysexits(3)).
pub(crate) const BUSY_EXIT: u8 = 75;

/// Longest wait for a keeper on its way out.
const LEAVE_DEADLINE: Duration = Duration::from_secs(2);

/// Pause between two looks at its lock.
const LEAVE_PAUSE: Duration = Duration::from_millis(10);

/// The second role: waits for the keeper's byte on stdin.
pub(crate) const LIST_ROLE: &str = "boot-list";

/// Runs the keeper of a home in this process, and the saved list beside it.
pub(crate) fn run(home: &OsStr) -> ExitCode {
    let paths = paths(home);
    match paths.create().and_then(|()| becomes_free(&paths)) {
        Ok(true) => (),
        Ok(false) => {
            let home = paths.home.display();
            eprintln!(
                "musher boot: {home} is served by a daemon that was started by hand; \
                 end it with `musher kill` and start the service again"
            );
            return ExitCode::from(BUSY_EXIT);
        }
        Err(error) => return failed(&error),
    }
    match prepare(&paths) {
        Ok(args) => keeper::run(args),
        Err(error) => failed(&error),
    }
}

/// Starts the saved list once the keeper says that the daemon serves.
pub(crate) fn run_list(home: &OsStr) -> ExitCode {
    let mut said = [0];
    match io::stdin().read(&mut said) {
        Ok(1) if said == [keeper::READY] => (),
        // The keeper has told why.
        Ok(_) | Err(_) => return ExitCode::FAILURE,
    }
    let is_restored = crate::cli::resurrect(paths(home));
    // The daemon serves, so the service is up even if the list is damaged.
    let text = if is_restored {
        "READY=1\nSTATUS=the saved list is started"
    } else {
        "READY=1\nSTATUS=the saved list could not be started, see the journal"
    };
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
        && let Err(error) = notify::notify(&socket, text)
    {
        eprintln!("musher boot: the service manager cannot be told: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns whether no keeper has the home. One that was just told to end has
/// it a moment longer than the daemon answers.
fn becomes_free(paths: &Paths) -> io::Result<bool> {
    let deadline = Instant::now() + LEAVE_DEADLINE;
    while LockFile::try_lock(&paths.keeper_lock)?.is_none() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(LEAVE_PAUSE);
    }
    Ok(true)
}

fn prepare(paths: &Paths) -> io::Result<KeeperArgs> {
    let exe = std::env::current_exe()?;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&paths.log_file)?;
    let (said, ready) = io::pipe()?;
    let spawned = Command::new(&exe)
        .args([OsStr::new(LIST_ROLE), OsStr::new("--home")])
        .arg(&paths.home)
        .stdin(said)
        .spawn()?;
    // The keeper reaps whatever is this process's child.
    drop(spawned);
    Ok(KeeperArgs {
        home: paths.home.clone(),
        exe,
        ready: Some(ready.into()),
        log: log.into(),
        adopt: None,
    })
}

fn paths(home: &OsStr) -> Paths {
    let home: OsString = home.to_owned();
    Paths::find(Style::Musher, |name| match name {
        "MUSHER_HOME" => Some(home.clone()),
        _ => std::env::var_os(name),
    })
}

fn failed(error: &io::Error) -> ExitCode {
    eprintln!("musher boot: cannot begin: {error}");
    ExitCode::FAILURE
}
