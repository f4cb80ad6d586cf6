//! Who among the sockets of a group the kernel gives connections to.
//!
//! The strict turns of eBPF where this process may load programs; else the
//! kernel's hash while every worker is live, and a random choice among those
//! that are as soon as one is not. The group keeps its program when the daemon
//! dies; the next one puts its own in its place.

use super::BalanceEvent;
use super::thread::Thread;
use musher_core::cluster::SocketId;
use musher_os::bpf::{self, Turns};
use std::io;

/// What chooses in a group, kept with its first socket.
#[derive(Debug, Default)]
pub(super) enum Chooser {
    /// The kernel's hash.
    #[default]
    Hash,
    /// A former daemon may have left a program.
    Unknown,
    /// Strict turns.
    Turns(Turns),
    /// At random among the live ones.
    Random,
}

impl Chooser {
    /// Returns the word that `describe` shows.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Chooser::Hash => "hash",
            Chooser::Unknown => "unknown",
            Chooser::Turns(_) => "ebpf",
            Chooser::Random => "random",
        }
    }
}

impl Thread {
    /// Lets only the live sockets of a group have connections.
    pub(super) fn spread(&mut self, first: SocketId, n_sockets: u32, live: &[u32]) {
        let Some(listener) = self.listeners.get_mut(&first) else {
            return;
        };
        if let Chooser::Turns(turns) = &listener.chooser {
            // A map of this size cannot fail to be written.
            let _ = turns.set_live(live);
            return;
        }
        if !self.is_ebpf_refused {
            match turns(&listener.fd, live) {
                Ok(turns) => {
                    listener.chooser = Chooser::Turns(turns);
                    return;
                }
                Err(error) => {
                    self.is_ebpf_refused = true;
                    (self.on_event)(BalanceEvent::Note(format!(
                        "connections of balance: 'even' are spread by the kernel's hash: \
                         it permits no eBPF program ({error})"
                    )));
                }
            }
        }
        let all: Vec<u32> = (0..n_sockets).collect();
        let is_whole = live.is_empty() || live == all;
        if is_whole && matches!(listener.chooser, Chooser::Hash) {
            return;
        }
        let live = if is_whole { &all[..] } else { live };
        if bpf::attach_random(&listener.fd, live).is_ok() {
            listener.chooser = Chooser::Random;
        }
    }
}

fn turns(member: &impl std::os::fd::AsFd, live: &[u32]) -> io::Result<Turns> {
    // Unset only in tests of what happens without the privilege.
    if std::env::var_os(super::NO_EBPF).is_some() {
        return Err(io::Error::from_raw_os_error(
            rustix::io::Errno::PERM.raw_os_error(),
        ));
    }
    let turns = Turns::load()?;
    turns.set_live(live)?;
    turns.attach(member)?;
    Ok(turns)
}
