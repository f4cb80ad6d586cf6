//! Sockets musher binds and holds for an app: the attribute `listen`.
//!
//! They reach the app by systemd's contract (sd_listen_fds(3)): descriptors
//! from 3 on, in the order declared. Nothing here binds.

use std::fmt;

/// Most sockets of an app.
pub const MAX_LISTEN: usize = 16;

/// One socket of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    /// Its word in LISTEN_FDNAMES; [`ListenSpec::UNNAMED`] unless said.
    pub name: String,
    /// Where it listens.
    pub at: ListenAddress,
}

/// Where a socket of an app listens. Its text tells two sockets of an app apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    /// TCP.
    Tcp {
        /// Numeric address; `None` takes every address of both families.
        address: Option<String>,
        /// Port, not 0.
        port: u16,
    },
    /// A stream socket in the Unix domain.
    Unix {
        /// Absolute path.
        path: String,
    },
}

impl ListenSpec {
    /// What sd_listen_fds_with_names(3) calls a descriptor without a name.
    pub const UNNAMED: &'static str = "unknown";
}

impl ListenAddress {
    /// Returns the port of a TCP socket.
    pub const fn port(&self) -> Option<u16> {
        match self {
            ListenAddress::Tcp { port, .. } => Some(*port),
            ListenAddress::Unix { .. } => None,
        }
    }

    /// Returns the address of its text: `3000`, `127.0.0.1:3000`, `[::]:3000`,
    /// `unix:/path`. `None` for anything else, port 0 included.
    pub fn parse(text: &str) -> Option<ListenAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_path = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
            return is_path.then(|| ListenAddress::Unix {
                path: path.to_owned(),
            });
        }
        let (address, port) = match text.rsplit_once(':') {
            None => (None, text),
            Some((address, port)) => (Some(numeric(address)?), port),
        };
        let port = port.parse().ok().filter(|port| *port > 0)?;
        Some(ListenAddress::Tcp { address, port })
    }
}

/// Returns a numeric address without the brackets of IPv6, which it must have.
fn numeric(text: &str) -> Option<String> {
    match text.strip_prefix('[') {
        None => text.parse::<std::net::Ipv4Addr>().ok()?.to_string(),
        Some(rest) => {
            let v6 = rest.strip_suffix(']')?;
            // A link-local address needs its interface: `fe80::1%eth0`.
            let (address, scope) = match v6.split_once('%') {
                Some((address, scope)) => (address, Some(scope)),
                None => (v6, None),
            };
            let address: std::net::Ipv6Addr = address.parse().ok()?;
            match scope {
                Some(scope) => format!("{address}%{scope}"),
                None => address.to_string(),
            }
        }
    }
    .into()
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Unix { path } => write!(f, "unix:{path}"),
            ListenAddress::Tcp {
                address: None,
                port,
            } => write!(f, "{port}"),
            ListenAddress::Tcp {
                address: Some(address),
                port,
            } if address.contains(':') => write!(f, "[{address}]:{port}"),
            ListenAddress::Tcp {
                address: Some(address),
                port,
            } => write!(f, "{address}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_text_of_itself() {
        for text in [
            "3000",
            "127.0.0.1:3000",
            "[::]:3000",
            "[::1]:80",
            "[fe80::1%eth0]:80",
            "unix:/run/app.sock",
        ] {
            let address = ListenAddress::parse(text);
            assert_eq!(address.map(|it| it.to_string()).as_deref(), Some(text));
        }
        for text in [
            "",
            "0",
            "x",
            "70000",
            "localhost:3000",
            "::1:3000",
            "[::1]",
            "127.0.0.1:",
            "127.0.0.1:0",
            "unix:app.sock",
            "unix:/run/",
            "/run/app.sock",
        ] {
            assert_eq!(ListenAddress::parse(text), None, "{text}");
        }
    }
}
