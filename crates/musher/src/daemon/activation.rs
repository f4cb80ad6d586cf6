//! Sockets musher binds and holds for apps that take descriptors.
//!
//! One socket for each address of an app, shared by all its runs: it is bound
//! before the first one starts, parked in the keeper, and closed when no process
//! of the app wants it any more. In between nothing closes the port: neither a
//! crash, nor a restart, nor the death of this daemon. Nothing here decides who
//! is started.

use super::balance::names::{escape, unescape};
use super::hub::Hub;
use super::journal;
use crate::keeper::protocol::MAX_NAME;
use musher_core::app::listen::{ListenAddress, ListenSpec};
use musher_core::supervisor::action::AppKey;
use musher_os::activation::{self, Owner};
use musher_os::spawn::reason;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// First part of the names under which they are parked.
const PREFIX: &str = "act";

/// Every socket held, by app and address.
#[derive(Default)]
pub(crate) struct Activation {
    held: BTreeMap<(AppKey, ListenAddress), OwnedFd>,
}

impl Activation {
    /// Takes back a parked socket. Returns false if the name is not of one.
    pub(crate) fn restore(&mut self, name: &str, fd: OwnedFd) -> Result<(), OwnedFd> {
        match parse_name(name) {
            Some(key) => {
                self.held.insert(key, fd);
                Ok(())
            }
            None => Err(fd),
        }
    }

    /// Returns every socket with the name it is parked under.
    pub(crate) fn parked(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        let sockets = self.held.iter();
        sockets.filter_map(|((app, at), fd)| Some((name_of(app, at)?, fd.as_fd())))
    }

    /// Returns the sockets of a plan that are held, in its order.
    pub(crate) fn of(&self, app: &AppKey, listen: &[ListenSpec]) -> Vec<BorrowedFd<'_>> {
        let held = |spec: &ListenSpec| self.held.get(&(app.clone(), spec.at.clone()));
        listen.iter().filter_map(held).map(AsFd::as_fd).collect()
    }
}

impl Hub {
    /// Binds and parks what a plan wants and is not held yet.
    ///
    /// # Errors
    /// For people: which address, why, and who has it.
    pub(crate) fn bind_all(&mut self, app: &AppKey, listen: &[ListenSpec]) -> Result<(), String> {
        for spec in listen {
            let key = (app.clone(), spec.at.clone());
            if self.activation.held.contains_key(&key) {
                continue;
            }
            // Of an app that was renamed, say.
            self.release_all_sockets();
            let socket = bind(&spec.at)?;
            match name_of(app, &spec.at) {
                Some(name) => self.park(&name, socket.as_fd()),
                None => journal::error(&format!(
                    "{} of {app} is too long a name to be kept: it is bound again if this \
                     daemon dies",
                    spec.at
                )),
            }
            self.activation.held.insert(key, socket);
        }
        Ok(())
    }

    /// Closes the sockets of an app that no process of it wants any more: its
    /// spec does not name them, or it is stopped and nothing of it runs.
    pub(crate) fn release_sockets(&mut self, app: &AppKey) {
        let is_held = self.activation.held.keys().any(|(key, _)| key == app);
        if !is_held {
            return;
        }
        let mut wanted: BTreeSet<ListenAddress> = BTreeSet::new();
        for process in self.supervisor.processes() {
            if process.app_key() != *app {
                continue;
            }
            let mut specs: Vec<_> = process.runs().map(|run| &run.spec).collect();
            if process.uses_slot() {
                specs.push(&process.spec);
            }
            for spec in specs {
                wanted.extend(spec.listen.iter().map(|listen| listen.at.clone()));
            }
        }
        let sockets = self.activation.held.keys();
        let unwanted: Vec<_> = sockets
            .filter(|(key, at)| key == app && !wanted.contains(at))
            .cloned()
            .collect();
        for key in unwanted {
            self.close_socket(&key);
        }
    }

    /// Closes what no process wants: for sockets a former daemon held.
    pub(crate) fn release_all_sockets(&mut self) {
        let apps: BTreeSet<AppKey> = self
            .activation
            .held
            .keys()
            .map(|(app, _)| app.clone())
            .collect();
        for app in apps {
            self.release_sockets(&app);
        }
    }

    fn close_socket(&mut self, key: &(AppKey, ListenAddress)) {
        let Some(socket) = self.activation.held.remove(key) else {
            return;
        };
        // At once, whatever duplicates there are: connections would go on to a
        // queue that nobody empties.
        let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        let (app, at) = key;
        if let ListenAddress::Unix { path } = at {
            // Somebody else may have removed it: then it is as wanted.
            let _ = std::fs::remove_file(path);
        }
        if let (Some(keeper), Some(name)) = (&self.keeper, name_of(app, at)) {
            // A keeper that is gone holds nothing any more.
            let _ = keeper.drop_fd(&name);
        }
    }
}

fn bind(at: &ListenAddress) -> Result<OwnedFd, String> {
    let bound = match at {
        ListenAddress::Tcp { address, port } => activation::tcp(address.as_deref(), *port),
        ListenAddress::Unix { path } => activation::unix(Path::new(path)),
    };
    bound.map_err(|error| {
        let why = match error.raw_os_error() {
            Some(errno) => reason(errno),
            None => error.to_string(),
        };
        let owner = owner_of(at, &error);
        format!("cannot listen on {at}: {why}{owner}")
    })
}

fn owner_of(at: &ListenAddress, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::AddrInUse {
        return String::new();
    }
    let owner = match at {
        ListenAddress::Tcp { port, .. } => activation::tcp_owner(*port),
        ListenAddress::Unix { path } => activation::unix_owner(Path::new(path)),
    };
    match owner {
        Some(Owner { pid, program }) => format!(": {program} has it (pid {pid})"),
        None => String::new(),
    }
}

/// Returns `act/<namespace>/<app>/<address>`, or `None` if it is too long to be
/// kept.
fn name_of(app: &AppKey, at: &ListenAddress) -> Option<String> {
    let name = format!(
        "{PREFIX}/{}/{}/{}",
        escape(&app.namespace),
        escape(&app.name),
        escape(&at.to_string())
    );
    (name.len() <= MAX_NAME).then_some(name)
}

fn parse_name(name: &str) -> Option<(AppKey, ListenAddress)> {
    let parts: Vec<&str> = name.split('/').collect();
    let [PREFIX, namespace, app, at] = parts[..] else {
        return None;
    };
    let app = AppKey {
        namespace: unescape(namespace),
        name: unescape(app),
    };
    Some((app, ListenAddress::parse(&unescape(at))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_socket_it_is_and_where() {
        for (namespace, name, at) in [
            ("default", "api", "3000"),
            ("a/b", "x%2Fy", "unix:/run/app.sock"),
            ("n", "a:b", "[::1]:80"),
        ] {
            let app = AppKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            let at = ListenAddress::parse(at).unwrap();
            let text = name_of(&app, &at).unwrap();
            assert_eq!(parse_name(&text), Some((app, at)));
        }
        for other in [
            "listen/default/api/0/511/k",
            "act/default/api",
            "run/1/2/out",
        ] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
