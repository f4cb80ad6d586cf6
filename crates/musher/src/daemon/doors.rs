//! The two sockets clients come through: bound once, parked in the keeper, and
//! taken back by each daemon, so that no client ever finds them closed.

use super::hub::Hub;
use super::{journal, rpc, settings};
use crate::failpoint;
use crate::files::{Durability, replace};
use crate::keeper::client::KeeperClient;
use crate::paths::Paths;
use anyhow::Context;
use musher_core::app::description;
use musher_core::exit::Signal;
use musher_core::id::RequestId;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc;

/// Parked names of the control sockets.
const RPC: &str = "ctl/rpc";
const PUB: &str = "ctl/pub";

/// The two sockets clients come through, and what serves them.
pub(crate) struct Doors {
    rpc: UnixListener,
    bus: UnixListener,
    calls: mpsc::Sender<rpc::Incoming>,
}

impl Doors {
    /// Takes the sockets back from what was parked, or binds and parks them.
    ///
    /// # Errors
    /// A socket that can be neither taken nor bound.
    pub(crate) fn take(
        parked: &mut BTreeMap<String, OwnedFd>,
        paths: &Paths,
        keeper: Option<&KeeperClient>,
        calls: mpsc::Sender<rpc::Incoming>,
    ) -> anyhow::Result<Doors> {
        Ok(Doors {
            rpc: door(parked.remove(RPC), &paths.rpc_sock, keeper, RPC)?,
            bus: door(parked.remove(PUB), &paths.pub_sock, keeper, PUB)?,
            calls,
        })
    }

    /// Returns a duplicate of each socket and the name it is parked under.
    ///
    /// # Errors
    /// `EMFILE`.
    pub(crate) fn to_park(&self) -> std::io::Result<[(&'static str, OwnedFd); 2]> {
        Ok([
            (RPC, musher_os::fd::dup(&self.rpc)?),
            (PUB, musher_os::fd::dup(&self.bus)?),
        ])
    }

    /// Lets clients in, and says so to the keeper.
    pub(crate) fn open(&self, hub: &Hub) {
        if let Err(error) = self.serve(hub) {
            journal::error(&format!("clients cannot be served: {error:#}"));
        }
    }

    fn serve(&self, hub: &Hub) -> anyhow::Result<()> {
        let rpc = tokio::net::UnixListener::from_std(self.rpc.try_clone()?)?;
        let events = tokio::net::UnixListener::from_std(self.bus.try_clone()?)?;
        let describe: rpc::Describe = Arc::new(|attributes| {
            description::spec(attributes, &settings::defaults()).map_err(|errors| {
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                texts.join("; ")
            })
        });
        let ids = Arc::new(AtomicU64::new(RequestId(1).0));
        tokio::task::spawn_local(rpc::serve(rpc, describe, ids, self.calls.clone()));
        let bus = hub.bus.clone();
        tokio::task::spawn_local(async move { bus.serve(events).await });
        // Nothing of ours reads it: without it the daemon serves all the same.
        let (path, pid) = (&hub.paths.pid_file, std::process::id().to_string());
        if let Err(error) = replace(path, &pid, Durability::Process) {
            let path = path.display();
            journal::error(&format!("could not write pid file {path}: {error}"));
        }
        failpoint::hit("takeover-ready");
        if let Some(keeper) = &hub.keeper {
            keeper.ready().context("the keeper cannot be told")?;
        }
        Ok(())
    }

    /// Ends for good: nothing of the daemon stays behind in the home.
    pub(crate) fn close(self, hub: Hub) {
        if let Some(keeper) = &hub.keeper {
            // A keeper that is gone need not be told to go.
            let _ = keeper.quit();
        }
        hub.keeping.quit();
        for path in [
            &hub.paths.rpc_sock,
            &hub.paths.pub_sock,
            &hub.paths.pid_file,
        ] {
            // Somebody else may have removed it: then it is as wanted.
            let _ = std::fs::remove_file(path);
        }
        let killed_by = hub.killed_by;
        drop((hub, self));
        if let Some(pidfd) = killed_by.and_then(|pid| musher_os::reap::pidfd_open(pid).ok()) {
            const SIGQUIT: Signal = Signal(3);
            // PM2's clients wait for it as the answer to `killMe`.
            let _ = musher_os::kill::signal(&pidfd, SIGQUIT);
        }
    }
}

/// Takes a control socket back, or binds it and parks it.
fn door(
    parked: Option<OwnedFd>,
    path: &Path,
    keeper: Option<&KeeperClient>,
    name: &str,
) -> anyhow::Result<UnixListener> {
    // A parked socket whose file was removed can be reached by nobody.
    let fd = match parked.filter(|_| path.exists()) {
        Some(fd) => fd,
        None => {
            let fd = musher_os::control::bind_control(path)?;
            if let Some(keeper) = keeper {
                keeper
                    .park(name, fd.as_fd())
                    .with_context(|| format!("could not park {name}"))?;
            }
            fd
        }
    };
    let listener = UnixListener::from(fd);
    listener
        .set_nonblocking(true)
        .context("a control socket cannot be used")?;
    Ok(listener)
}
