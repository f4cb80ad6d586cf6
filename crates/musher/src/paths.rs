//! The home directory: the path of every file musher owns.
//!
//! PM2 lets an environment variable move each of them, and scripts rely on
//! it, so this is the one place that knows the names. It creates directories
//! and nothing else.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Permissions of the home: it holds environments of apps.
const HOME_MODE: u32 = 0o700;

/// As which program musher was called; decides default home and wording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// By its own name.
    Musher,
    /// As `pm2`: PM2's home and PM2's texts.
    Pm2,
}

/// Every file musher owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    /// The directory all others are in unless a variable says otherwise.
    pub(crate) home: PathBuf,
    /// Socket of requests.
    pub(crate) rpc_sock: PathBuf,
    /// Socket of events.
    pub(crate) pub_sock: PathBuf,
    /// Pid of the daemon.
    pub(crate) pid_file: PathBuf,
    /// Log of the daemon.
    pub(crate) log_file: PathBuf,
    /// The saved list.
    pub(crate) dump: PathBuf,
    /// The saved list before the last save.
    pub(crate) dump_backup: PathBuf,
    /// Configuration of modules.
    pub(crate) module_conf: PathBuf,
    /// Directory of app logs.
    pub(crate) logs: PathBuf,
    /// Directory of pid files.
    pub(crate) pids: PathBuf,
    /// Time stamp of the reload under way.
    pub(crate) reload_lock: PathBuf,
    /// Exists once the home was used.
    pub(crate) touch: PathBuf,
    /// The daemon's database.
    pub(crate) state_db: PathBuf,
    /// Held by the one keeper of this home.
    pub(crate) keeper_lock: PathBuf,
    /// Held by the client that starts the keeper.
    pub(crate) start_lock: PathBuf,
    /// Held by the client that launches an app.
    pub(crate) launch_lock: PathBuf,
}

impl Style {
    /// Returns the style of a program path (argv[0]).
    pub(crate) fn of(argv0: &str) -> Style {
        match program_name(argv0) {
            "pm2" | "pm2-runtime" | "pm2-docker" | "pm2-dev" => Style::Pm2,
            _ => Style::Musher,
        }
    }
}

/// Returns the file name of a program path.
pub(crate) fn program_name(argv0: &str) -> &str {
    argv0.rsplit('/').next().unwrap_or(argv0)
}

impl Paths {
    /// Returns the paths by the variables that `var` looks up; empty ones
    /// count as unset.
    ///
    /// The home is `MUSHER_HOME`, else `PM2_HOME`, else `.musher` (`.pm2` when
    /// called as pm2) in the user's home directory.
    pub(crate) fn find(style: Style, var: impl Fn(&str) -> Option<OsString>) -> Paths {
        let set = |name: &str| {
            let value = var(name).filter(|value| !value.is_empty())?;
            std::path::absolute(PathBuf::from(value)).ok()
        };
        let default_name = match style {
            Style::Musher => ".musher",
            Style::Pm2 => ".pm2",
        };
        let home = set("MUSHER_HOME")
            .or_else(|| set("PM2_HOME"))
            .or_else(|| Some(set("HOME")?.join(default_name)))
            .unwrap_or_else(|| Path::new("/etc").join(default_name));
        let file = |variable: &str, name: &str| set(variable).unwrap_or_else(|| home.join(name));
        Paths {
            rpc_sock: file("PM2_DAEMON_RPC_PORT", "rpc.sock"),
            pub_sock: file("PM2_DAEMON_PUB_PORT", "pub.sock"),
            pid_file: file("PM2_PID_FILE_PATH", "pm2.pid"),
            log_file: file("PM2_LOG_FILE_PATH", "pm2.log"),
            dump: file("PM2_DUMP_FILE_PATH", "dump.pm2"),
            dump_backup: file("PM2_DUMP_BACKUP_FILE_PATH", "dump.pm2.bak"),
            module_conf: file("PM2_MODULE_CONF_FILE", "module_conf.json"),
            logs: file("PM2_DEFAULT_LOG_PATH", "logs"),
            pids: file("PM2_DEFAULT_PID_PATH", "pids"),
            reload_lock: file("PM2_RELOAD_LOCKFILE", "reload.lock"),
            touch: home.join("touch"),
            state_db: home.join("state.db"),
            keeper_lock: home.join("keeper.lock"),
            start_lock: home.join("start.lock"),
            launch_lock: home.join("launch.lock"),
            home,
        }
    }

    /// Creates the home (mode 0700) and the directories for logs and pids.
    ///
    /// # Errors
    /// A directory that cannot be created, by path.
    pub(crate) fn create(&self) -> io::Result<()> {
        for directory in [&self.home, &self.logs, &self.pids] {
            DirBuilder::new()
                .recursive(true)
                .mode(HOME_MODE)
                .create(directory)
                .map_err(|error| {
                    let text = format!("could not create {}: {error}", directory.display());
                    io::Error::new(error.kind(), text)
                })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(style: Style, vars: &[(&str, &str)]) -> PathBuf {
        paths(style, vars).home
    }

    fn paths(style: Style, vars: &[(&str, &str)]) -> Paths {
        Paths::find(style, |name| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(*value))
        })
    }

    #[test]
    fn the_home_follows_the_variables_and_the_name_of_the_program() {
        let user = ("HOME", "/u");
        let pm2 = ("PM2_HOME", "/p");
        let own = ("MUSHER_HOME", "/m");
        for (style, vars, expected) in [
            (Style::Musher, &[user][..], "/u/.musher"),
            (Style::Pm2, &[user], "/u/.pm2"),
            (Style::Musher, &[user, pm2], "/p"),
            (Style::Pm2, &[user, pm2], "/p"),
            (Style::Pm2, &[user, pm2, own], "/m"),
            (Style::Musher, &[user, ("MUSHER_HOME", "")], "/u/.musher"),
            (Style::Pm2, &[], "/etc/.pm2"),
        ] {
            assert_eq!(home(style, vars), Path::new(expected), "{style:?} {vars:?}");
        }
    }

    #[test]
    fn each_file_can_be_moved_by_its_variable() {
        let moved = paths(
            Style::Pm2,
            &[("PM2_HOME", "/p"), ("PM2_DAEMON_RPC_PORT", "/run/r.sock")],
        );
        assert_eq!(moved.rpc_sock, Path::new("/run/r.sock"));
        assert_eq!(moved.pub_sock, Path::new("/p/pub.sock"));
        assert_eq!(moved.dump_backup, Path::new("/p/dump.pm2.bak"));
    }

    #[test]
    fn the_home_is_created_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let at = scratch.path().join("a/home");
        let paths = paths(Style::Musher, &[("MUSHER_HOME", at.to_str().unwrap())]);
        paths.create().unwrap();
        let mode = std::fs::metadata(&at).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(paths.logs.is_dir() && paths.pids.is_dir());
    }
}
