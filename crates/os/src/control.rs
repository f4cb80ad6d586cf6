//! The daemon's own sockets: who may speak to it, and who speaks.
//!
//! A control socket is a door to a shell as the daemon's user. It is made with
//! mode 0600 in a directory of mode 0700, is never visible with wider rights
//! whatever the umask, and never replaces one that somebody serves.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use crate::unix_path::UnixPath;

/// The bit that marks a directory for everybody, such as /tmp (inode(7)).
const STICKY: u32 = 0o1000;

/// Clients that may wait for the daemon's accept.
const BACKLOG: i32 = 128;

/// The process at the other end (SO_PEERCRED of unix(7)), as it was when it
/// connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its pid; 0 if it lives in another pid namespace.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Why a control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The directory belongs to somebody else, who could replace the socket.
    #[error("{path} belongs to uid {owner}, not to uid {uid}; choose another home")]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The calling user.
        uid: u32,
    },
    /// Everybody keeps files there: it cannot be closed for all but one.
    #[error("{0} is shared with other users; choose a directory of your own")]
    SharedDirectory(PathBuf),
    /// The directory cannot be made or its mode not be set.
    #[error("cannot prepare the directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process serves this socket.
    #[error("{0} is served by another process")]
    InUse(PathBuf),
    /// There is a file of that name that is not a socket.
    #[error("{0} exists and is not a socket; move it away")]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot bind {path}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Makes a directory of mode 0700, or makes an own one that mode.
///
/// # Errors
/// [`ControlError::ForeignDirectory`], [`ControlError::SharedDirectory`],
/// [`ControlError::Directory`].
pub fn private_directory(path: &Path) -> Result<(), ControlError> {
    let failed = |source| ControlError::Directory {
        path: path.to_owned(),
        source,
    };
    match std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let metadata = std::fs::metadata(path).map_err(failed)?;
    let uid = crate::user::effective_uid();
    if metadata.uid() != uid {
        let path = path.to_owned();
        return Err(ControlError::ForeignDirectory {
            path,
            owner: metadata.uid(),
            uid,
        });
    }
    if metadata.mode() & STICKY != 0 {
        return Err(ControlError::SharedDirectory(path.to_owned()));
    }
    if metadata.mode() & 0o7777 != 0o700 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// Returns a non-blocking socket listening at `path`, mode 0600, in a private
/// directory. A socket that nobody serves is replaced.
///
/// Two processes that do this at the same moment must be kept apart by a lock
/// ([`crate::lock`]): between looking and replacing there is a gap.
///
/// # Errors
/// See [`ControlError`].
pub fn bind_control(path: &Path) -> Result<OwnedFd, ControlError> {
    private_directory(path.parent().unwrap_or(Path::new("/")))?;
    if is_served(path)? {
        return Err(ControlError::InUse(path.to_owned()));
    }
    bind_aside(path).map_err(|source| ControlError::Bind {
        path: path.to_owned(),
        source,
    })
}

/// Binds under a name of our own and renames: a client never sees the socket
/// before it listens, nor with the umask's mode.
fn bind_aside(path: &Path) -> io::Result<OwnedFd> {
    let aside = path.with_extension(format!("{}", std::process::id()));
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let name = UnixPath::new(&aside)?;
    net::bind(&socket, &name.address)?;
    std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o600))?;
    net::listen(&socket, BACKLOG)?;
    std::fs::rename(&aside, path)?;
    Ok(socket)
}

fn is_served(path: &Path) -> Result<bool, ControlError> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Err(_) => return Ok(false),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ControlError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let Err(source) = connect(path) else {
        return Ok(true);
    };
    match source.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ENOENT) => Ok(false),
        // A full queue has an owner, and so has a socket that forbids us or is
        // of another type.
        Some(libc::EAGAIN | libc::EACCES | libc::EPROTOTYPE) => Ok(true),
        // Not knowing is no reason to take somebody's place.
        _ => Err(ControlError::Bind {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Connects to a Unix socket whose path may be of any length; the connection
/// is non-blocking.
///
/// # Errors
/// `ECONNREFUSED` if nobody serves it, `ENOENT`, `EACCES`; `EAGAIN` if its
/// queue is full.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::connect(&socket, &UnixPath::new(path)?.address)?;
    Ok(socket)
}

/// Returns who is at the other end of a Unix connection.
///
/// # Errors
/// Of getsockopt(2).
pub fn peer(connection: impl AsFd) -> io::Result<Peer> {
    // SAFETY: ucred is three numbers, valid when zero; the length is its size.
    // Raw, because rustix's type forbids the pid 0 of a foreign namespace.
    let credentials = unsafe {
        let mut credentials: libc::ucred = std::mem::zeroed();
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        let done = libc::getsockopt(
            connection.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &mut len,
        );
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        credentials
    };
    Ok(Peer {
        pid: u32::try_from(credentials.pid).unwrap_or(0),
        uid: credentials.uid,
        gid: credentials.gid,
    })
}
