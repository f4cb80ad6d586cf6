//! Unix socket addresses for paths of any length.
//!
//! An address holds 107 bytes (unix(7)). A longer path is reached through its
//! directory: `/proc/self/fd/<n>/<name>` names the same file.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::net::SocketAddrUnix;

/// Most bytes of a path in an address, without the final NUL.
const MAX_PATH: usize = 107;

/// An address, with the directory that must stay open while it is used.
pub(crate) struct UnixPath {
    pub(crate) address: SocketAddrUnix,
    _directory: Option<OwnedFd>,
}

impl UnixPath {
    /// Returns the address of a path; a leading NUL makes it an abstract name.
    pub(crate) fn new(path: &Path) -> io::Result<UnixPath> {
        let bytes = path.as_os_str().as_bytes();
        if let Some(name) = bytes.strip_prefix(b"\0") {
            let address = SocketAddrUnix::new_abstract_name(name)?;
            return Ok(UnixPath {
                address,
                _directory: None,
            });
        }
        if bytes.len() <= MAX_PATH {
            return Ok(UnixPath {
                address: SocketAddrUnix::new(path)?,
                _directory: None,
            });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(parent, flags, Mode::empty())?;
        let short = Path::new("/proc/self/fd")
            .join(directory.as_raw_fd().to_string())
            .join(name);
        Ok(UnixPath {
            address: SocketAddrUnix::new(&short)?,
            _directory: Some(directory),
        })
    }
}
