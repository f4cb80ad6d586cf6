//! Binding as libuv binds, because Node's workers compare the result.
//!
//! Sockets are made here and held by musher, so that the death of a worker
//! never closes a port. A group is several sockets on one address, one for
//! each worker slot, between which the kernel spreads connections
//! (SO_REUSEPORT of socket(7)); its order is the order of listen(2). All are
//! non-blocking and close-on-exec. Errors carry the Linux errno that a worker
//! is told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::net::{self, AddressFamily, SocketAddrAny, SocketFlags, SocketType, sockopt};

use crate::unix_path::UnixPath;

/// Node's default length of the queue of connections not yet accepted.
pub const DEFAULT_BACKLOG: u32 = 511;

/// Whether an IPv6 socket also takes IPv4 (IPV6_V6ONLY of ipv6(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stack {
    /// Both; libuv's default.
    #[default]
    Dual,
    /// Flag 1 of a worker's query.
    V6Only,
}

/// Whether a UDP address may be bound again while it is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// `EADDRINUSE`.
    #[default]
    Refused,
    /// Flag 4 of a worker's query: SO_REUSEADDR.
    Allowed,
}

/// Internet family of a wished address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 4, `udp4`.
    V4,
    /// 6, `udp6`.
    V6,
}

/// Who may connect to a Unix socket besides its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathAccess {
    /// `readableAll`: adds r for all.
    pub readable_all: bool,
    /// `writableAll`: adds w for all.
    pub writable_all: bool,
}

/// Where a socket is bound, as Node shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// Numeric address; with `%interface` where it is link-local.
    pub address: String,
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// The real port.
    pub port: u16,
}

/// Returns one listening TCP socket.
///
/// `address` is numeric, IPv6 with or without `%scope`; `None` means `::` for
/// both families and, if that fails for any reason, `0.0.0.0`.
///
/// # Errors
/// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`, `EMFILE`; `EINVAL` for an address
/// that is not numeric, `ENODEV` for an unknown scope.
pub fn tcp(address: Option<&str>, port: u16, stack: Stack, backlog: u32) -> io::Result<OwnedFd> {
    first_of(address, Family::V6, port, |address| {
        let socket = bound_tcp(address, stack, Port::Alone)?;
        net::listen(&socket, queue(backlog))?;
        Ok(socket)
    })
}

/// Returns `n` TCP sockets listening on one address, in slot order.
///
/// The first is bound without SO_REUSEPORT, so that a stranger's socket, even
/// one that shares, is an error instead of a silent competitor. With port 0
/// all get the port of the first. `n` = 0 counts as 1.
///
/// # Errors
/// As [`tcp`].
pub fn tcp_group(
    address: Option<&str>,
    port: u16,
    stack: Stack,
    backlog: u32,
    n: usize,
) -> io::Result<Vec<OwnedFd>> {
    let first = tcp(address, port, stack, backlog)?;
    sockopt::set_socket_reuseport(&first, true)?;
    let mut group = vec![first];
    while group.len() < n {
        group.push(tcp_join(&group[0], backlog)?);
    }
    Ok(group)
}

/// Returns one more TCP socket for the group of `member`.
///
/// # Errors
/// As [`tcp`]; `EADDRINUSE` also if `member` is not of a group.
pub fn tcp_join(member: impl AsFd, backlog: u32) -> io::Result<OwnedFd> {
    let (address, stack) = place_of(&member)?;
    let socket = bound_tcp(address, stack, Port::Shared)?;
    net::listen(&socket, queue(backlog))?;
    Ok(socket)
}

/// Returns one bound UDP socket; `None` is the family's "any" address.
///
/// # Errors
/// As [`tcp`].
pub fn udp(
    address: Option<&str>,
    family: Family,
    port: u16,
    stack: Stack,
    reuse: Reuse,
) -> io::Result<OwnedFd> {
    let any = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let address = match address {
        Some(text) => numeric(text, port)?,
        None => SocketAddr::new(any, port),
    };
    bound_udp(address, stack, reuse, Port::Alone)
}

/// Returns `n` UDP sockets on one address, in slot order, as [`tcp_group`].
///
/// # Errors
/// As [`tcp`].
pub fn udp_group(
    address: Option<&str>,
    family: Family,
    port: u16,
    stack: Stack,
    n: usize,
) -> io::Result<Vec<OwnedFd>> {
    let first = udp(address, family, port, stack, Reuse::Refused)?;
    sockopt::set_socket_reuseport(&first, true)?;
    let mut group = vec![first];
    while group.len() < n {
        group.push(udp_join(&group[0])?);
    }
    Ok(group)
}

/// Returns one more UDP socket for the group of `member`.
///
/// # Errors
/// As [`tcp_join`].
pub fn udp_join(member: impl AsFd) -> io::Result<OwnedFd> {
    let (address, stack) = place_of(&member)?;
    bound_udp(address, stack, Reuse::Refused, Port::Shared)
}

/// Returns a socket listening on a path of any length; a leading NUL makes it
/// an abstract name. Removing the file later is the caller's.
///
/// # Errors
/// `EADDRINUSE` if the file exists, whatever it is; `EACCES` also for a
/// missing directory (as libuv's `uv_pipe_bind2`).
pub fn unix(path: &Path, access: PathAccess, backlog: u32) -> io::Result<OwnedFd> {
    let missing_is_forbidden = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOENT) => io::Error::from_raw_os_error(libc::EACCES),
        _ => error,
    };
    let name = UnixPath::new(path).map_err(missing_is_forbidden)?;
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM)?;
    net::bind(&socket, &name.address)
        .map_err(io::Error::from)
        .map_err(missing_is_forbidden)?;
    if name.address.abstract_name().is_none() {
        widen(path, access)?;
    }
    net::listen(&socket, queue(backlog))?;
    Ok(socket)
}

