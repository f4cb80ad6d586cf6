//! The keeper's command line, which only musher itself writes.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use musher_os::fd;

/// What a keeper is given.
#[derive(Debug)]
pub(crate) struct KeeperArgs {
    /// Directory of `keeper.lock`, passed on to the daemon.
    pub(crate) home: PathBuf,
    /// The executable that is started as daemon.
    pub(crate) exe: PathBuf,
    /// Where one byte says how it went: [`super::READY`] or [`super::BUSY`].
    pub(crate) ready: Option<OwnedFd>,
    /// stdout and stderr of the daemon; the keeper's own lines go to its
    /// stderr.
    pub(crate) log: OwnedFd,
    /// A daemon that lost its keeper and starts this one.
    pub(crate) adopt: Option<Adopted>,
}

/// A daemon that is running already.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// The keeper's end of the socketpair.
    pub(crate) socket: OwnedFd,
    /// The daemon's pid.
    pub(crate) pid: u32,
}

/// A command line that musher does not write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgsError {
    /// An option is missing.
    #[error("the keeper needs {0}")]
    Missing(&'static str),
    /// An option is unknown, or has no value, or not a usable one.
    #[error("the keeper cannot use {0}")]
    Unusable(String),
    /// The descriptor of an option is not open.
    #[error("the keeper was not left the descriptor of {option}")]
    NoDescriptor {
        /// The option.
        option: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl KeeperArgs {
    /// Reads `--home <dir> --exe <path> [--ready-fd <n>] [--log-fd <n>]
    /// [--adopt-fd <n> --daemon-pid <pid>]`, and takes over the descriptors.
    /// The log is stderr if no other is given.
    ///
    /// # Errors
    /// See [`ArgsError`].
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<KeeperArgs, ArgsError> {
        let mut arguments = arguments.into_iter();
        let (mut home, mut exe) = (None, None);
        let (mut ready, mut log, mut socket, mut pid) = (None, None, None, None);
        while let Some(option) = arguments.next() {
            let unusable = || ArgsError::Unusable(option.to_string_lossy().into_owned());
            let value = arguments.next().ok_or_else(unusable)?;
            let number = || value.to_str().and_then(|text| text.parse::<i32>().ok());
            match option.to_str() {
                Some("--home") => home = Some(PathBuf::from(value)),
                Some("--exe") => exe = Some(PathBuf::from(value)),
                Some("--ready-fd") => ready = Some(take("--ready-fd", number())?),
                Some("--log-fd") => log = Some(take("--log-fd", number())?),
                Some("--adopt-fd") => socket = Some(take("--adopt-fd", number())?),
                Some("--daemon-pid") => pid = number().and_then(|pid| u32::try_from(pid).ok()),
                Some(_) | None => return Err(unusable()),
            }
        }
        let adopt = match (socket, pid) {
            (Some(socket), Some(pid)) => Some(Adopted { socket, pid }),
            (Some(_), None) => return Err(ArgsError::Missing("--daemon-pid")),
            (None, _) => None,
        };
        let own_stderr = |source| ArgsError::NoDescriptor {
            option: "--log-fd",
            source,
        };
        Ok(KeeperArgs {
            home: home.ok_or(ArgsError::Missing("--home"))?,
            exe: exe.ok_or(ArgsError::Missing("--exe"))?,
            ready,
            log: log.map_or_else(fd::own_stderr, Ok).map_err(own_stderr)?,
            adopt,
        })
    }
}

fn take(option: &'static str, number: Option<i32>) -> Result<OwnedFd, ArgsError> {
    let number = number.ok_or_else(|| ArgsError::Unusable(option.to_owned()))?;
    fd::take_inherited(number).map_err(|source| ArgsError::NoDescriptor { option, source })
}
