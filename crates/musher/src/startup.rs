//! Starting at boot: what each init system is given.
//!
//! One machine, one init system, one file: the plan says which file with which
//! text, and which commands make it count. Plans are pure, from [`Facts`]; only
//! the command line writes and executes. Every service runs `musher boot`, see
//! [`boot`], or `musher resurrect` where nobody stays to watch.

pub(crate) mod boot;
mod launchd;
mod openrc;
mod systemd;
mod sysv;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

/// An init system, or the way systemd is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// systemd's system manager.
    Systemd,
    /// systemd's manager of one user.
    SystemdUser,
    /// Init scripts, enabled by `update-rc.d` (Debian, PM2's "upstart").
    Upstart,
    /// Init scripts, enabled by `chkconfig` (Red Hat).
    Systemv,
    /// OpenRC.
    Openrc,
    /// launchd.
    Launchd,
}

/// What a plan is made of. All texts are free of control characters.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Name of the service, without suffix.
    pub(crate) service: String,
    /// Login name apps run as.
    pub(crate) user: String,
    /// Whether that is uid 0.
    pub(crate) is_root: bool,
    /// The user's home directory.
    pub(crate) user_home: String,
    /// `$XDG_CONFIG_HOME`, for units of a user.
    pub(crate) config_home: String,
    /// The home of the daemon.
    pub(crate) home: String,
    /// The executable, absolute.
    pub(crate) exe: String,
    /// `PATH` of apps that bring none.
    pub(crate) path: String,
    /// Start after the network has an address.
    pub(crate) waits_for_network: bool,
    /// The greatest `kill_timeout` of the saved list, ms.
    pub(crate) kill_timeout_ms: u64,
    /// Whether the init system runs; not so in a chroot or an image build.
    pub(crate) is_booted: bool,
}

/// What to write and what to execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
    /// Its permissions.
    pub(crate) mode: u32,
    /// Commands after it was written.
    pub(crate) enable: Vec<Argv>,
    /// Commands before it is removed.
    pub(crate) disable: Vec<Argv>,
    /// Commands after it was removed.
    pub(crate) forget: Vec<Argv>,
}

/// A command line; never a shell's.
pub(crate) type Argv = Vec<String>;

/// A fact that no service file can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FactError {
    /// It would break lines.
    #[error("{what} {value:?} holds a control character, which no service file can")]
    ControlCharacter {
        /// Which fact.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// It would name a file elsewhere, or nothing.
    #[error("{0:?} is no name of a service: use letters, digits, '.', '_', '-', '@' and ':'")]
    ServiceName(String),
    /// systemd refuses the unit.
    #[error(
        "systemd takes no executable with a quote or a backslash in its path ({0}); \
         call musher by a link elsewhere"
    )]
    Executable(String),
}

/// Seconds a service may take to stop, at least: systemd's own default.
const MIN_STOP_SECS: u64 = 90;

/// Seconds beyond the longest `kill_timeout`: trees are swept and lists saved.
const STOP_MARGIN_SECS: u64 = 30;

/// Longest name of a service; systemd takes 255 with the suffix.
const MAX_SERVICE_BYTES: usize = 200;

/// Which program stands for which init system, in PM2's order.
const PROGRAMS: [(&str, Init); 5] = [
    ("systemctl", Init::Systemd),
    ("update-rc.d", Init::Upstart),
    ("chkconfig", Init::Systemv),
    ("rc-update", Init::Openrc),
    ("launchctl", Init::Launchd),
];

impl Init {
    /// Returns the init system whose program is there, the first in PM2's
    /// order.
    pub(crate) fn detect(has: impl Fn(&str) -> bool) -> Option<Init> {
        let found = PROGRAMS.iter().find(|(program, _)| has(program));
        found.map(|(_, init)| *init)
    }

    /// Returns the init system a word of the command line means.
    pub(crate) fn of_word(word: &str) -> Option<Init> {
        Some(match word {
            "systemd" | "ubuntu" | "centos" | "arch" | "oracle" => Init::Systemd,
            "systemd-user" => Init::SystemdUser,
            "upstart" | "ubuntu14" | "ubuntu12" => Init::Upstart,
            "systemv" | "amazon" | "centos6" => Init::Systemv,
            "openrc" => Init::Openrc,
            "launchd" | "macos" | "darwin" => Init::Launchd,
            _ => return None,
        })
    }

    /// Returns its name, which is also a word of the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Init::Systemd => "systemd",
            Init::SystemdUser => "systemd-user",
            Init::Upstart => "upstart",
            Init::Systemv => "systemv",
            Init::Openrc => "openrc",
            Init::Launchd => "launchd",
        }
    }

    /// Returns whether its files are the machine's and not a user's.
    pub(crate) fn needs_root(self) -> bool {
        match self {
            Init::Systemd | Init::Upstart | Init::Systemv | Init::Openrc | Init::Launchd => true,
            Init::SystemdUser => false,
        }
    }

    /// Returns what makes `musher` start at boot.
    ///
    /// # Errors
    /// [`FactError`].
    pub(crate) fn plan(self, facts: &Facts) -> Result<Plan, FactError> {
        facts.check()?;
        Ok(match self {
            Init::Systemd => systemd::system(facts)?,
            Init::SystemdUser => systemd::of_user(facts)?,
            Init::Upstart => sysv::with_update_rc(facts),
            Init::Systemv => sysv::with_chkconfig(facts),
            Init::Openrc => openrc::plan(facts),
            Init::Launchd => launchd::plan(facts),
        })
    }
}

impl Facts {
    fn check(&self) -> Result<(), FactError> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
        let name = &self.service;
        let is_usable = name.len() <= MAX_SERVICE_BYTES && !name.starts_with(['.', '-']);
        if name.is_empty() || !is_usable || !name.chars().all(is_word) {
            return Err(FactError::ServiceName(name.clone()));
        }
        for (what, value) in [
            ("the user", &self.user),
            ("the user's home", &self.user_home),
            ("XDG_CONFIG_HOME", &self.config_home),
            ("the home", &self.home),
            ("the executable", &self.exe),
            ("PATH", &self.path),
        ] {
            if value.contains(char::is_control) {
                return Err(FactError::ControlCharacter {
                    what,
                    value: value.clone(),
                });
            }
        }
        Ok(())
    }

    /// Returns how long a stop may take before the init system kills, s.
    fn stop_secs(&self) -> u64 {
        let longest = self.kill_timeout_ms.div_ceil(1000);
        MIN_STOP_SECS.max(longest.saturating_add(STOP_MARGIN_SECS))
    }
}

/// Returns a command line of words.
fn argv(words: &[&str]) -> Argv {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Returns a word as a shell reads it literally (2.2.2 of POSIX's shell
/// language).
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