/// Returns where a TCP or UDP socket is bound; `None` for other kinds.
///
/// # Errors
/// Of getsockname(2).
pub fn local_address(socket: impl AsFd) -> io::Result<Option<LocalAddress>> {
    let Ok(address) = SocketAddr::try_from(net::getsockname(&socket)?) else {
        return Ok(None);
    };
    let (text, family) = match address {
        SocketAddr::V4(v4) => (v4.ip().to_string(), "IPv4"),
        SocketAddr::V6(v6) => (scoped(&socket, v6), "IPv6"),
    };
    Ok(Some(LocalAddress {
        address: text,
        family,
        port: address.port(),
    }))
}

/// Accepts one connection, non-blocking; `None` if none waits.
///
/// # Errors
/// `EMFILE` and the like. A connection that died in the queue is skipped.
pub fn accept(listener: impl AsFd) -> io::Result<Option<OwnedFd>> {
    use rustix::io::Errno;
    loop {
        match net::accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(connection) => return Ok(Some(connection)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Returns how many connections of a listening TCP socket wait for accept:
/// `tcpi_unacked` of TCP_INFO (tcp(7)).
///
/// # Errors
/// Of getsockopt(2).
pub fn queue_length(listener: impl AsFd) -> io::Result<u32> {
    // SAFETY: tcp_info is plain numbers, valid when zero; the length is its
    // size, and the kernel writes at most that much.
    let info = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        let done = libc::getsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut len,
        );
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        info
    };
    Ok(info.tcpi_unacked)
}

/// Whether a socket shares its port from the start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Alone,
    Shared,
}

fn first_of(
    address: Option<&str>,
    any: Family,
    port: u16,
    bind: impl Fn(SocketAddr) -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    match (address, any) {
        (Some(text), _) => bind(numeric(text, port)?),
        (None, Family::V4) => bind((Ipv4Addr::UNSPECIFIED, port).into()),
        (None, Family::V6) => bind((Ipv6Addr::UNSPECIFIED, port).into())
            .or_else(|_| bind((Ipv4Addr::UNSPECIFIED, port).into())),
    }
}

fn bound_tcp(address: SocketAddr, stack: Stack, port: Port) -> io::Result<OwnedFd> {
    let socket = socket(family_of(address), SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind_inet(&socket, address, stack, port)?;
    Ok(socket)
}

fn bound_udp(address: SocketAddr, stack: Stack, reuse: Reuse, port: Port) -> io::Result<OwnedFd> {
    let socket = socket(family_of(address), SocketType::DGRAM)?;
    if reuse == Reuse::Allowed {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind_inet(&socket, address, stack, port)?;
    Ok(socket)
}

fn bind_inet(socket: &OwnedFd, address: SocketAddr, stack: Stack, port: Port) -> io::Result<()> {
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(socket, stack == Stack::V6Only)?;
    }
    if port == Port::Shared {
        sockopt::set_socket_reuseport(socket, true)?;
    }
    Ok(net::bind(socket, &address)?)
}

fn socket(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(net::socket_with(family, kind, flags, None)?)
}

fn family_of(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

fn queue(backlog: u32) -> i32 {
    match backlog {
        0 => DEFAULT_BACKLOG as i32,
        // The kernel cuts it to net.core.somaxconn.
        wished => i32::try_from(wished).unwrap_or(i32::MAX),
    }
}

fn place_of(member: impl AsFd) -> io::Result<(SocketAddr, Stack)> {
    let address: SocketAddrAny = net::getsockname(&member)?;
    let address = SocketAddr::try_from(address)
        .map_err(|_| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    let stack = match address.is_ipv6() && sockopt::ipv6_v6only(&member)? {
        true => Stack::V6Only,
        false => Stack::Dual,
    };
    Ok((address, stack))
}

fn numeric(text: &str, port: u16) -> io::Result<SocketAddr> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    if let Ok(v4) = text.parse() {
        return Ok(SocketAddrV4::new(v4, port).into());
    }
    let (address, scope) = match text.split_once('%') {
        Some((address, scope)) => (address, interface_index(scope)?),
        None => (text, 0),
    };
    let v6 = address.parse().map_err(|_| invalid())?;
    Ok(SocketAddrV6::new(v6, port, 0, scope).into())
}

fn interface_index(scope: &str) -> io::Result<u32> {
    if let Ok(index) = scope.parse() {
        return Ok(index);
    }
    // The ioctl wants any socket (netdevice(7)).
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM)?;
    Ok(net::netdevice::name_to_index(&any, scope)?)
}

fn scoped(socket: impl AsFd, address: SocketAddrV6) -> String {
    let name = match address.scope_id() {
        0 => return address.ip().to_string(),
        index => {
            net::netdevice::index_to_name(&socket, index).unwrap_or_else(|_| index.to_string())
        }
    };
    format!("{}%{name}", address.ip())
}

/// libuv's `uv_pipe_chmod` adds bits and takes none away.
fn widen(path: &Path, access: PathAccess) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut bits = 0;
    if access.readable_all {
        bits |= 0o444;
    }
    if access.writable_all {
        bits |= 0o222;
    }
    if bits == 0 {
        return Ok(());
    }
    let mode = std::fs::metadata(path)?.permissions().mode();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | bits))
}
