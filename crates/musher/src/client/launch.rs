//! Finding the daemon of a home, or starting it: exactly one, however many
//! commands come first at the same time.

use super::Client;
use crate::keeper;
use crate::paths::Paths;
use musher_os::daemonize::{self, Readiness};
use musher_os::lock::LockFile;
use musher_os::spawn::SpawnError;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest wait for a started daemon.
const READY_DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait for another client that starts one.
const LOCK_DEADLINE: Duration = Duration::from_secs(20);

/// Pause before trying again while another keeper holds the home.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Lines of the daemon's log shown when it does not come up.
const N_LOG_LINES: usize = 10;

/// Why there is no daemon to talk to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The home or the start lock cannot be used.
    #[error("could not use the home {home}: {source}")]
    Home {
        /// The home.
        home: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("could not connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The keeper could not be executed.
    #[error("could not start the daemon: {0}")]
    Spawn(#[from] SpawnError),
    /// The keeper did not say that it is ready.
    #[error("the daemon did not become ready ({why}); the end of {log} says:\n{tail}")]
    NotReady {
        /// Ended, or too slow.
        why: &'static str,
        /// The daemon's log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// Another client holds the start lock for too long.
    #[error("another command is starting the daemon for more than {} s; see {log}", LOCK_DEADLINE.as_secs())]
    Busy {
        /// The daemon's log.
        log: PathBuf,
    },
}

/// Returns a connection to the daemon, after starting one if there is none;
/// `announce` is called before a start.
///
/// # Errors
/// [`LaunchError`].
pub(crate) fn ensure_daemon(
    paths: &Paths,
    announce: &mut dyn FnMut(),
) -> Result<Client, LaunchError> {
    if let Some(client) = connect(paths)? {
        return Ok(client);
    }
    let executable = std::env::current_exe().map_err(|source| LaunchError::Home {
        home: paths.home.clone(),
        source,
    })?;
    let argv = crate::roles::keeper_argv(&paths.home, executable.into_os_string());
    start_once(paths, &argv, announce)
}

/// Starts `argv` unless another client was faster.
fn start_once(
    paths: &Paths,
    argv: &[OsString],
    announce: &mut dyn FnMut(),
) -> Result<Client, LaunchError> {
    let home = |source| LaunchError::Home {
        home: paths.home.clone(),
        source,
    };
    paths.create().map_err(home)?;
    let _lock = lock(paths)?;
    if let Some(client) = connect(paths)? {
        return Ok(client);
    }
    announce();
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        let ready = daemonize::start(argv, &paths.log_file, &paths.home)?;
        let said = daemonize::wait_ready(&ready, READY_DEADLINE).map_err(home)?;
        match said {
            Readiness::Ready(_) => (),
            Readiness::Closed => return Err(not_ready(paths, "it ended")),
            Readiness::TimedOut => return Err(not_ready(paths, "no word within 10 s")),
        }
        if let Some(client) = connect(paths)? {
            return Ok(client);
        }
        // The keeper of a daemon that was just killed is on its way out and
        // still holds the lock.
        if said != Readiness::Ready(keeper::BUSY) || Instant::now() >= deadline {
            return Err(not_ready(paths, "its socket does not answer"));
        }
        std::thread::sleep(BUSY_PAUSE);
    }
}

fn connect(paths: &Paths) -> Result<Option<Client>, LaunchError> {
    Client::connect(paths).map_err(|source| LaunchError::Connect {
        path: paths.rpc_sock.clone(),
        source,
    })
}

/// Takes the start lock. The file is never removed: a removed lock file locks
/// nobody out.
fn lock(paths: &Paths) -> Result<LockFile, LaunchError> {
    LockFile::lock_within(&paths.start_lock, LOCK_DEADLINE)
        .map_err(|source| LaunchError::Home {
            home: paths.home.clone(),
            source,
        })?
        .ok_or_else(|| LaunchError::Busy {
            log: paths.log_file.clone(),
        })
}

fn not_ready(paths: &Paths, why: &'static str) -> LaunchError {
    let tail = match crate::logfile::TailBlock::read(&paths.log_file, N_LOG_LINES) {
        Ok(Some(block)) => block
            .lines()
            .map(|line| format!("  {}\n", String::from_utf8_lossy(line)))
            .collect(),
        Ok(None) => "  (there is no log)".to_owned(),
        Err(error) => format!("  ({error})"),
    };
    LaunchError::NotReady {
        why,
        log: paths.log_file.clone(),
        tail: tail.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Style;
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    /// Its presence in the working directory turns this test program into a
    /// keeper; it ends when the file does.
    const MARK: &str = "be-a-keeper";

    /// Longest life of a keeper whose test has died.
    const KEEPER_LIFE: Duration = Duration::from_secs(20);

    fn keeper_argv() -> Vec<OsString> {
        let program = std::env::current_exe().unwrap().into_os_string();
        let name = OsString::from("client::launch::tests::the_test_program_can_be_a_keeper");
        vec![program, OsString::from("--exact"), name]
    }

    fn paths(home: &Path) -> Paths {
        Paths::find(Style::Musher, |name| {
            (name == "MUSHER_HOME").then(|| home.as_os_str().to_owned())
        })
    }

    #[test]
    fn the_test_program_can_be_a_keeper() {
        if !Path::new(MARK).exists() {
            return;
        }
        let mut starts = File::options()
            .create(true)
            .append(true)
            .open("starts")
            .unwrap();
        starts.write_all(b"started\n").unwrap();
        if fs::read_to_string(MARK).unwrap() == "fail" {
            std::io::stderr()
                .write_all(b"no room on the machine\n")
                .unwrap();
            std::process::exit(1);
        }
        let _listener = UnixListener::bind("rpc.sock").unwrap();
        let ready = format!("/proc/self/fd/{}", daemonize::READY_FD);
        File::options()
            .write(true)
            .open(ready)
            .unwrap()
            .write_all(b"1")
            .unwrap();
        let deadline = Instant::now() + KEEPER_LIFE;
        while Path::new(MARK).exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn fifty_first_commands_start_one_keeper() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(MARK), "serve").unwrap();
        let paths = paths(home.path());
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| start_once(&paths, &keeper_argv(), &mut || ()).unwrap());
            }
        });
        let starts = fs::read_to_string(home.path().join("starts")).unwrap();
        fs::remove_file(home.path().join(MARK)).unwrap();
        assert_eq!(starts, "started\n");
    }

    #[test]
    fn a_keeper_that_fails_is_explained_by_the_end_of_its_log() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(MARK), "fail").unwrap();
        let failed = start_once(&paths(home.path()), &keeper_argv(), &mut || ());
        let text = failed.unwrap_err().to_string();
        assert!(
            text.starts_with("the daemon did not become ready (it ended)"),
            "{text}"
        );
        assert!(text.contains("no room on the machine"), "{text}");
    }
}
